"""Collecting from a real HTTP server on loopback that answers as an OpenAI-compatible one does."""

import asyncio
import dataclasses
import json

import numpy as np
import pytest
from aiohttp import web
from collected import asked, rows_of, save

from rilbench.config import Sampling
from rilbench.data.question_files import Question
from rilbench.data.response_collector import ModelServer, collect
from rilbench.data.response_store import (
    Plan,
    index_responses,
    read_manifest,
    read_responses,
    seed_for,
)
from rilbench.errors import UserError

QUESTIONS = [Question(f"q{i}", (b"\xff\xd8image",), f"Question {i}?", "7", "s") for i in range(3)]
PLAN = Plan("72b", "weights", 4, 0, Sampling(), 16, 4)


def journal_of(folder):
    return PLAN.journal(folder)


class TeacherServer:
    """Answers with the seed it was given; can be told to fail or to say nothing."""

    def __init__(self):
        self.requests = []
        self.stop_after = None
        self.silent_for, self.refused_for = set(), set()
        self.finish_reason = "stop"
        self.suffix = ""
        self.tokens, self.messages = 3, {}

    async def _answer(self, request):
        body = await request.json()
        self.requests.append(body)
        if self.stop_after is not None and len(self.requests) > self.stop_after:
            return web.Response(status=401, text="no more")
        text = body["messages"][0]["content"][-1]["text"]
        content = "" if text in self.silent_for else f"answer {body['seed']}{self.suffix}"
        if text in self.refused_for:
            return web.Response(status=400, text="too long")
        message = self.messages.get(text, {"content": content})
        choice = {"message": message, "finish_reason": self.finish_reason}
        usage = {"prompt_tokens": 5, "completion_tokens": self.tokens}
        return web.json_response({"choices": [choice], "usage": usage})

    async def collect(self, folder, plan=PLAN, questions=QUESTIONS, **more):
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
            await collect(plan, questions, folder, server, lambda *x: seen.append(x), **more)
        finally:
            await runner.cleanup()
        return seen


def test_collects_every_response_once_with_its_seed(tmp_path):
    server = TeacherServer()
    seen = asyncio.run(server.collect(tmp_path))
    rows = asked(PLAN, QUESTIONS, tmp_path)
    assert [(r["question_id"], r["sample"]) for r in rows] == [
        (q.id, i) for q in QUESTIONS for i in range(4)
    ]
    assert all(
        r["response"]
        == f"answer {r['seed']}"
        == f"answer {seed_for(PLAN, r['question_id'], r['sample'])}"
        for r in rows
    )
    assert seen[-1] == (12, 12)
    assert len({r["seed"] for r in rows}) == 12
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
    assert len(asked(PLAN, QUESTIONS, tmp_path)) == 12


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
    seeds = [
        b["seed"]
        for b in server.requests
        if b["messages"][0]["content"][1]["text"] == "Question 1?"
    ]
    assert len(seeds) == 12
    assert len(set(seeds)) == 12, "every try has its own seed"
    assert seen[-1] == (12, 12)
    rows = asked(PLAN, QUESTIONS, tmp_path)
    assert {r["question_id"] for r in rows} == {"q0", "q2"}, "no failure is a response"
    assert read_manifest(PLAN.file(tmp_path))["failed"] == {"empty": 4}
    failed = [row for row in table(tmp_path) if row["failure"]]
    assert [(r["question_id"], r["sample"]) for r in failed] == [("q1", i) for i in range(4)]
    assert all(r["response"] is None and r["finish_reason"] == "failed" for r in failed)
    assert {r["seed"] for r in failed} <= set(seeds)


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
    return rows_of(PLAN, folder)


def test_the_manifest_travels_with_the_file_and_says_what_it_is(tmp_path):
    server = TeacherServer()
    server.finish_reason, server.tokens = "length", 16
    asyncio.run(server.collect(tmp_path, dataclasses.replace(PLAN, source="Big/Model")))
    manifest = read_manifest(PLAN.file(tmp_path))
    assert manifest == json.loads((tmp_path / "72b.json").read_text())
    assert manifest["sampling"] == dataclasses.asdict(PLAN.sampling)
    assert (manifest["model"], manifest["source"], manifest["max_tokens"]) == (
        *("72b", "Big/Model"),
        16,
    )
    assert (manifest["questions"], manifest["got"], manifest["tokens"]) == (3, 12, 192)
    assert manifest["overlong"] == 12
    assert all(row["overlong"] and row["finish_reason"] == "length" for row in table(tmp_path))


