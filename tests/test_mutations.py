"""Mutations: the method broken on purpose, in a copy of the package; a test must fail each time.

Unit tests find the first ones in seconds. What happens between verl's processes is found by the
short real run of tests/train/test_run.py, which takes minutes. A fast test keeps every mutation in
step with the code.
"""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NO_TEST_FAILED, A_TEST_FAILED = 0, 1


@dataclass(frozen=True)
class Mutation:
    """A text of a file, its wrong replacement, and the test that must fail with these words."""

    file: str
    right: str
    wrong: str
    test: str
    words: str


STEP = "tests/train/test_run.py::test_the_step_is_algorithm_2"
UNIT = {
    "Equation 1's sign flipped": Mutation(
        "ril/discriminator.py",
        "return total / denominator",
        "return -total / denominator",
        "tests/ril/test_discriminator.py::test_over_pairs_the_loss_is_minus_equation_1",
        "assert",
    ),
    "advantages not centred": Mutation(
        "ril/advantage.py",
        "return values - mean[inverse], inverse, size",
        "return values, inverse, size",
        "tests/ril/test_advantage.py::test_each_group_sums_to_zero",
        "assert",
    ),
    "advantages not centred in the step": Mutation(
        "ril/step.py",
        "advantage = judged_advantages(always_known, answer_part, group, is_student, estimate)",
        "advantage = always_known + answer_part",
        "tests/ril/test_step.py::test_rewards_and_advantages_are_algorithm_2",
        "assert",
    ),
    "a prompt shared between questions of equal length": Mutation(
        "train/verl/shared_prompts.py",
        "if row == 0 or questions[row] != questions[row - 1]:",
        "if row == 0 or prompts[row] != prompts[row - 1]:",
        "tests/train/verl/test_shared_prompts.py::"
        "test_neighbours_of_another_question_share_nothing",
        "assert",
    ),
    "responses that see one token of their own too few": Mutation(
        "train/verl/shared_prompts.py",
        "sees = key_place <= (key_length - length + place)[..., None]",
        "sees = key_place < (key_length - length + place)[..., None]",
        "tests/train/verl/test_shared_prompts.py::test_attention_is_that_of_whole_rows",
        "assert",
    ),
    "images dropped in rollouts": Mutation(
        "model/generation.py",
        "[picture_inputs(self.processor, r.images) for r in batch if r.images]",
        "[]",
        "tests/train/verl/test_cpu_rollout.py::"
        "test_questions_with_one_and_with_two_pictures_share_a_batch",
        "assert",
    ),
}
RUN = {
    "teacher responses dropped": Mutation(
        "train/rollout.py",
        "if session < config.num_student_responses:",
        "if session >= 0:",
        STEP,
        "len(own) == len(saved)",
    ),
    "images dropped from the prompts": Mutation(
        "train/pipeline/prepare_data.py",
        '"content": question.marked',
        '"content": question.question.replace("<image>", "")',
        STEP,
        "image_offset",  # verl stops the run: a picture is left over
    ),
    "discriminator never updated": Mutation(
        "train/discriminator_trainer.py",
        "if self.step.discriminator_mu:",
        "if False:",
        STEP,
        "discriminator_weights",
    ),
    "advantages not centred in the step": Mutation(
        "ril/step.py",
        "advantage = judged_advantages(always_known, answer_part, group, is_student, estimate)",
        "advantage = always_known + answer_part",
        STEP,
        "advantage",
    ),
}


def copy_of_the_package(folder):
    package = folder / "rilbench"
    shutil.copytree(
        ROOT / "rilbench", package, ignore=shutil.ignore_patterns("assets", "__pycache__")
    )
    (package / "nano" / "assets").symlink_to(ROOT / "rilbench" / "nano" / "assets")
    for name in ("recipes", "requirements", "results", "tests", "pyproject.toml"):
        (folder / name).symlink_to(ROOT / name)
    return package


def outcome(folder, test):
    """Exit status and output of a test on the package in a folder."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", test],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )
    return done.returncode, done.stdout + done.stderr


def break_and_test(folder, mutation):
    file = copy_of_the_package(folder) / mutation.file
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace(mutation.right, mutation.wrong), encoding="utf-8")
    status, output = outcome(folder, mutation.test)
    assert status == A_TEST_FAILED, output[-3000:]
    assert mutation.words in output, output[-3000:]


@pytest.mark.parametrize("mutation", [*UNIT.values(), *RUN.values()], ids=[*UNIT, *RUN])
def test_every_mutation_is_in_step_with_the_code(mutation):
    text = (ROOT / "rilbench" / mutation.file).read_text(encoding="utf-8")
    assert text.count(mutation.right) == 1, f"{mutation.file} has changed; break it in another way"
    file, _, name = mutation.test.partition("::")
    assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_copy_itself_passes(tmp_path):
    copy_of_the_package(tmp_path)
    for mutation in UNIT.values():
        status, output = outcome(tmp_path, mutation.test)
        assert status == NO_TEST_FAILED, output[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize("mutation", UNIT.values(), ids=UNIT)
def test_a_unit_test_notices(tmp_path, mutation):
    break_and_test(tmp_path, mutation)


@pytest.mark.slow
@pytest.mark.timeout(1000)
@pytest.mark.parametrize("mutation", RUN.values(), ids=RUN)
def test_the_short_run_notices(tmp_path, mutation):
    break_and_test(tmp_path, mutation)
