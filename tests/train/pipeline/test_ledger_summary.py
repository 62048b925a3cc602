"""A run's folder as a row of the ledger."""

import json
from pathlib import Path

import pytest
from filelock import FileLock

from rilbench.config import load_recipe
from rilbench.ledger import Ledger
from rilbench.train.pipeline.ledger_summary import curves, read_steps, record, recorded, summary
from rilbench.train.pipeline.run_folder import Run, open_run


def write(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_curves_keep_every_step_and_nothing_that_no_step_has(tmp_path):
    file = tmp_path / "metrics.jsonl"
    write(
        file,
        [
            {"step": 1, "kl": 0.123456, "answer_reward_student": 1.0, "warnings": [], "other": 1},
            {"step": 2, "kl": float("inf"), "warnings": ["collapse"]},
        ],
    )
    assert curves(read_steps(file)) == {
        "answer_reward_student": [1.0, None],
        "kl": [0.1235, None],
        "warnings": [[], ["collapse"]],
    }
    assert curves(read_steps(tmp_path / "none.jsonl")) == {}


def test_a_line_that_is_being_written_is_left_out(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "kl": 1.0}\n{"step": 2, "k')
    assert [step["step"] for step in read_steps(tmp_path / "metrics.jsonl")] == [1]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    recipe = load_recipe("both", "nano", overrides=["seed=7"])
    opened = open_run(tmp_path / "runs" / "first", recipe, resume=False)
    write(opened.folder / "cost.json", [{"sampled_tokens": 5, "cpu_seconds": {"ril": 2.0}}])
    steps = [
        {"step": n, "seconds": s, "kl": 0.1, "verl": {_MEMORY: g, "actor/lr": 1e-4}}
        for n, s, g in ((1, 9.0, 1.5), (2, 2.0, 2.5), (3, 4.0, 2.0))
    ]
    write(opened.folder / "metrics.jsonl", steps)
    return opened


_MEMORY = "perf/max_memory_allocated_gb"


def test_a_run_is_recorded_at_its_start_and_at_its_end(run, tmp_path):
    db = tmp_path / "ledger.db"
    record(run, "running", db)
    record(run, "finished", db)
    with Ledger.open_read(db) as ledger:
        (row,) = ledger.runs()
    assert (row.name, row.status, row.seed) == ("first", "finished", 7)
    assert row.finished is not None
    assert row.metrics["steps"] == 3
    assert row.metrics["step_seconds"] == 4.0
    assert row.metrics["memory_gb"] == 2.5
    assert row.metrics["sampled_tokens"] == 5
    assert row.curves == {"kl": [0.1] * 3, "learning_rate": [1e-4] * 3}


def test_the_ledger_has_how_a_run_ended(run, tmp_path):
    db = tmp_path / "ledger.db"

    def status():
        with Ledger.open_read(db) as ledger:
            return [(row.status, row.finished is not None) for row in ledger.runs()]

    def stopped():
        with FileLock(run.folder / ".lock"), recorded(run, db):  # as the stages hold it
            assert status() == [("running", False)]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert status() == [("stopped", False)]
    with recorded(run, db):
        pass
    assert status() == [("finished", True)]


def test_seeds_of_one_recipe_are_a_family(run):
    one = load_recipe("both", "nano", overrides=["seed=8"])
    other = load_recipe("both", "nano", overrides=["seed=8", "policy.kl_coef=0.5"])
    row = summary(run, "running")
    assert row.family == one.family != other.family
    assert row.recipe_fingerprint != one.fingerprint
