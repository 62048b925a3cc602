"""kill -9 at any moment of an evaluation: no answer is lost, none is asked for twice."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from fake_judge import FakeJudge, fake_judge, says

from rilbench.evaluate.judge_session import Judge
from rilbench.evaluate.options import EvalOptions
from rilbench.evaluate.prompts import PromptSet
from rilbench.evaluate.run import evaluate
from rilbench.evaluate.suite import find_suite
from rilbench.ledger import Evaluation

LATENCY = 0.1  # seconds
Key = tuple[str, str]


def mark(messages: Any) -> str:
    """What identifies a request."""
    return hashlib.sha256(json.dumps(messages, sort_keys=True).encode()).hexdigest()


def answer(body: dict[str, Any]) -> tuple[int, bytes]:
    """One of four options, by the question; after a while."""
    time.sleep(LATENCY)
    return says("ABCD"[int(mark(body["messages"])[0], 16) % 4])


def answered(plan: EvalOptions) -> set[Key]:
    """The questions whose answers are on the disk."""
    found: set[Key] = set()
    for file in plan.work.glob("answers/*.jsonl"):
        for line in file.read_bytes().split(b"\n")[:-1]:
            row = json.loads(line)
            found.add((row["dataset"], row["question_id"]))
    return found


def started(checkpoint: Path, plan: EvalOptions) -> "subprocess.Popen[bytes]":
    code = (
        "import sys; from pathlib import Path; from rilbench.evaluate.options import EvalOptions\n"
        "from rilbench.evaluate.judge_session import read_judge\n"
        "from rilbench.evaluate.run import evaluate\n"
        "model, data, work, url, judge, columns = sys.argv[1:]\n"
        "columns = tuple(filter(None, columns.split(',')))\n"
        "evaluate(Path(model), EvalOptions('nano', Path(data), Path(work), endpoint=url,"
        " judge=read_judge(judge), benchmarks=columns))"
    )
    command = [sys.executable, "-c", code, str(checkpoint), str(plan.data), str(plan.work)]
    judge = "exact" if plan.judge.exact else f"{plan.judge.model}@{plan.judge.url}"
    return subprocess.Popen(
        [*command, str(plan.endpoint), judge, ",".join(plan.benchmarks)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def without_times(evaluation: Evaluation) -> Any:
    return evaluation.scores, [(s.question_id, s.response, s.score) for s in evaluation.samples]


def questions(plan: EvalOptions) -> dict[Key, str]:
    """The mark of each question's request."""
    (folder,) = (path.parent for path in (plan.work / "prompts").glob("*/questions.jsonl"))
    prompts = PromptSet(find_suite("nano").datasets, plan.data, folder.parent, "", None)
    prompts.folder = folder
    return {q.key: mark(prompts.messages(q)) for q in prompts.questions}


def kill_at(
    checkpoint: Path, plan: EvalOptions, server: FakeJudge, *, seconds: float = 0, answers: int = 0
) -> int:
    """Let an evaluation run for so long, and to so many answers; what it asked a second time."""
    before, seen = answered(plan), len(server.questions)
    process = started(checkpoint, plan)
    time.sleep(seconds)
    while len(answered(plan)) < answers:
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(3 * LATENCY)  # What was on its way arrives at the server.
    if not before:
        return 0
    # Some benchmarks here have the same questions: each may be asked once for each of them.
    open_ = Counter(found for key, found in questions(plan).items() if key not in before)
    asked = Counter(mark(body["messages"]) for body in server.questions[seen:])
    return (asked - open_).total()


@pytest.mark.parametrize(
    "kills", [pytest.param(1, id="one"), pytest.param(20, id="twenty", marks=pytest.mark.slow)]
)
def test_an_evaluation_that_is_killed(
    checkpoint: Path, data: Path, tmp_path: Path, kills: int
) -> None:
    moments = random.Random(kills)
    with fake_judge(answer, ["model"]) as server:
        whole = EvalOptions("nano", data, tmp_path / "whole", endpoint=server.url)
        start = time.monotonic()
        wanted = evaluate(checkpoint, whole)
        duration = time.monotonic() - start
        total = len(server.questions)

        plan = EvalOptions("nano", data, tmp_path / "killed", endpoint=server.url)
        # The first with something to lose, the others in whatever stage.
        assert kill_at(checkpoint, plan, server, answers=moments.randrange(1, total // 2)) == 0
        for _ in range(kills - 1):
            moment = moments.uniform(0.05, 1.2) * duration
            assert kill_at(checkpoint, plan, server, seconds=moment) == 0
        before, asked = answered(plan), len(server.questions)
        found = evaluate(checkpoint, plan)
        assert len(server.questions) - asked == total - len(before)
        assert without_times(found) == without_times(wanted)


def grade(_: dict[str, Any]) -> tuple[int, bytes]:
    """Half a point, after a while."""
    time.sleep(5 * LATENCY)
    return says("0.5")


@pytest.mark.slow
def test_a_kill_while_the_judge_is_asked(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    """What it said before is kept: of each question one verdict is paid for, but for those on
    their way."""
    with fake_judge(answer, ["model"]) as server, fake_judge(grade) as judge:
        plan = EvalOptions(
            "nano",
            data,
            tmp_path / "work",
            endpoint=server.url,
            judge=Judge(judge.url, "j"),
            benchmarks=("MM-Vet",),
        )
        process = started(checkpoint, plan)
        kept: list[Path] = []
        while not kept:
            assert process.poll() is None
            time.sleep(0.01)
            kept = [f for f in plan.work.rglob("j.jsonl") if f.stat().st_size]
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        time.sleep(10 * LATENCY)
        said = kept[0].read_bytes().count(b"\n")
        before, asked = len(judge.seen), len(server.questions)
        found = evaluate(checkpoint, plan)
        assert len(server.questions) == asked
        assert found.scores[0].value == 50
        questions = found.scores[0].questions
        assert len(judge.seen) - before == 1 + questions - said, "the probe, and what was not said"
