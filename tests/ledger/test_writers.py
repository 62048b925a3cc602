"""Several processes at one ledger: writers wait, and a kill leaves no half evaluation."""

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rilbench.ledger import Ledger

LONG = (pytest.mark.slow, pytest.mark.timeout(3600))

# sqlite-utils takes pandas along where it is installed; these processes need not wait for that.
_WRITER = """
import dataclasses, sys
sys.modules["pandas"] = None
from pathlib import Path
from rilbench.ledger import Evaluation, Ledger, Run, Sample, Score
path, name, times, rows = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
created = "2026-01-02T03:04:05+00:00"
labels = {"student": name, "method": "m", "teacher": "t", "created": created}
provenance = {"kit": "k", "kit_version": "1", "dataset": "d", "metric": "m", "data_sha256": "s"}
sizes = {"MMStar": rows, "MM-Vet": rows // 4}
scores = tuple(Score(benchmark=benchmark, value=1.0, questions=size, answered=size, missing=0,
                     **provenance) for benchmark, size in sizes.items())
samples = tuple(Sample(benchmark=benchmark, question_id=str(i), prompt_hash="h", score=i % 2,
                       response="r" * 50) for benchmark, size in sizes.items() for i in range(size))
evaluation = Evaluation(path="/m", fingerprint="f", suite="nano", scores=scores, samples=samples,
                        **labels)
run = Run(name=name, path="", recipe_fingerprint="x", recipe_yaml="y", status="running", **labels)
with Ledger(Path(path)) as ledger:
    print("open", flush=True)
    for number in range(times):
        run = dataclasses.replace(run, path=f"/runs/{name}/{number}", status="running")
        ledger.record_run(run)
        print(ledger.record(evaluation), flush=True)
        ledger.record_run(dataclasses.replace(run, status="finished"))
"""


def _writer(path: Path, name: str, times: int, rows: int) -> "subprocess.Popen[str]":
    arguments = [str(path), name, str(times), str(rows)]
    return subprocess.Popen(
        [sys.executable, "-c", _WRITER, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _check_whole(path: Path, rows: int, thorough: bool = True) -> set[int]:
    """Assert that the file is sound and every evaluation in it has all its rows; return them."""
    expected = {"MMStar": rows, "MM-Vet": rows // 4}
    with Ledger.open_read(path) as ledger:
        if thorough:
            assert ledger.rows("PRAGMA integrity_check") == [("ok",)]
            assert ledger.rows("PRAGMA foreign_key_check") == []
        found = ledger.evaluations()
        numbers = {each.id for each in found if each.id is not None}
        for each in found:
            assert {score.benchmark: score.questions for score in each.scores} == expected
        query = (
            "SELECT evaluation_id, benchmark, count(*) FROM samples WHERE evaluation_id <= :last"
        )
        last = max(numbers, default=0)  # What is recorded from here on is for the next look.
        counts = ledger.rows(f"{query} GROUP BY 1, 2", {"last": last})
        assert len(counts) == len(numbers) * len(expected)
        for number, benchmark, count in counts:
            assert number in numbers
            assert count == expected[benchmark]
        if numbers:
            assert len(ledger.samples(last)) == sum(expected.values())
    return numbers


@pytest.mark.parametrize(("kills", "seed"), [(5, 0), pytest.param(100, 1, marks=LONG)])
def test_a_kill_leaves_no_half_evaluation(tmp_path: Path, kills: int, seed: int) -> None:
    path, rows = tmp_path / "l.db", 2_000
    dice = random.Random(seed)
    acknowledged: set[int] = set()
    for kill in range(kills):
        records, delay = dice.randrange(3), dice.uniform(0.0, 0.4)
        sys.stdout.write(f"seed {seed}, kill {kill}: {records} records and {delay:.4f} s\n")
        with _writer(path, f"killed {kill}", times=100_000, rows=rows) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "open\n"
            lines = [writer.stdout.readline() for _ in range(records)]
            time.sleep(delay)
            writer.kill()
            # Without its end, the last line may be a part of a number.
            lines += writer.stdout.read().splitlines(keepends=True)
        acknowledged |= {int(line) for line in lines if line.endswith("\n")}
        found = _check_whole(path, rows)
        assert acknowledged <= found, "what was recorded stays"
        with Ledger.open_read(path) as ledger:
            runs = ledger.runs()
        finished = sum(run.status == "finished" for run in runs)
        assert finished <= len(found) <= len(runs)
        assert len(runs) - finished <= kill + 1
    assert acknowledged
    with _writer(path, "next", times=2, rows=rows) as writer:
        out, errors = writer.communicate(timeout=120)
    assert (writer.returncode, errors) == (0, "")
    assert {int(line) for line in out.splitlines()[1:]} == _check_whole(path, rows) - found


def test_eight_writers_wait_for_each_other_and_a_reader_sees_whole_evaluations(
    tmp_path: Path,
) -> None:
    path, rows, times = tmp_path / "l.db", 200, 6  # Not there yet: they also race to make it.
    names = [f"writer {i}" for i in range(8)]
    writers = [_writer(path, name, times, rows) for name in names]
    seen: set[int] = set()
    looks = 0
    while any(writer.poll() is None for writer in writers):
        now = _check_whole(path, rows, thorough=False)
        assert seen <= now
        seen, looks = now, looks + 1
        time.sleep(0.05)
    acknowledged = []
    for writer in writers:
        out, errors = writer.communicate(timeout=120)
        assert (writer.returncode, errors) == (0, "")
        acknowledged += [int(line) for line in out.splitlines()[1:]]
    assert looks > 1
    assert sorted(acknowledged) == sorted(_check_whole(path, rows))
    assert len(acknowledged) == len(writers) * times
    with Ledger.open_read(path) as ledger:
        runs = {(run.path, run.status) for run in ledger.runs()}
        students = [each.student for each in ledger.evaluations()]
    assert runs == {(f"/runs/{name}/{i}", "finished") for name in names for i in range(times)}
    assert sorted(students) == sorted(names * times)
