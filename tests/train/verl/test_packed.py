"""verl's packed path on the adapter's attention, as GPUs take it, against the padded path."""

import os
import subprocess
import sys
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
def both(request, tmp_path_factory):
    """The same rows padded and packed, in Qwen2.5-VL's layout and in InternVL's."""
    asked = read_questions(locate("nano:prompts.parquet"))
    sources = ("MMStar", "BLINK", "ChartQA", "MM-Vet")  # one with two pictures
    questions = [next(q for q in asked if q.source == source) for source in sources]
    found = []
    for mode in ("padded", "packed"):
        place = tmp_path_factory.mktemp(mode)
        write_questions(place / "questions.parquet", questions)
        found.append(update(place, request.param, mode))
    return found


@pytest.mark.timeout(900)
def test_log_probs_and_logits_are_equal(both):
    padded, packed = both
    for one, other in zip(padded["log_probs"], packed["log_probs"], strict=True):
        assert other == pytest.approx(one, abs=1e-5)
    assert torch.allclose(padded["logits"], packed["logits"], atol=1e-5)
    assert padded["logits"].unique().numel() == 4
    assert packed["policy"] == pytest.approx(padded["policy"], rel=1e-5)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("model", ["policy", "discriminator"])
def test_gradients_are_equal(both, model):
    padded, packed = (each[f"{model}_gradients"] for each in both)
    assert padded.keys() == packed.keys()
    largest = max(gradient.abs().max() for gradient in padded.values())
    assert largest > 0
    for name, gradient in padded.items():
        assert torch.allclose(packed[name], gradient, rtol=0, atol=1e-5 * largest), name
