import json

import pytest
from filelock import FileLock
from saved_steps import save_step

from rilbench.config import all_keys, load_recipe, read_recipe
from rilbench.config.schema import ALSO_ON_RESUME, HOW_IT_RUNS
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


def nano(*settings):
    return load_recipe("both", "nano", None, settings)


def test_another_recipe_is_refused_by_what_differs(tmp_path, recipe):
    open_run(tmp_path / "a", recipe, resume=False)
    other = nano("group_size=2", "seed=1", "policy.lr=1", "policy.kl_coef=0", "num_samples=3")
    with pytest.raises(UserError, match=r"seed=0 there, 1 asked; .*and 2 more"):
        open_run(tmp_path / "a", other, resume=True)
    with pytest.raises(UserError, match=r"data\.train=nano:prompts\.parquet there, x asked"):
        open_run(tmp_path / "a", nano("data.train=x", "schedule.steps=7"), resume=True)
    assert not (tmp_path / "a" / "changes.jsonl").exists()


MAY_CHANGE = {
    "hardware.ray_address": "auto",
    "judge.url": ["http://judge:8000/v1"],
    "judge.max_missing": 0.2,
    "collection.endpoints.72b": ["http://a:8000/v1", "http://b:8000/v1"],
    "collection.price.72b": [1.0, 2.5],
    "collection.serve.72b": "--max-model-len 8192",
    "collection.folder": "shared",
    "collection.concurrency": 4,
    "collection.max_failed": 0.6,
    "schedule.save_every": 7,
    "schedule.keep": 5,
    "schedule.steps": 31,
    "schedule.eval_every": 5,
    "hardware.devices": 2,
}


@pytest.mark.parametrize("key", MAY_CHANGE)
def test_what_leaves_the_method_alone_may_change_and_is_recorded(tmp_path, recipe, key):
    run = open_run(tmp_path / "a", recipe, resume=False)
    save_step(run.folder / "steps", 10)
    changed = nano(f"{key}={MAY_CHANGE[key]}")
    for _ in range(2):  # the second finds nothing to change
        assert open_run(tmp_path / "a", changed, resume=True).recipe == changed
    assert read_recipe(run.folder / "recipe.yaml") == changed
    (line,) = map(json.loads, (run.folder / "changes.jsonl").read_text().splitlines())
    assert line["step"] == 10
    assert [change["to"] for change in line["changed"].values()] == [MAY_CHANGE[key]]


def test_best_may_be_chosen_later(tmp_path):
    open_run(tmp_path / "a", nano("schedule.eval_every=10"), resume=False)
    best = nano("schedule.eval_every=10", "schedule.export=best")
    assert open_run(tmp_path / "a", best, resume=True).recipe == best


def test_every_setting_of_the_list_exists():
    keys = all_keys()
    assert [key for key in HOW_IT_RUNS + ALSO_ON_RESUME if key not in keys] == []


def test_a_run_is_not_made_shorter_than_it_is(tmp_path, recipe):
    run = open_run(tmp_path / "a", recipe, resume=False)
    save_step(run.folder / "steps", 10)
    with pytest.raises(UserError, match=r"has done 10 steps .* set schedule\.steps=10 or more"):
        open_run(run.folder, nano("schedule.steps=9"), resume=True)
    assert open_run(run.folder, nano("schedule.steps=10"), resume=True).recipe.schedule.steps == 10


def test_a_finished_run_goes_on_with_more_steps(tmp_path, recipe):
    run = open_run(tmp_path / "a", recipe, resume=False)
    save_step(run.folder / "steps", 30)
    run.checkpoint.mkdir()
    (run.checkpoint / "rilbench.json").touch()
    exported = {"step": 30, "choice": "last", "steps": 30}
    (run.checkpoint / "export.json").write_text(json.dumps(exported))
    assert open_run(run.folder, recipe, resume=False).finished
    moved = nano("judge.url=http://elsewhere:1/v1")
    assert open_run(run.folder, moved, resume=False).finished, "a finished run asks no judge"
    with pytest.raises(
        UserError, match=r"finished with schedule\.steps=30; continue it with --resume"
    ):
        open_run(run.folder, nano("schedule.steps=40"), resume=False)
    assert not open_run(run.folder, nano("schedule.steps=40"), resume=True).finished


def test_a_finished_run_gives_its_adapter_when_it_is_asked_for_later(tmp_path):
    lora = ("policy.lora_rank=4", "schedule.steps=30")
    run = open_run(tmp_path / "a", nano(*lora), resume=False)
    run.checkpoint.mkdir()
    (run.checkpoint / "rilbench.json").touch()
    assert open_run(run.folder, nano(*lora), resume=False).finished
    kept = nano(*lora, "schedule.export_adapter=keep")
    with pytest.raises(UserError, match="continue it with --resume"):
        open_run(run.folder, kept, resume=False)
    assert not open_run(run.folder, kept, resume=True).finished


def test_a_run_that_another_process_trains_is_not_changed(tmp_path, recipe):
    run = open_run(tmp_path / "a", recipe, resume=False)
    with FileLock(run.folder / ".lock"), pytest.raises(UserError, match="another process"):
        open_run(run.folder, nano("schedule.steps=40"), resume=True)
    assert read_recipe(run.folder / "recipe.yaml") == recipe


def test_metrics_of_steps_that_are_done_again_are_dropped(tmp_path):
    file = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"step": step}) for step in (1, 2, 3)]
    file.write_text("\n".join(lines) + '\n{"step": 4, "se')  # a kill in the middle of a line
    (tmp_path / "rollouts").mkdir()
    for step in (2, 3):
        (tmp_path / "rollouts" / f"step_{step}.jsonl").touch()
    for name in (".partial", ".resharded", ".old-global_step_1", "global_step_2"):
        (tmp_path / "steps" / name / "actor").mkdir(parents=True)
    forget_after(tmp_path, 2)
    assert [p.name for p in (tmp_path / "steps").iterdir()] == ["global_step_2"]
    assert [p.name for p in (tmp_path / "rollouts").iterdir()] == ["step_2.jsonl"]
    assert [json.loads(line)["step"] for line in file.read_text().splitlines()] == [1, 2]
