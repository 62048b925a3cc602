import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from filelock import FileLock
from flaky_teacher import flaky_teacher
from saved_steps import save_step, save_weights
from typer.testing import CliRunner

from rilbench.checkpoint import inspect_checkpoint
from rilbench.cli import app
from rilbench.config import load_recipe
from rilbench.errors import UserError
from rilbench.paths import locate
from rilbench.train.pipeline import preflight, stages


class Stages:
    """Progress that remembers the stages."""

    def __init__(self):
        self.seen = []

    def stage(self, name, state):
        self.seen.append((name, state))

    def note(self, text):
        pass


BEST = ("schedule.export=best", "schedule.eval_every=2")


def trained_run(folder, *settings):
    """A run that a kill stopped after its last step, before the export."""
    settings = ("schedule.steps=2", "schedule.save_every=2", *settings)
    recipe = load_recipe("both", "nano", "dr-grpo", settings)
    run = stages.open_run(folder, recipe, resume=False)
    lines = [json.dumps({"step": step, "trained_tokens": 5}) for step in (1, 2)]
    (run.folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    step = save_step(run.folder / "steps", 2, discriminator=False)
    save_weights(step, locate("nano:restyled"))
    return run


def test_two_processes_do_not_train_one_run(tmp_path):
    run = stages.open_run(tmp_path / "r", load_recipe("both", "nano"), resume=False)
    with FileLock(run.folder / ".lock"), pytest.raises(UserError, match="another process"):
        stages.train(run, progress=None)


def test_a_run_with_all_its_steps_is_only_exported(tmp_path):
    run, progress = trained_run(tmp_path / "r"), Stages()
    checkpoint = stages.train(run, progress)
    assert progress.seen == [("dr-grpo", "skipped"), ("export", "running"), ("export", "done")]
    assert inspect_checkpoint(checkpoint).labels.method == "dr-grpo"
    assert json.loads((run.folder / "cost.json").read_text())["trained_tokens"] == 10
    log = (run.folder / "logs" / "rilbench.log").read_text()
    for words in (run.recipe.fingerprint, "dr-grpo: done before", "step 2", "export: done in"):
        assert words in log
    assert stages.train(run, Stages()) == checkpoint


def test_the_log_says_why_a_run_stopped(tmp_path):
    run, progress = trained_run(tmp_path / "r", *BEST), Stages()
    with pytest.raises(UserError, match="no saved step was scored"):
        stages.train(run, progress)
    assert progress.seen[-1] == ("export", "running")
    log = (run.folder / "logs" / "rilbench.log").read_text()
    assert "export: stopped after" in log
    assert "stopped: UserError: no saved step was scored" in log.splitlines()[-1]


def test_collecting_alone_and_resuming_finds_it(tmp_path, monkeypatch):
    """Two servers and no trainer; afterwards every response is there, and nobody is asked again."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RILBENCH_ENDPOINT_KEY", "sk-teacher")
    read = []
    for name in ("QuestionScan", "inspect_checkpoint"):
        original = getattr(preflight, name)
        monkeypatch.setattr(
            preflight,
            name,
            lambda *a, name=name, original=original: read.append(name) or original(*a),
        )
    with flaky_teacher() as teacher:
        command = ["train", "--recipe", "72b", "--student", "nano", "--run", "r", "--collect-only"]
        for name in ("72b", "student"):
            command += ["--set", f"collection.endpoints.{name}=teacher@{teacher.url}"]
        # GPUs and a judge that are not here: for the loop, which runs elsewhere.
        command += ["--hardware", "1-gpu-80gb", "--set", "judge.url=http://127.0.0.1:9/v1"]
        command += ["--set", "collection.teacher_responses=2"]
        command += ["--set", "collection.student_responses=1"]
        results = [CliRunner().invoke(app, [*command, *more]) for more in ([], ["--resume"])]
    assert [result.exit_code for result in results] == [0, 0], results
    assert "--resume" in results[0].stdout
    assert len(teacher.asked) == 2 + 280 * 3, "each model is tried once, before all others"
    assert read == ["inspect_checkpoint", *["QuestionScan"] * 2] * 2, "once in each command"
    saved = {p.stem: pq.read_table(p) for p in Path("runs/r/collection").glob("*.parquet")}
    assert {name: len(table) for name, table in saved.items()} == {"72b": 560, "student": 280}
    assert not Path("rilbench.db").exists()  # no training has begun
    log = Path("runs/r/logs/rilbench.log").read_text()
    for words in ("72b: 560 responses in", "collect: done in", "collect: done before"):
        assert words in log
    assert "sk-teacher" not in log
