"""Collecting from a real HTTP server on loopback that answers as an OpenAI-compatible one does."""

import asyncio
import dataclasses
import json

import pytest
from aiohttp import web

from rilbench.errors import UserError
from rilbench.recipe import Sampling
from rilbench.teachers.collection import Plan, collect, read_collection, seed_for
from rilbench.teachers.questions import Question

QUESTIONS = [Question(f"q{i}", (b"\xff\xd8image",), f"Question {i}?", "7", "s") for i in range(3)]
PLAN = Plan("72b", "weights", 4, 0, Sampling(), 16, 4)


def journal_of(folder):
    return PLAN.journal(folder, PLAN.fingerprint(QUESTIONS))


class TeacherServer:
    """Answers with the seed it was given; can be told to fail or to say nothing."""

    def __init__(self):
        self.requests = []
        self.stop_after = None
        self.silent_for = set()
        self.suffix = ""

    async def _answer(self, request):
        body = await request.json()
        self.requests.append(body)
        if self.stop_after is not None and len(self.requests) > self.stop_after:
            return web.Response(status=400, text="no more")
        text = body["messages"][0]["content"][-1]["text"]
        content = "" if text in self.silent_for else f"answer {body['seed']}{self.suffix}"
        choice = {"message": {"content": content}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 5, "completion_tokens": 3}
        return web.json_response({"choices": [choice], "usage": usage})

    async def collect(self, folder, plan=PLAN):
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = site._server.sockets[0].getsockname()[1]
        seen = []
        try:
            server = (f"http://127.0.0.1:{port}/v1", "teacher", False)
            await collect(plan, QUESTIONS, folder, server, lambda *x: seen.append(x))
        finally:
            await runner.cleanup()
        return seen


def test_collects_every_response_once_with_its_seed(tmp_path):
    server = TeacherServer()
    seen = asyncio.run(server.collect(tmp_path))
    rows = read_collection(PLAN, QUESTIONS, tmp_path)
    assert [(r.question_id, r.sample) for r in rows] == [
        (q.id, i) for q in QUESTIONS for i in range(4)
    ]
    assert all(
        r.response == f"answer {r.seed}" == f"answer {seed_for(PLAN, r.question_id, r.sample)}"
        for r in rows
    )
    assert seen[-1] == (12, 12)
    assert len({r.seed for r in rows}) == 12
    body = server.requests[0]
    assert body["messages"][0]["content"][0]["image_url"]["url"].startswith("data:image/jpeg")
    assert (body["temperature"], body["top_p"], body["top_k"]) == (1.0, 0.95, 50)
    assert not journal_of(tmp_path).exists()


def test_a_broken_collection_goes_on_where_it_was(tmp_path):
    server = TeacherServer()
    server.stop_after = 5
    with pytest.raises(UserError, match="no more"):
        asyncio.run(server.collect(tmp_path))
    kept = journal_of(tmp_path).read_text().splitlines()
    assert len(kept) == 5
    assert not PLAN.file(tmp_path).exists()
    with journal_of(tmp_path).open("a") as journal:
        journal.write('{"question_id": "q2", "sam')  # a kill in the middle of a line
    server.stop_after, server.requests = None, []
    asyncio.run(server.collect(tmp_path))
    assert len(server.requests) == 12 - 5
    assert len(read_collection(PLAN, QUESTIONS, tmp_path)) == 12


def test_odd_line_ends_in_a_response_lose_nothing(tmp_path):
    server = TeacherServer()
    server.suffix = "\u2028and\u0085more"
    server.stop_after = 5
    with pytest.raises(UserError):
        asyncio.run(server.collect(tmp_path))
    server.stop_after, server.requests = None, []
    asyncio.run(server.collect(tmp_path))
    assert len(server.requests) == 12 - 5


def test_silence_is_asked_again_and_then_an_error(tmp_path):
    server = TeacherServer()
    server.silent_for = {"Question 1?"}
    with pytest.raises(UserError, match="'q1' with nothing"):
        asyncio.run(server.collect(tmp_path))
    asked = [
        b["seed"]
        for b in server.requests
        if b["messages"][0]["content"][1]["text"] == "Question 1?"
    ]
    assert len(asked) == 12
    assert len(set(asked)) == 12, "every try has its own seed"
    assert len(journal_of(tmp_path).read_text().splitlines()) == 8


def _damage(path, change):
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    changed = pa.Table.from_pylist(change(table.to_pylist()))
    pq.write_table(changed.replace_schema_metadata(table.schema.metadata), path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: rows[:-1], "lacks responses to 1 of 3"),
        (lambda rows: [{**rows[0], "response": " "}, *rows[1:]], "is empty"),
        (lambda rows: [{"other": 1} for _ in rows], "cannot be read"),
    ],
)
def test_a_damaged_collection_is_refused_with_the_remedy(tmp_path, change, words):
    asyncio.run(TeacherServer().collect(tmp_path))
    _damage(PLAN.file(tmp_path), change)
    with pytest.raises(UserError, match=words) as raised:
        read_collection(PLAN, QUESTIONS, tmp_path)
    assert "delete" in str(raised.value)


def test_a_collection_of_other_questions_or_settings_is_not_used(tmp_path):
    asyncio.run(TeacherServer().collect(tmp_path))
    for plan, questions in (
        (dataclasses.replace(PLAN, seed=1), QUESTIONS),
        (dataclasses.replace(PLAN, weights="others"), QUESTIONS),
        (PLAN, [*QUESTIONS[:2], dataclasses.replace(QUESTIONS[2], question="Other?")]),
    ):
        with pytest.raises(UserError, match="other questions or with other settings"):
            read_collection(plan, questions, tmp_path)
    same = dataclasses.replace(PLAN, concurrency=1)
    assert len(read_collection(same, QUESTIONS, tmp_path)) == 12


def test_journal_lines_are_whole_records(tmp_path):
    server = TeacherServer()
    server.stop_after = 2
    with pytest.raises(UserError):
        asyncio.run(server.collect(tmp_path))
    for line in journal_of(tmp_path).read_text().splitlines():
        assert set(json.loads(line)) >= {"question_id", "model", "seed", "response"}
