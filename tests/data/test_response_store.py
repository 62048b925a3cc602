"""Collecting from a real HTTP server on loopback that answers as an OpenAI-compatible one does."""

import asyncio
import dataclasses
import json

import pytest
from aiohttp import web

from rilbench.config import Sampling
from rilbench.data.question_files import Question
from rilbench.data.response_collector import ModelServer, collect
from rilbench.data.response_store import Plan, read_collection, read_manifest, seed_for
from rilbench.errors import UserError

QUESTIONS = [Question(f"q{i}", (b"\xff\xd8image",), f"Question {i}?", "7", "s") for i in range(3)]
PLAN = Plan("72b", "weights", 4, 0, Sampling(), 16, 4)


def journal_of(folder):
    return PLAN.journal(folder, QUESTIONS)


class TeacherServer:
    """Answers with the seed it was given; can be told to fail or to say nothing."""

    def __init__(self):
        self.requests = []
        self.stop_after = None
        self.silent_for, self.refused_for = set(), set()
        self.finish_reason = "stop"
        self.suffix = ""

    async def _answer(self, request):
        body = await request.json()
        self.requests.append(body)
        if self.stop_after is not None and len(self.requests) > self.stop_after:
            return web.Response(status=401, text="no more")
        text = body["messages"][0]["content"][-1]["text"]
        content = "" if text in self.silent_for else f"answer {body['seed']}{self.suffix}"
        if text in self.refused_for:
            return web.Response(status=400, text="too long")
        choice = {"message": {"content": content}, "finish_reason": self.finish_reason}
        usage = {"prompt_tokens": 5, "completion_tokens": 3}
        return web.json_response({"choices": [choice], "usage": usage})

    async def collect(self, folder, plan=PLAN, **more):
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = site._server.sockets[0].getsockname()[1]
        seen = []
        try:
            server = ModelServer(f"http://127.0.0.1:{port}/v1", "teacher")
            await collect(plan, QUESTIONS, folder, server, lambda *x: seen.append(x), **more)
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


def test_silence_is_asked_again_and_then_a_named_failure(tmp_path):
    server = TeacherServer()
    server.silent_for = {"Question 1?"}
    seen = asyncio.run(server.collect(tmp_path, max_failed=0.4))
    asked = [
        b["seed"]
        for b in server.requests
        if b["messages"][0]["content"][1]["text"] == "Question 1?"
    ]
    assert len(asked) == 12
    assert len(set(asked)) == 12, "every try has its own seed"
    assert seen[-1] == (12, 12)
    rows = read_collection(PLAN, QUESTIONS, tmp_path)
    assert {r.question_id for r in rows} == {"q0", "q2"}, "no failure is a response"
    assert read_manifest(PLAN.file(tmp_path))["failed"] == {"empty": 4}
    failed = [row for row in table(tmp_path) if row["failure"]]
    assert [(r["question_id"], r["sample"]) for r in failed] == [("q1", i) for i in range(4)]
    assert all(r["response"] is None and r["finish_reason"] == "failed" for r in failed)
    assert {r["seed"] for r in failed} <= set(asked)


def test_too_many_failures_stop_it_and_only_they_are_asked_again(tmp_path):
    server = TeacherServer()
    server.refused_for = {"Question 1?"}
    with pytest.raises(UserError, match=r"1 of 12 responses failed \(error 1\).*too long"):
        asyncio.run(server.collect(tmp_path, max_failed=0.05))
    kept = len(journal_of(tmp_path).read_text().splitlines())
    assert kept > 0
    server.refused_for, server.requests = set(), []
    asyncio.run(server.collect(tmp_path))
    assert len(server.requests) == 12 - kept
    assert read_manifest(PLAN.file(tmp_path))["failed"] == {}


def table(folder):
    import pyarrow.parquet as pq

    return pq.read_table(PLAN.file(folder)).to_pylist()


def test_the_manifest_travels_with_the_file_and_says_what_it_is(tmp_path):
    server = TeacherServer()
    server.finish_reason = "length"
    asyncio.run(server.collect(tmp_path, dataclasses.replace(PLAN, source="Big/Model")))
    manifest = read_manifest(PLAN.file(tmp_path))
    assert manifest == json.loads((tmp_path / "72b.json").read_text())
    assert manifest["sampling"] == dataclasses.asdict(PLAN.sampling)
    assert (manifest["model"], manifest["source"], manifest["max_tokens"]) == (
        *("72b", "Big/Model"),
        16,
    )
    assert (manifest["questions"], manifest["got"], manifest["tokens"]) == (3, 12, 36)
    assert manifest["overlong"] == 12
    assert all(row["overlong"] and row["finish_reason"] == "length" for row in table(tmp_path))


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


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": 1}, r"seed=0 \(asked: 1\)"),
        ({"weights": "others"}, r"weights=weights \(asked: others\)"),
        ({"sampling": Sampling(temperature=0.5)}, r"sampling\.temperature=1\.0 \(asked: 0\.5\)"),
        ({"responses": 8, "max_tokens": 9}, r"responses=4 \(asked: 8\); max_tokens=16 \(asked: 9"),
    ],
)
def test_a_collection_with_other_settings_is_refused_by_their_names(tmp_path, change, words):
    asyncio.run(TeacherServer().collect(tmp_path))
    with pytest.raises(UserError, match=words):
        read_collection(dataclasses.replace(PLAN, **change), QUESTIONS, tmp_path)
    same = dataclasses.replace(PLAN, concurrency=1, source="of another name")
    assert len(read_collection(same, QUESTIONS, tmp_path)) == 12


def test_a_collection_of_other_questions_is_refused(tmp_path):
    asyncio.run(TeacherServer().collect(tmp_path))
    other = [*QUESTIONS[:2], dataclasses.replace(QUESTIONS[2], question="Other?")]
    for questions in (other, QUESTIONS[:2]):
        with pytest.raises(UserError, match=r"with other questions \(3, of the recipe's data [23]"):
            read_collection(PLAN, questions, tmp_path)


def test_journal_lines_are_whole_records(tmp_path):
    server = TeacherServer()
    server.stop_after = 2
    with pytest.raises(UserError):
        asyncio.run(server.collect(tmp_path))
    for line in journal_of(tmp_path).read_text().splitlines():
        assert set(json.loads(line)) >= {"question_id", "model", "seed", "response"}
