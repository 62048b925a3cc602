"""A rank whose rows are all of text, beside one with pictures: neither waits for the other."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from direct import log_probs
from layouts import write_layout
from transformers import AutoModelForImageTextToText, AutoProcessor

from rilbench.data.question_files import read_questions, write_questions
from rilbench.paths import locate

SCRIPT = Path(__file__).parents[2] / "support" / "rank_of_text.py"


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["internvl", "gemma3"])
def test_a_rank_of_text_gathers_what_the_others_gather(name, tmp_path):
    path = write_layout(name, tmp_path / "model")
    asked = read_questions(locate("nano:prompts.parquet"))[:2]
    text = [replace(q, id=f"{q.id}-text", images=(), question="What is 2 + 2?") for q in asked]
    environment = {**os.environ, "VERL_PLATFORM": "cpu", "OMP_NUM_THREADS": "1"}
    ranks = []
    for rank in ("0", "1"):
        place = tmp_path / rank
        place.mkdir()
        write_questions(place / "questions.parquet", [*asked, *text])
        command = [sys.executable, str(SCRIPT), str(path), str(place / "out.json"), rank]
        command.append((tmp_path / "meet").as_uri())
        with (place / "log").open("w") as log:
            ranks.append(
                subprocess.Popen(command, cwd=place, env=environment, stdout=log, stderr=log)
            )
    try:
        assert [rank.wait(timeout=500) for rank in ranks] == [0, 0]
    finally:
        for rank in ranks:
            rank.kill()
    model = AutoModelForImageTextToText.from_pretrained(path, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(path)
    for rank, questions in (("0", asked), ("1", text)):
        found = json.loads((tmp_path / rank / "out.json").read_text())
        assert found.keys() == {q.id for q in questions}
        for question in questions:
            words = question.answer + processor.tokenizer.eos_token
            expected, _ = log_probs(model, processor, question, words)
            assert found[question.id] == pytest.approx(expected, abs=2e-4)
