"""Saved steps that are incomplete, or of another number of devices."""

import shutil

import pytest
from saved_steps import save_step

from rilbench.config import load_recipe
from rilbench.train.pipeline.run_folder import Run, last_step, open_run
from rilbench.train.step_checkpoint import missing_part, ranks_of, steps_in


def files_of(step):
    return sorted(path.relative_to(step).as_posix() for path in step.rglob("*") if path.is_file())


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_step_without_any_one_of_its_files_is_incomplete(tmp_path, ranks):
    step = save_step(tmp_path, 4, ranks=ranks)
    assert missing_part(step, discriminator=True) == ""
    assert ranks_of(step / "actor") == ranks
    needed = [name for name in files_of(step) if name != "critic/huggingface/config.json"]
    assert len(needed) == 2 * 3 * ranks + 2
    for name in needed:
        (step / name).rename(tmp_path / "away")
        lacks = missing_part(step, discriminator=True)
        assert lacks, f"whole without {name}"
        (tmp_path / "away").rename(step / name)
    assert missing_part(step, discriminator=True) == ""


def test_a_run_killed_during_a_checkpoint_goes_on_from_the_one_before(tmp_path):
    run = open_run(tmp_path / "r", load_recipe("both", "nano"), resume=False)
    steps = run.folder / "steps"
    assert last_step(run) == 0
    save_step(steps, 10)
    # The policy is written and the discriminator is not: as the trainer leaves it at a kill …
    half = save_step(steps / ".partial", 20)
    shutil.rmtree(half / "critic")
    assert last_step(run) == 10
    # … and as it would be under its name, by whatever hand.
    shutil.copytree(half, steps / "global_step_20")
    assert last_step(run) == 10
    assert list(steps_in(steps, discriminator=True)) == [10]
    save_step(steps, 30, discriminator=False)
    assert last_step(run) == 10, "this method has a discriminator"
    baseline = Run(run.folder, load_recipe("both", "nano", "dr-grpo"))
    assert last_step(baseline) == 30
    save_step(steps, 40)
    assert last_step(run) == 40


def test_another_number_of_devices_finds_the_same_step(tmp_path):
    run = open_run(tmp_path / "r", load_recipe("both", "nano"), resume=False)
    save_step(run.folder / "steps", 10, ranks=4)
    assert last_step(run) == 10
