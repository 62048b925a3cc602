from pathlib import Path

import pyarrow.parquet as pq
import pytest
from flaky_teacher import flaky_teacher
from typer.testing import CliRunner

from rilbench.cli import app
from rilbench.config import load_recipe
from rilbench.errors import UserError
from rilbench.train.pipeline import stages as stages


@pytest.fixture
def recipe():
    return load_recipe("both", "nano")


def test_two_processes_do_not_train_one_run(tmp_path, recipe):
    from filelock import FileLock

    run = stages.open_run(tmp_path / "r", recipe, resume=False)
    with FileLock(run.folder / ".lock"), pytest.raises(UserError, match="another process"):
        stages.train(run, view=None)


def test_judge_by_name_needs_its_address():
    recipe = load_recipe("both", "nano", overrides=["judge.model=Qwen/Qwen2.5-32B-Instruct"])
    with pytest.raises(UserError, match=r"judge\.url"), stages._judge(recipe):
        pass


def test_collecting_alone_and_going_on_finds_it(tmp_path, monkeypatch):
    """Two servers and no trainer; afterwards every response is there, and nobody is asked again."""
    monkeypatch.chdir(tmp_path)
    with flaky_teacher() as teacher:
        command = ["train", "--recipe", "72b", "--student", "nano", "--run", "r", "--collect-only"]
        for name in ("72b", "student"):
            command += ["--set", f"collection.endpoints.{name}=teacher@{teacher.url}"]
        # GPUs that are not here, and a judge that is not up: for the loop, which is elsewhere.
        command += ["--hardware", "1-gpu-80gb", "--set", "judge.url=http://127.0.0.1:9/v1"]
        command += ["--set", "collection.teacher_responses=2"]
        command += ["--set", "collection.student_responses=1"]
        said = [CliRunner().invoke(app, [*command, *more]) for more in ([], ["--resume"])]
    assert [each.exit_code for each in said] == [0, 0], said
    assert "--resume" in said[0].stdout
    assert len(teacher.asked) == 280 * 3
    saved = {p.stem: pq.read_table(p) for p in Path("runs/r/collection").glob("*.parquet")}
    assert {name: len(table) for name, table in saved.items()} == {"72b": 560, "student": 280}
    assert not Path("rilbench.db").exists()  # no run has begun
