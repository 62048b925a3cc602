import json

import pytest

from rilbench.config import load_recipe
from rilbench.errors import UserError
from rilbench.train.pipeline.run_folder import forget_after, open_run


@pytest.fixture
def recipe():
    return load_recipe("both", "nano")


def test_a_new_run_is_created_whole(tmp_path, recipe):
    run = open_run(tmp_path / "runs" / "a", recipe, resume=False)
    assert (run.folder / "recipe.yaml").read_text() == recipe.to_yaml()
    assert [p.name for p in (tmp_path / "runs").iterdir()] == ["a"]
    with pytest.raises(UserError, match="--resume"):
        open_run(run.folder, recipe, resume=False)
    assert open_run(run.folder, recipe, resume=True) == run


def test_another_recipe_is_refused_by_what_differs(tmp_path, recipe):
    open_run(tmp_path / "a", recipe, resume=False)
    settings = ["hardware.devices=2", "seed=1", "schedule.steps=7", "policy.kl_coef=0"]
    other = load_recipe("both", "nano", None, settings)
    with pytest.raises(UserError, match=r"seed=0 there, 1 asked for; .*and 1 more"):
        open_run(tmp_path / "a", other, resume=True)
    other = load_recipe("both", "nano", None, ["hardware.devices=2"])
    with pytest.raises(UserError, match=r"hardware\.devices=1 there, 2 asked for"):
        open_run(tmp_path / "a", other, resume=True)


def test_the_address_of_ray_may_change(tmp_path, recipe):
    open_run(tmp_path / "a", recipe, resume=False)
    moved = load_recipe("both", "nano", None, ["hardware.ray_address=auto"])
    assert open_run(tmp_path / "a", moved, resume=True).recipe == moved
    assert open_run(tmp_path / "a", moved, resume=True).recipe.hardware.ray_address == "auto"


def test_metrics_of_steps_that_are_done_again_are_dropped(tmp_path):
    file = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"step": step}) for step in (1, 2, 3)]
    file.write_text("\n".join(lines) + '\n{"step": 4, "se')  # a kill in the middle of a line
    (tmp_path / "rollouts").mkdir()
    for step in (2, 3):
        (tmp_path / "rollouts" / f"step_{step}.jsonl").touch()
    forget_after(tmp_path, 2)
    assert [p.name for p in (tmp_path / "rollouts").iterdir()] == ["step_2.jsonl"]
    assert [json.loads(line)["step"] for line in file.read_text().splitlines()] == [1, 2]
