"""The method broken on purpose, in a copy of the package: a test must notice each time.

The unit tests notice the first two at once. What happens between verl's processes is noticed by the
short real run of tests/train/test_run.py; breaking that one takes minutes and is slow.
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
class Fault:
    """A text of a file, what stands there instead, and the test that must fail."""

    file: str
    right: str
    wrong: str
    test: str
    words: str


STEP = "tests/train/test_run.py::test_the_step_is_algorithm_2"
UNIT = {
    "Equation 1's sign flipped": Fault(
        "ril/discriminator.py",
        "return total / denominator",
        "return -total / denominator",
        "tests/ril/test_discriminator.py::test_over_pairs_the_loss_is_minus_equation_1",
        "assert",
    ),
    "advantages not centred": Fault(
        "ril/advantage.py",
        "return values - mean[inverse], inverse, size",
        "return values, inverse, size",
        "tests/ril/test_advantage.py::test_each_group_sums_to_zero",
        "assert",
    ),
    "images dropped in rollouts": Fault(
        "train/cpu_rollout.py",
        "images = [image for request in batch for image in request.images]",
        "images = []",
        "tests/train/verl/test_cpu_rollout.py::"
        "test_questions_with_one_and_with_two_pictures_share_a_batch",
        "assert",
    ),
}
RUN = {
    "teacher rows dropped": Fault(
        "train/agent_loop.py",
        'if session < self.ril["own_rows"]:',
        "if session >= 0:",
        STEP,
        "len(own) == len(saved)",
    ),
    "images dropped from the prompts": Fault(
        "train/verl_data.py",
        '"content": question.marked',
        '"content": question.question.replace("<image>", "")',
        STEP,
        "image_offset",  # verl stops the run: a picture is left over
    ),
    "discriminator never updated": Fault(
        "train/discriminator_trainer.py",
        "if self.step.discriminator_mu:",
        "if False:",
        STEP,
        "discriminator_weights",
    ),
    "advantages not centred": Fault(
        "train/trainer.py",
        "advantages = estimate(rewards, rows.group)",
        "advantages = rewards",
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


def break_and_test(folder, fault):
    file = copy_of_the_package(folder) / fault.file
    text = file.read_text(encoding="utf-8")
    assert text.count(fault.right) == 1, f"{fault.file} has changed; break it in another way"
    file.write_text(text.replace(fault.right, fault.wrong), encoding="utf-8")
    status, output = outcome(folder, fault.test)
    assert status == A_TEST_FAILED, output[-3000:]
    assert fault.words in output, output[-3000:]


@pytest.mark.slow
def test_the_copy_itself_passes(tmp_path):
    copy_of_the_package(tmp_path)
    for fault in UNIT.values():
        status, output = outcome(tmp_path, fault.test)
        assert status == NO_TEST_FAILED, output[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize("fault", UNIT.values(), ids=UNIT)
def test_a_unit_test_notices(tmp_path, fault):
    break_and_test(tmp_path, fault)


@pytest.mark.slow
@pytest.mark.timeout(1000)
@pytest.mark.parametrize("fault", RUN.values(), ids=RUN)
def test_the_short_run_notices(tmp_path, fault):
    break_and_test(tmp_path, fault)
