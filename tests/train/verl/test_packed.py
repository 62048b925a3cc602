"""verl's packed path on the adapter's attention, as on GPUs, and ours, against the padded path.

Ours computes each prompt once, with and without gradient checkpointing.
"""

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch

from rilbench.data.question_files import read_questions, write_questions
from rilbench.paths import locate

SCRIPT = Path(__file__).parents[2] / "support" / "packed_update.py"


def update(place, layout, mode):
    """What `packed_update.py` found."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(locate(f"nano:{layout}")), "out.pt", mode],
        cwd=place,
        env={**os.environ, "VERL_PLATFORM": "cpu", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(place / "out.pt")


@pytest.fixture(scope="module", params=["restyled", "internvl"])
def found(request, tmp_path_factory):
    """A function: what a mode makes of the same rows, in Qwen2.5-VL's and in InternVL's layout."""
    asked = read_questions(locate("nano:prompts.parquet"))
    sources = ("MMStar", "BLINK", "ChartQA", "MM-Vet")  # one with two pictures
    questions = [next(q for q in asked if q.source == source) for source in sources]

    @cache
    def run(mode):
        place = tmp_path_factory.mktemp(mode)
        write_questions(place / "questions.parquet", questions)
        return update(place, request.param, mode)

    return run


MODES = ("packed", "shared", "shared-checkpointed")


@pytest.mark.timeout(900)
@pytest.mark.parametrize("mode", MODES)
def test_log_probs_and_logits_are_equal(found, mode):
    padded, other = found("padded"), found(mode)
    for one, another in zip(padded["log_probs"], other["log_probs"], strict=True):
        assert another == pytest.approx(one, abs=1e-5)
    assert torch.allclose(padded["logits"], other["logits"], atol=1e-5)
    assert padded["logits"].unique().numel() == 12
    assert other["policy"] == pytest.approx(padded["policy"], rel=1e-5)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("model", ["policy", "discriminator"])
def test_gradients_are_equal(found, model, mode):
    padded, other = (found(each)[f"{model}_gradients"] for each in ("padded", mode))
    assert padded.keys() == other.keys()
    largest = max(gradient.abs().max() for gradient in padded.values())
    assert largest > 0
    for name, gradient in padded.items():
        assert torch.allclose(other[name], gradient, rtol=0, atol=1e-5 * largest), name
