"""A composed GPU configuration is built, for every student of the paper, as far as a CPU allows."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rilbench.config import known
from rilbench.data.question_files import read_questions, write_questions
from rilbench.paths import locate

SCRIPT = Path(__file__).parents[2] / "support" / "built_configuration.py"
STUDENTS = [name for name in known("students") if not name.startswith("nano")]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """What `built_configuration.py` says of all students, layout by layout."""
    asked, found = read_questions(locate("nano:prompts.parquet"))[:4], {}
    for layout in ("qwen", "internvl"):
        place = tmp_path_factory.mktemp(layout)
        write_questions(place / "questions.parquet", asked)
        students = [student for student in STUDENTS if student.startswith(layout)]
        done = subprocess.run(
            [sys.executable, str(SCRIPT), "out.json", *students],
            cwd=place,
            env={**os.environ, "VERL_PLATFORM": "cpu", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=850,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        found |= json.loads((place / "out.json").read_text())
    assert len(found) == len(STUDENTS) == 5
    return found


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("student", STUDENTS)
def test_the_gpu_configuration_is_built_and_computes_an_update(built, student):
    found = built[student]
    assert "SharedPromptModel" in found["classes"]
    assert found["attention"] == ["shared_prompts"] * 3
    assert found["vision"] == ["flash_attention_2"] * 2
    assert found["packed by verl"] == [False] * 3
    assert found["checkpointing"] == [True] * 2
    assert (found["compute"], found["weights"]) == ("torch.bfloat16", ["torch.float32"])
    assert found["entropy"] == "entropy_from_logits_with_chunking"
    assert found["gradients"] == [True, True]
    assert len(set(found["logits"])) > 1
    assert found["tied"] == (student == "qwen2.5-vl-3b")