def test_only_what_is_missing_is_asked_for_and_nothing_is_lost(tmp_path):
    first = TeacherServer()
    asyncio.run(first.collect(tmp_path))
    rows = {(r["question_id"], r["sample"]): r for r in table(tmp_path)}
    corrected = dataclasses.replace(QUESTIONS[0], question="Question 0, corrected?")
    gold = dataclasses.replace(QUESTIONS[2], answer="8")  # what it saw is the same
    added = Question("q9", (b"other",), "Question 9?", "7", "s")
    for questions, wanted in (
        (QUESTIONS[1:], set()),
        (QUESTIONS[::-1], set()),
        ([gold, QUESTIONS[1]], set()),
        ([added, corrected, gold], {"Question 0, corrected?", "Question 9?"}),
    ):
        server = TeacherServer()
        missing = index_responses(PLAN, questions, tmp_path).missing(0.0)
        asyncio.run(server.collect(tmp_path, questions=questions))
        texts = [body["messages"][0]["content"][1]["text"] for body in server.requests]
        assert set(texts) == wanted
        assert len(texts) == len(missing) == 4 * len(wanted)
        found = asked(PLAN, questions, tmp_path)
        assert [(r["question_id"], r["sample"]) for r in found] == [
            (q.id, i) for q in questions for i in range(4)
        ]
    for row in asked(PLAN, QUESTIONS, tmp_path):
        assert row == rows[row["question_id"], row["sample"]], "unused responses stay"
    assert read_manifest(PLAN.file(tmp_path))["questions"] == 5
    more = dataclasses.replace(PLAN, responses=6)
    server = TeacherServer()
    asyncio.run(server.collect(tmp_path, more))
    assert len(server.requests) == 2 * 3
    fewer = asked(dataclasses.replace(PLAN, responses=1), QUESTIONS, tmp_path)
    assert [row["sample"] for row in fewer] == [0, 0, 0]


def test_a_journal_serves_other_questions_too(tmp_path):
    server = TeacherServer()
    server.stop_after = 5
    with pytest.raises(UserError, match="no more"):
        asyncio.run(server.collect(tmp_path))
    server.stop_after, server.requests = None, []
    asyncio.run(server.collect(tmp_path, questions=QUESTIONS[:1]))
    asyncio.run(server.collect(tmp_path))
    assert len(server.requests) == 12 - 5
    assert len(asked(PLAN, QUESTIONS, tmp_path)) == len(table(tmp_path)) == 12


def test_failures_are_asked_again_only_if_they_are_too_many(tmp_path):
    save(PLAN, QUESTIONS, tmp_path, {("q1", 0), ("q1", 1)})
    assert index_responses(PLAN, QUESTIONS, tmp_path).missing(0.2) == []
    assert index_responses(PLAN, QUESTIONS, tmp_path).missing(0.1) == [("q1", 0), ("q1", 1)]
    server = TeacherServer()
    asyncio.run(server.collect(tmp_path, max_failed=0.1))
    assert len(server.requests) == 2
    assert len(asked(PLAN, QUESTIONS, tmp_path)) == len(table(tmp_path)) == 12
    assert read_manifest(PLAN.file(tmp_path))["failed"] == {}


def test_the_reasoning_of_a_thinking_teacher_is_left_out_or_kept_by_a_setting(tmp_path):
    replies = {
        "Question 0?": {"content": "<think>hm,\n7</think>\n\n7"},
        "Question 1?": {"content": "7", "reasoning_content": "hm"},
        "Question 2?": {"content": "hm</think>7"},  # the chat template opened it
    }
    for keep in (False, True):
        server = TeacherServer()
        server.messages = replies
        plan = dataclasses.replace(PLAN, keep_reasoning=keep)
        folder = tmp_path / str(keep)
        asyncio.run(server.collect(folder, plan))
        texts = {row["question_id"]: row["response"] for row in rows_of(plan, folder)}
        thought = "<think>\nhm\n</think>\n\n7" if keep else "7"
        first = "<think>\nhm,\n7\n</think>\n\n7" if keep else "7"
        assert texts == {"q0": first, "q1": thought, "q2": thought}
        assert index_responses(plan, QUESTIONS, folder).reasoned == 12


