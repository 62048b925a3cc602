import json
import threading

import pytest

from rilbench.config import load_recipe
from rilbench.errors import UserError
from rilbench.lab import worker as workers
from rilbench.lab.lab_paths import LabPaths
from rilbench.lab.worker import Worker, evaluated, not_finite
from rilbench.ledger import Evaluation, Sample, Score, utc_now
from rilbench.train.nan_guard import NotFiniteError, check_finite

LOOP = load_recipe("both", "nano", "ril")
SFT = load_recipe("both", "nano", "sft", ["sft.steps=2"])


def write(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def measured(tmp_path):
    """A run and a collection that have written down their cost."""
    paths = LabPaths(work=tmp_path)
    own = {
        **{"sampled_tokens": 10, "teacher_tokens": 20, "trained_tokens": 30, "judge_calls": 40},
        "cpu_seconds": {"collect": 7.0, "sft": 0.0, "discriminator": 5.5, "ril": 60.04},
    }
    write(tmp_path / "run" / "cost.json", [own])
    saved = {name: {"tokens": n} for name, n in (("72b", 100), ("78b", 200), ("student", 400))}
    write(paths.collection("nano") / "cost.json", [saved])
    return paths


@pytest.mark.parametrize(
    ("recipe", "method", "settings", "collected"),
    [
        ("both", "ril", [], 700),
        ("72b", "ril", [], 500),
        ("both", "teacher-rows", [], 300),
        ("both", "dr-grpo", [], 0),
        ("both", "dr-grpo", ["sft.steps=2"], 300),
        ("both", "sft", ["sft.steps=2"], 300),
    ],
)
def test_a_method_pays_for_the_responses_that_it_needs(
    tmp_path, measured, recipe, method, settings, collected
):
    resolved = load_recipe(recipe, "nano", method, settings)
    found = workers.run_cost(tmp_path / "run", resolved, measured)
    assert found.collected_tokens == collected
    assert (found.sampled_tokens, found.judge_calls) == (10, 40)
    assert found.seconds == pytest.approx(72.5)


def test_an_unknown_cost_is_not_nothing(tmp_path, measured):
    resolved = load_recipe("both", "nano", "ril")
    (measured.collection("nano") / "cost.json").write_text("{}")
    with pytest.raises(UserError, match="does not say what it cost"):
        workers.run_cost(tmp_path / "run", resolved, measured)
    with pytest.raises(UserError, match="cannot be read"):
        workers.run_cost(tmp_path / "other", resolved, measured)


def test_a_run_that_stopped_itself_is_known_by_its_step(tmp_path):
    assert not_finite(tmp_path) is None
    with pytest.raises(NotFiniteError):
        check_finite(tmp_path, "step 12", {"kl": float("nan"), "entropy": 1.0})
    failure = not_finite(tmp_path)
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


def test_sessions_start_one_after_another(tmp_path):
    """The second worker's first run waits until the first worker's takes steps, and no longer."""
    lock = threading.Lock()
    one, two = (Worker(n, LabPaths(work=tmp_path), None, None, lock) for n in (1, 2))
    with one._first_start(SFT):
        assert not lock.locked(), "the session starts with the first run that has a loop"
    with one._first_start(LOOP) as started:
        assert lock.locked()
        view = workers._WorkerProgress(10, lambda words: None, started)
        view.stage("sft", "running")
        view.line("sft", {"step": 1, "of": 5})
        assert lock.locked(), "SFT does not mean that the session is up"
        view.line("ril", {"step": 1})
        assert not lock.locked()
        with two._first_start(LOOP) as other:
            assert lock.locked()
            other()
    with one._first_start(LOOP) as started:
        assert not lock.locked(), "only a worker's first run waits"
        started()


def test_a_start_that_fails_lets_the_others_go_on(tmp_path):
    lock = threading.Lock()
    worker = Worker(1, LabPaths(work=tmp_path), None, None, lock)
    with pytest.raises(UserError), worker._first_start(LOOP):
        raise UserError("no")
    assert not lock.locked()


def test_dev_questions_are_written_once_and_are_not_the_test_questions(tmp_path):
    paths = LabPaths(work=tmp_path)
    folder = workers.benchmark_files("dev", paths)
    files = sorted(path.name for path in folder.glob("*.tsv"))
    assert "MMStar.tsv" in files
    times = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert workers.benchmark_files("dev", paths) == folder
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == times
    assert workers.benchmark_files("test", paths) != folder
