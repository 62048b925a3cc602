"""`docs/own-model.md` as a test: a student, a teacher and questions that no recipe knows."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from layouts import write_layout

from rilbench.checkpoint import inspect_checkpoint
from rilbench.data.question_files import write_questions
from rilbench.nano.data import training_questions
from rilbench.paths import locate
from rilbench.serving import serve

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
BIN = Path(sys.executable).parent
PAGE = Path(__file__).parents[2] / "docs" / "own-model.md"


def page(language):
    """The page's blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.M | re.S)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("own")
    write_layout("qwen3_vl", place / "my-model")
    write_questions(place / "train.parquet", training_questions("prompts", 1, 9))
    write_questions(place / "dev.parquet", training_questions("dev", 1, 10))
    # The page's second recipe is for GPUs.
    recipe = page("yaml")[0]
    command = next(line for block in page("sh") for line in block.splitlines() if " train " in line)
    with serve(locate("nano:72b"), log=place / "teacher.log") as teacher:
        # The teacher has another name and address in the test than in the document.
        named = "my-teacher@http://127.0.0.1:8010/v1"
        assert recipe.count(named) == 1
        recipe = recipe.replace(named, f"{teacher.model}@{teacher.base_url}")
        (place / "my-recipe.yaml").write_text(recipe)
        done = subprocess.run(
            [str(BIN / "rilbench"), *command.split()[1:]],
            cwd=place,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
    assert done.returncode == 0, done.stderr + done.stdout[-3000:]
    return place / "runs" / "mine"


def test_the_run_has_my_student_and_my_teacher(run):
    checkpoint = inspect_checkpoint(run / "checkpoint")
    assert checkpoint.model_type == "qwen3_vl"
    labels = checkpoint.labels
    assert (labels.student, labels.teacher, labels.method) == ("my-model", "mine", "ril")
    rows = [json.loads(line) for line in (run / "rollouts" / "step_1.jsonl").open()]
    assert {row["source"] for row in rows} == {"student", "mine"}
    assert all(row["image_tokens"] > 0 for row in rows)
    assert sum(row["source"] == "mine" for row in rows) == len(rows) / 2


def test_the_discriminator_is_my_students(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").open()]
    assert lines[-1]["discriminator_weights_before"] != lines[-1]["discriminator_weights_scoring"]
    student = inspect_checkpoint(run.parents[1] / "my-model")
    assert inspect_checkpoint(run / "checkpoint").fingerprint != student.fingerprint