@pytest.mark.parametrize(
    ("message", "finish_reason", "kind", "words"),
    [
        (
            {"content": None, "reasoning_content": "hm, so"},
            "length",
            "only reasoning",
            "raise data",
        ),
        ({"content": "<think>hm, so"}, "length", "only reasoning", "max_response_tokens"),
        ({"content": "I cannot"}, "content_filter", "content_filter", "check the server"),
        ({"content": "half of"}, "length", "cut by the server", "longer context"),
    ],
)
def test_what_is_no_whole_response_is_a_named_failure(
    tmp_path, message, finish_reason, kind, words
):
    server = TeacherServer()
    server.finish_reason, server.tokens = finish_reason, 3  # of the 16 allowed
    server.messages = {"Question 1?": message}
    with pytest.raises(UserError, match=rf"\({kind} 1\).*{words}"):
        asyncio.run(server.collect(tmp_path, questions=QUESTIONS[1:2]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: [{**rows[0], "response": " "}, *rows[1:]], "is empty"),
        (lambda rows: [{"other": 1} for _ in rows], "cannot be read"),
    ],
)
def test_a_damaged_collection_is_refused_with_the_remedy(tmp_path, change, words):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = save(PLAN, QUESTIONS, tmp_path)
    metadata = pq.read_metadata(path).metadata
    changed = pa.Table.from_pylist(change(rows_of(PLAN, tmp_path)))
    pq.write_table(changed.replace_schema_metadata(metadata), path)
    with pytest.raises(UserError, match=words) as raised:
        index_responses(PLAN, QUESTIONS, tmp_path), list(read_responses(path, np.arange(12)))
    assert "delete" in str(raised.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": 1}, r"seed=0 \(asked: 1\)"),
        ({"weights": "others"}, r"weights=weights \(asked: others\)"),
        ({"sampling": Sampling(temperature=0.5)}, r"sampling\.temperature=1\.0 \(asked: 0\.5\)"),
        ({"keep_reasoning": True, "max_tokens": 9}, r"max_tokens=16 \(asked: 9\); keep_reas"),
    ],
)
def test_a_collection_with_other_settings_is_refused_by_their_names(tmp_path, change, words):
    save(PLAN, QUESTIONS, tmp_path)
    with pytest.raises(UserError, match=words):
        index_responses(dataclasses.replace(PLAN, **change), QUESTIONS, tmp_path)
    same = dataclasses.replace(PLAN, concurrency=1, source="of another name")
    assert len(asked(same, QUESTIONS, tmp_path)) == 12


def test_a_file_is_written_in_parts_and_read_in_parts(tmp_path, monkeypatch):
    import pyarrow.parquet as pq

    monkeypatch.setattr("rilbench.data.row_files.GROUP_BYTES", 1000)
    monkeypatch.setattr("rilbench.data.response_store._BATCH", 3)
    questions = [Question(f"q{i}", (b"i",), f"{i}?", "7", "s") for i in range(50)]
    path = save(PLAN, questions, tmp_path, {("q3", 1)})
    assert pq.ParquetFile(path).num_row_groups > 10
    index = index_responses(PLAN, questions[::-1], tmp_path)
    rows = index.rows_by_question(2)
    assert [len(some) for some in rows] == [2] * 50
    read = read_responses(path, np.sort(np.concatenate(rows)))
    texts = [text for some in read for text in some.to_pylist()]
    expected = [f"72b {q.id} {i}" for q in questions for i in range(2)]
    expected[7] = "72b q3 2"  # in the place of the failure
    assert texts == expected


def test_journal_lines_are_whole_records(tmp_path):
    server = TeacherServer()
    server.stop_after = 2
    with pytest.raises(UserError):
        asyncio.run(server.collect(tmp_path))
    for line in journal_of(tmp_path).read_text().splitlines():
        assert set(json.loads(line)) >= {"question_id", "model", "seed", "response"}
