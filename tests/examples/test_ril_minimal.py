"""The minimal loop and the lab's beside the verl trainer: the same step, to rounding."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rilbench.data.question_files import read_questions, write_questions
from rilbench.paths import locate

ROOT = Path(__file__).parents[2]
MINIMAL = ROOT / "examples" / "ril_minimal.py"


@pytest.mark.timeout(600)
def test_the_loops_take_the_verl_trainers_step(tmp_path):
    asked = read_questions(locate("nano:prompts.parquet"))
    sources = ("MMStar", "BLINK", "ChartQA", "MM-Vet")  # one and two pictures, two shapes
    chosen = [next(q for q in asked if q.source == source) for source in sources]
    write_questions(tmp_path / "questions.parquet", chosen)
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "support" / "minimal_parity.py"), "out.json"],
        cwd=tmp_path,
        env={**os.environ, "VERL_PLATFORM": "cpu", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((tmp_path / "out.json").read_text())
    for name in ("reward", "advantage"):
        trainer, minimal = found[name]
        assert trainer == minimal
        assert len(set(trainer)) > 2, "responses of different worth"
    for name in ("loss", "kl", "gradient_norm"):
        trainer, minimal, fast = found[name]
        assert minimal == pytest.approx(trainer, rel=1e-5, abs=1e-5), name
        assert fast == pytest.approx(trainer, rel=1e-5, abs=1e-5), name
        assert abs(trainer) > 1e-3, f"{name} is not trivially 0"
    assert max(found["gradient_difference"]) <= 1e-5


def test_the_minimal_loop_is_short_enough_to_be_read():
    assert len(MINIMAL.read_text().splitlines()) <= 300
    for word in ("import verl", "import ray", "from verl", "from ray"):
        assert word not in MINIMAL.read_text()
