"""Pictures reach the policy in every layout: verl's forward against transformers' own."""

import asyncio
import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from direct import log_probs
from layouts import BUILDERS, write_layout
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from rilbench.data.question_files import read_questions, write_questions
from rilbench.model.inputs import never_sampled, picture_inputs
from rilbench.paths import locate
from rilbench.train.verl.model_families import (
    MarkedPrompts,
    marked_prompt,
)

SCRIPT = Path(__file__).parents[2] / "support" / "policy_rows.py"
STUDENTS = {"nano": "restyled", "nano-internvl": "internvl"}
M_ROPE = ("nano", *(name for name in BUILDERS if name.startswith(("qwen", "glm"))))
QWEN_INPUTS = ["image_grid_thw", "images_seqlens", "pixel_values"]
INPUTS = {
    "gemma4": ["image_position_ids", "pixel_values"],
    "smolvlm": ["pixel_attention_mask", "pixel_values"],
    "llava_onevision": ["batch_num_images", "image_sizes", "pixel_values"],
}
"""Where they are not the pixels alone."""


def questions():
    """Six: with one picture, with two, with one of another shape, and two of text only."""
    asked = read_questions(locate("nano:prompts.parquet"))
    chosen = [
        next(q for q in asked if q.source == s) for s in ("MMStar", "BLINK", "ChartQA", "MM-Vet")
    ]
    assert {len(q.images) for q in chosen} == {1, 2}
    assert len({Image.open(io.BytesIO(q.images[0])).size for q in chosen}) == 3
    of_text = [replace(q, id=f"{q.id}-text", images=()) for q in chosen[:2]]
    of_text = [replace(q, question=q.question.replace("<image>", "it")) for q in of_text]
    return [chosen[0], of_text[0], *chosen[1:], of_text[1]]


@pytest.fixture(
    scope="module",
    params=[*STUDENTS, *(pytest.param(name, marks=pytest.mark.slow) for name in BUILDERS)],
)
def policy(request, tmp_path_factory):
    """A student's name, its folder, and what the trainer's policy says of rows."""
    place = tmp_path_factory.mktemp("rows")
    write_questions(place / "questions.parquet", questions())
    if request.param in STUDENTS:
        model = locate(f"nano:{STUDENTS[request.param]}")
    else:
        if request.param == "smolvlm":
            pytest.importorskip("num2words")
        model = write_layout(request.param, place / "model")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(model), str(place / "out.json")],
        cwd=place,
        env={**os.environ, "VERL_PLATFORM": "cpu", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return request.param, model, json.loads((place / "out.json").read_text())


@pytest.mark.timeout(600)
def test_the_policy_sees_what_transformers_sees(policy):
    _, path, found = policy
    model = AutoModelForImageTextToText.from_pretrained(path, dtype=torch.float32)
    processor = AutoProcessor.from_pretrained(path)
    for i, question in enumerate(questions()):
        text = question.answer + processor.tokenizer.eos_token
        expected, prompt = log_probs(model, processor, question, text)
        assert found["prompts"][i] == prompt
        assert found["seen"][i] == pytest.approx(expected, rel=1e-4, abs=2e-4)


@pytest.mark.timeout(600)
def test_without_its_pictures_the_policy_says_something_else(policy):
    _, _, found = policy
    for question, seen, blank in zip(questions(), found["seen"], found["blank"], strict=True):
        assert len(seen) == len(blank) > 1
        if not question.images:
            assert seen == pytest.approx(blank, abs=1e-5)
            continue
        # Much more than the other test allows.
        assert max(abs(a - b) for a, b in zip(seen, blank, strict=True)) > 5e-3


@pytest.mark.timeout(600)
def test_each_layout_has_its_own_positions_and_inputs(policy):
    student, _, found = policy
    if student in M_ROPE:
        assert all(len(shape) == 2 and shape[0] == 4 for shape in found["positions"])
        assert found["inputs"] == QWEN_INPUTS
    else:
        assert all(len(shape) == 1 for shape in found["positions"])
        assert found["inputs"] == INPUTS.get(student, ["pixel_values"])


@pytest.mark.parametrize("student", STUDENTS)
def test_the_pictures_of_a_batch_are_those_of_its_text(student):
    processor = AutoProcessor.from_pretrained(locate(f"nano:{STUDENTS[student]}"))
    asked = questions()
    images = [Image.open(io.BytesIO(image)) for q in asked for image in q.images]
    found = picture_inputs(processor, images)
    text = " and ".join([processor.image_token] * len(images))
    whole = processor(text=[text], images=images, return_tensors="pt")
    assert torch.equal(found["pixel_values"], whole["pixel_values"])
    assert found.keys() <= whole.keys() - {"input_ids", "attention_mask"}


@pytest.mark.parametrize("student", STUDENTS)
def test_no_special_token_but_the_end_is_sampled(student):
    tokenizer = AutoProcessor.from_pretrained(locate(f"nano:{STUDENTS[student]}")).tokenizer
    forbidden = tokenizer.convert_ids_to_tokens(never_sampled(tokenizer))
    assert "<|im_end|>" not in forbidden
    marks = ["<|image_pad|>", "<|video_pad|>", "<|endoftext|>"]
    marks += ["<img>", "</img>", "<IMG_CONTEXT>", "<video>"] if student != "nano" else []
    assert set(marks) <= set(forbidden)


def test_vllm_gets_one_mark_for_each_picture_and_may_sample_none():
    processor = AutoProcessor.from_pretrained(locate("nano:internvl"))
    images = [Image.new("RGB", size) for size in ((56, 56), (28, 28), (56, 84))]
    words = [{"type": "text", "text": "and"}]
    messages = [{"role": "user", "content": [*[{"type": "image"}] * 2, *words, {"type": "image"}]}]
    text = "<|im_start|>user\n<IMG_CONTEXT>\n<IMG_CONTEXT>\nand<IMG_CONTEXT>\n<|im_end|>\n"
    text += "<|im_start|>assistant\n"
    prompt = processor(text=[text], images=images)["input_ids"][0]
    short = processor.tokenizer.encode(text)
    assert len(short) < len(prompt) - 10
    assert marked_prompt(processor, messages) == short

    class Servers:
        async def generate(self, **request):
            return request

    client = MarkedPrompts(Servers(), processor)
    client.messages = messages
    asked = {"prompt_ids": prompt, "sampling_params": {"top_k": 5}, "request_id": "r"}
    sent = asyncio.run(client.generate(**asked))
    assert (sent["prompt_ids"], sent["request_id"]) == (short, "r")
    assert sent["sampling_params"]["top_k"] == 5
    assert set(sent["sampling_params"]["logit_bias"]) == set(never_sampled(processor.tokenizer))
