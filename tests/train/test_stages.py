import json

import pytest

from rilbench.errors import UserError
from rilbench.recipe import load_recipe
from rilbench.train import stages


@pytest.fixture
def recipe():
    return load_recipe("both", "nano")


def test_a_new_run_is_there_whole(tmp_path, recipe):
    run = stages.open_run(tmp_path / "runs" / "a", recipe, resume=False)
    assert (run.folder / "recipe.yaml").read_text() == recipe.to_yaml()
    assert [p.name for p in (tmp_path / "runs").iterdir()] == ["a"]
    with pytest.raises(UserError, match="--resume"):
        stages.open_run(run.folder, recipe, resume=False)
    assert stages.open_run(run.folder, recipe, resume=True) == run


def test_metrics_of_steps_that_are_done_again_are_dropped(tmp_path):
    file = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"step": step}) for step in (1, 2, 3)]
    file.write_text("\n".join(lines) + '\n{"step": 4, "se')  # a kill in the middle of a line
    (tmp_path / "rows").mkdir()
    for step in (2, 3):
        (tmp_path / "rows" / f"step_{step}.jsonl").touch()
    stages._forget_after(tmp_path, 2)
    assert [p.name for p in (tmp_path / "rows").iterdir()] == ["step_2.jsonl"]
    assert [json.loads(line)["step"] for line in file.read_text().splitlines()] == [1, 2]


def saved_run(tmp_path, recipe, scores, saved):
    run = stages.open_run(tmp_path / "r", recipe, resume=False)
    lines = [
        {"step": s} | ({"dev_accuracy": v} if v is not None else {}) for s, v in scores.items()
    ]
    (run.folder / "metrics.jsonl").write_text("".join(json.dumps(m) + "\n" for m in lines))
    for step in saved:
        (run.folder / "steps" / f"global_step_{step}").mkdir(parents=True)
    return run


def test_export_takes_the_last_or_the_best_on_dev(tmp_path):
    scores = {8: 0.5, 9: 0.9, 10: 0.7, 12: 0.6}
    last = saved_run(tmp_path, load_recipe("both", "nano"), scores, [8, 10, 12])
    assert stages._chosen_step(last) == (12, 0.6)
    assert stages.last_step(last) == 12
    best = load_recipe("both", "nano", overrides=["schedule.export=best", "schedule.eval_every=1"])
    run = saved_run(tmp_path / "best", best, scores, [8, 10, 12])
    assert stages._chosen_step(run) == (10, 0.7), "step 9 was better but is not saved"


def test_export_of_the_best_needs_a_score(tmp_path):
    best = load_recipe("both", "nano", overrides=["schedule.export=best", "schedule.eval_every=3"])
    run = saved_run(tmp_path, best, {2: None}, [2])
    with pytest.raises(UserError, match="eval_every"):
        stages._chosen_step(run)


def test_two_processes_do_not_train_one_run(tmp_path, recipe):
    from filelock import FileLock

    run = stages.open_run(tmp_path / "r", recipe, resume=False)
    with FileLock(run.folder / ".lock"), pytest.raises(UserError, match="another process"):
        stages.train(run, view=None)


def test_judge_by_name_needs_its_address():
    recipe = load_recipe("both", "nano", overrides=["judge.model=Qwen/Qwen2.5-32B-Instruct"])
    with pytest.raises(UserError, match=r"judge\.url"), stages._judge(recipe):
        pass
