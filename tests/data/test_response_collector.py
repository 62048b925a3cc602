"""Collecting from a server that fails in every way, and kills of the process that collects."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from collected import asked
from flaky_teacher import TROUBLES, flaky_teacher

from rilbench.config import Sampling
from rilbench.data.question_files import Question
from rilbench.data.response_collector import ModelServer, collect
from rilbench.data.response_store import Plan, read_manifest, seed_for

ROOT = Path(__file__).parents[2]
QUESTIONS = [Question(f"q{i}", (b"\xff\xd8i",), f"Question {i}?", "7", "s") for i in range(40)]
PLAN = Plan("72b", "weights", 5, 0, Sampling(), 16, 16)
SEEDS = {seed_for(PLAN, q.id, i): (q.id, i) for q in QUESTIONS for i in range(5)}


def rows_of(folder):
    return pq.read_table(PLAN.file(folder)).to_pylist()


@pytest.mark.timeout(180)
def test_a_flaky_server_and_every_question_is_accounted_for(tmp_path):
    with flaky_teacher(trouble=0.2, empty=0.05) as teacher:
        server = ModelServer(teacher.url, "teacher", timeout=2.0)
        asyncio.run(collect(PLAN, QUESTIONS, tmp_path, server, lambda *_: None, max_failed=0.05))
    rows = rows_of(tmp_path)
    assert [(r["question_id"], r["sample"]) for r in rows] == list(SEEDS.values())
    for row in rows:
        answered = row["response"] == f"answer {row['seed']}" and not row["failure"]
        assert answered or (row["response"] is None and row["failure"])
    kinds = Counter(kind for *_, kind in teacher.asked)
    assert all(kinds[kind] for kind in (*TROUBLES, "empty")), kinds
    manifest = read_manifest(PLAN.file(tmp_path))
    failed = sum(manifest["failed"].values())
    assert manifest["got"] + failed == 200
    assert failed <= 0.05 * 200
    # Once each, though a busy machine may answer later than the client waits, which asks again.
    answered = {seed for _, seed, kind in teacher.asked if kind == "answer"}
    assert len(asked(PLAN, QUESTIONS, tmp_path)) == manifest["got"] == len(answered)
    last = {}
    for moment, seed, kind in teacher.asked:
        before = last.get(seed)
        if before and before[1] == "busy":
            assert moment - before[0] >= 1, "Retry-After is kept to"
        last[seed] = (moment, kind)


def test_a_model_that_ends_at_once_is_asked_again_and_leaves_no_empty_response(tmp_path):
    """vLLM counts one token, the end; an evaluation takes it for an answer, and a wrong one."""
    with flaky_teacher(empty=0.05, tokens=1) as teacher:
        server = ModelServer(teacher.url, "teacher")
        asyncio.run(collect(PLAN, QUESTIONS, tmp_path, server, lambda *_: None, max_failed=0.05))
    assert "empty" in {kind for *_, kind in teacher.asked}
    rows = rows_of(tmp_path)
    assert len(rows) == 200
    assert all(row["response"] or row["failure"] for row in rows)
    assert sum(bool(row["response"]) for row in rows) > 195


# The child is a process of its own, as a user's is.
CHILD = """
import asyncio, sys
from pathlib import Path
from test_response_collector import PLAN, QUESTIONS
from rilbench.data.response_collector import ModelServer, collect
server = ModelServer(sys.argv[1], "teacher")
asyncio.run(collect(PLAN, QUESTIONS, Path(sys.argv[2]), server, lambda *_: None))
"""


def journaled(folder):
    """What is finished: whole lines of the journal, by the seed that was asked with."""
    path = PLAN.journal(folder)
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return {json.loads(line)["seed"] for line in lines}


def kill_while_collecting(folder, kills):
    rng = random.Random()
    log = folder.parent / "child.log"
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests/support"), str(ROOT / "tests/data")])
    with flaky_teacher(empty=0.05, pause=0.05) as teacher:
        command = [sys.executable, "-c", CHILD, teacher.url, str(folder)]
        finished, begun, killed = set(), 0, 0
        while not PLAN.file(folder).exists():
            with log.open("w") as sink:
                environment = {**os.environ, "PYTHONPATH": paths}
                child = subprocess.Popen(command, env=environment, stdout=sink, stderr=sink)
            while len(teacher.asked) == begun and child.poll() is None:
                time.sleep(0.005)
            if killed < kills:
                more = rng.randint(0, 200 // kills)
                while len(teacher.asked) < begun + more and child.poll() is None:
                    time.sleep(0.002)
                time.sleep(rng.uniform(0, 0.05))
                child.send_signal(signal.SIGKILL)
                killed += 1
            child.wait()
            assert child.returncode in (0, -signal.SIGKILL), (
                folder.parent / "child.log"
            ).read_text()
            time.sleep(0.1)  # what is on its way to the server
            again = [seed for _, seed, _ in teacher.asked[begun:] if seed in finished]
            assert not again, "a finished response was asked for again"
            finished |= journaled(folder)
            begun = len(teacher.asked)
        # What was under way at a kill is lost; nothing else is asked twice.
        answers = Counter(seed for _, seed, kind in teacher.asked if kind == "answer")
    assert killed == kills
    assert sum(n - 1 for n in answers.values()) <= killed * PLAN.concurrency
    rows = asked(PLAN, QUESTIONS, folder)
    assert len(rows) == 200
    assert all(row["response"] == f"answer {row['seed']}" for row in rows)


@pytest.mark.timeout(120)
def test_a_kill_repeats_no_finished_response(tmp_path):
    kill_while_collecting(tmp_path / "collection", 1)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_twenty_kills_repeat_no_finished_response(tmp_path):
    kill_while_collecting(tmp_path / "collection", 20)
