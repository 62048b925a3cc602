"""Prompt lengths with pictures, against the processor's tokens of the whole prompt."""

import io

import pytest
from PIL import Image
from qwen3_vl import write_student

from rilbench.data.question_files import Question, read_questions
from rilbench.errors import UserError
from rilbench.paths import nano_folder
from rilbench.train.pipeline.prompt_lengths import PromptLengths


def picture(width, height, mode="RGB"):
    file = io.BytesIO()
    Image.new(mode, (width, height)).save(file, "png")
    return file.getvalue()


ODD = [
    Question("wide", (picture(300, 40),), "What is it?", "yes", "test"),
    Question("two", (picture(56, 56), picture(200, 90, "P")), "<image> or <image>?", "no", "test"),
    Question("after", (picture(90, 91, "RGBA"),), "First words, then <image>", "no", "test"),
]


@pytest.fixture(params=["restyled", "internvl", "qwen3-vl"])
def student(request, tmp_path):
    ours = nano_folder() / request.param
    return ours if ours.exists() else write_student(tmp_path / request.param)


def counted(student, questions, most=10_000):
    lengths = PromptLengths(student, most)
    for question in questions:
        lengths.add(question)
    return lengths


def test_lengths_are_the_processors(student):
    from transformers import AutoProcessor

    questions = [*read_questions(nano_folder() / "prompts.parquet")[:8], *ODD]
    processor = AutoProcessor.from_pretrained(student)
    whole = []
    for question in questions:
        text = processor.apply_chat_template(
            question.chat, add_generation_prompt=True, tokenize=False
        )
        images = [Image.open(io.BytesIO(image)).convert("RGB") for image in question.images]
        whole.append(len(processor(text=[text], images=images)["input_ids"][0]))
    expected = list(zip(whole, (q.id for q in questions), strict=True))
    assert counted(student, questions).lengths == expected
    assert len(set(whole)) > 2


def test_a_broken_picture_is_named():
    broken = [*ODD, Question("torn", (picture(56, 56)[:40],), "What is it?", "no", "test")]
    with pytest.raises(UserError, match="question torn cannot be read"):
        counted(nano_folder() / "restyled", broken)


def test_too_long_prompts_are_counted_and_the_longest_is_named():
    student = nano_folder() / "restyled"
    tokens, longest = max(counted(student, ODD).lengths)
    counted(student, ODD, tokens).check()
    too_long = counted(student, ODD, tokens - 1)
    with pytest.raises(UserError, match=rf"^1 of 3 .*\({longest} has {tokens} tokens\)"):
        too_long.check()
