"""The parts of a result, and the dev questions."""

import pytest

from rilbench.errors import UserError
from rilbench.lab.lab_paths import LabPaths
from rilbench.lab.run_result import failure_of
from rilbench.lab.worker import benchmark_files, evaluated
from rilbench.ledger import Evaluation, Sample, Score, utc_now
from rilbench.train.nan_guard import NotFiniteError, check_finite


def test_a_run_that_stopped_itself_is_known_by_its_step(tmp_path):
    assert failure_of(tmp_path) is None
    with pytest.raises(NotFiniteError):
        check_finite(tmp_path, "step 12", {"kl": float("nan"), "entropy": 1.0})
    failure = failure_of(tmp_path)
    assert failure.step == 12
    assert "kl not finite" in failure.message


def score(benchmark, value, judge=None):
    return Score(
        benchmark=benchmark, value=value, kit="vlmevalkit", kit_version="1", dataset=benchmark,
        metric="m", judge=judge, questions=1, answered=1, missing=0, data_sha256="",
    )  # fmt: skip


def evaluation(*scores):
    samples = [
        Sample(benchmark=s.benchmark, question_id="1", prompt_hash="", response="x", score=1.0)
        for s in scores
    ]
    return Evaluation(
        path="", fingerprint="f", student="nano", method="ril", teacher="both", suite="nano",
        created=utc_now(), scores=tuple(scores), samples=tuple(samples),
    )  # fmt: skip


def test_an_evaluation_gives_scores_judge_kit_and_outcomes():
    found = evaluated(evaluation(score("AI2D", 51.23456), score("MM-Vet", 60.0, "rule-2")))
    assert found["scores"] == {"AI2D": 51.2346, "MM-Vet": 60.0}
    assert found["judge"] == "rule-2"
    assert found["kit"] == "vlmevalkit 1"
    assert set(found["outcomes"]) == {"AI2D", "MM-Vet"}
    with pytest.raises(UserError, match="AI2D has no score"):
        evaluated(evaluation(score("AI2D", None)))


def test_dev_questions_are_written_once_and_are_not_the_test_questions(tmp_path):
    paths = LabPaths(work=tmp_path)
    folder = benchmark_files("dev", paths)
    files = sorted(path.name for path in folder.glob("*.tsv"))
    assert "MMStar.tsv" in files
    times = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert benchmark_files("dev", paths) == folder
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == times
    assert benchmark_files("test", paths) != folder
