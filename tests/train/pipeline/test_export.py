import json

import pytest
from safetensors.torch import load_file
from saved_steps import save_step, save_weights

from rilbench.checkpoint import inspect_checkpoint
from rilbench.config import load_recipe
from rilbench.errors import UserError
from rilbench.paths import locate
from rilbench.train.pipeline.export import chosen_step, export
from rilbench.train.pipeline.run_folder import last_step, open_run


def saved_run(tmp_path, recipe, scores, saved):
    run = open_run(tmp_path / "r", recipe, resume=False)
    lines = [
        {"step": s} | ({"dev_accuracy": v} if v is not None else {}) for s, v in scores.items()
    ]
    (run.folder / "metrics.jsonl").write_text("".join(json.dumps(m) + "\n" for m in lines))
    for step in saved:
        save_step(run.folder / "steps", step)
    return run


def test_export_takes_the_last_or_the_best_on_dev(tmp_path):
    scores = {8: 0.5, 9: 0.9, 10: 0.7, 12: 0.6}
    last = saved_run(tmp_path, load_recipe("both", "nano"), scores, [8, 10, 12])
    assert chosen_step(last) == (12, 0.6)
    assert last_step(last) == 12
    best = load_recipe("both", "nano", overrides=["schedule.export=best", "schedule.eval_every=1"])
    run = saved_run(tmp_path / "best", best, scores, [8, 10, 12])
    assert chosen_step(run) == (10, 0.7), "step 9 was better but is not saved"


def test_export_of_the_best_needs_a_score(tmp_path):
    best = load_recipe("both", "nano", overrides=["schedule.export=best", "schedule.eval_every=2"])
    run = saved_run(tmp_path, best, {2: None}, [2])
    with pytest.raises(UserError, match=r"--resume --set schedule\.export=last"):
        chosen_step(run)


class Silent:
    """Progress that shows nothing."""

    def stage(self, name, state):
        pass


def test_a_checkpoint_is_labelled_with_its_recipe_and_seed(tmp_path):
    """The table groups the seeds of one recipe by their family."""
    student = inspect_checkpoint(locate("nano:restyled"))
    weights = load_file(student.path / "model.safetensors")
    labels = {}
    for seed in (1, 2):
        recipe = load_recipe("both", "nano", overrides=[f"seed={seed}"])
        run = saved_run(tmp_path / str(seed), recipe, {2: None}, [2])
        save_weights(run.folder / "steps" / "global_step_2", student.path)
        exported = inspect_checkpoint(export(run, student, Silent()))
        labels[seed] = exported.labels
        assert load_file(exported.path / "model.safetensors").keys() == weights.keys()
        assert labels[seed].recipe_fingerprint == recipe.fingerprint
    assert (labels[1].seed, labels[2].seed) == (1, 2)
    assert labels[1].family == labels[2].family is not None
    assert labels[1].recipe_fingerprint != labels[2].recipe_fingerprint
    assert labels[1].start_fingerprint == student.fingerprint


def test_a_finished_run_is_exported_again_with_another_choice(tmp_path):
    student = inspect_checkpoint(locate("nano:restyled"))
    settings = ["schedule.eval_every=1", "schedule.steps=2", "schedule.save_every=1"]
    last = load_recipe("both", "nano", overrides=settings)
    run = saved_run(tmp_path, last, {1: 0.9, 2: 0.5}, [1, 2])
    for step in (1, 2):
        save_weights(run.folder / "steps" / f"global_step_{step}", student.path)
    export(run, student, Silent())
    assert open_run(run.folder, last, resume=True).finished
    best = load_recipe("both", "nano", overrides=[*settings, "schedule.export=best"])
    run = open_run(run.folder, best, resume=True)
    assert not run.finished
    export(run, student, Silent())
    assert run.finished
    assert json.loads((run.checkpoint / "export.json").read_text())["step"] == 1
