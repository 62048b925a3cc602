"""Every question is read as verl will read it; what it refuses is named."""

import io
import json
from dataclasses import replace

import pytest
from layouts import write_layout
from PIL import Image

from rilbench.config import load_recipe
from rilbench.data.question_files import Question, read_questions, write_questions
from rilbench.data.stored_questions import store_pictures
from rilbench.errors import UserError
from rilbench.paths import nano_folder
from rilbench.plan.assumptions import count_questions
from rilbench.train.pipeline.preflight import read_inputs
from rilbench.train.pipeline.prepare_data import pixel_limits
from rilbench.train.pipeline.question_check import (
    changed_questions,
    check_questions,
    digest,
    read_checks,
    refuse_strictly,
    write_checks,
)
from rilbench.train.pipeline.run_folder import Run
from rilbench.train.verl.config import picture_file
from rilbench.train.verl.question_reader import QuestionReader

NANO = nano_folder() / "restyled"


def picture(width, height, mode="RGB", form="png"):
    file = io.BytesIO()
    Image.effect_noise((width, height), 80).convert(mode).save(file, form)
    return file.getvalue()


ODD = [
    Question("wide", (picture(300, 40),), "What is it?", "yes", "test"),
    Question("two", (picture(56, 56), picture(200, 90, "P")), "<image> or <image>?", "no", "test"),
    Question("after", (picture(90, 91, "RGBA"),), "First words, then <image>", "no", "test"),
    Question("none", (), "What is 2 + 2?", "4", "test"),
]
WHOLE = picture(56, 56, form="jpeg")
GOOD = Question("good", (WHOLE,), "What is it?", "yes", "test")
BAD = {
    "video": (replace(GOOD, question="a <video> tag"), "text: it has <video>"),
    "mark": (replace(GOOD, question="what is <|image_pad|>?"), r"text: it has <\|image_pad\|>"),
    "end": (replace(GOOD, question="what is <|im_end|>?"), r"text: it has <\|im_end\|>"),
    "torn": (replace(GOOD, images=(WHOLE[:-100],)), "picture: .*truncated"),
    "strip": (replace(GOOD, images=(picture(3, 900),)), "picture: .* 3 x 900 .*aspect ratio"),
    "html": (replace(GOOD, images=(b"<html>",)), "picture: "),
    "long": (replace(GOOD, question="word " * 600), r"length: it has \d+ tokens .*=512"),
}


OTHERS = ("qwen3_vl", "glm4v", "gemma3", "gemma4", "llava_onevision", "smolvlm")


@pytest.fixture(params=["restyled", "internvl", *OTHERS])
def student(request, tmp_path):
    if request.param == "smolvlm":
        pytest.importorskip("num2words")
    ours = nano_folder() / request.param
    return ours if ours.exists() else write_layout(request.param, tmp_path / request.param)


def test_lengths_are_the_processors(student):
    from transformers import AutoProcessor

    questions = [*read_questions(nano_folder() / "prompts.parquet")[:8], *ODD]
    processor = AutoProcessor.from_pretrained(student)
    reader = QuestionReader(student, pixel_limits(student), 512)
    whole = []
    for question in questions:
        text = processor.apply_chat_template(
            question.chat, add_generation_prompt=True, tokenize=False
        )
        images = [Image.open(io.BytesIO(image)).convert("RGB") for image in question.images]
        whole.append(len(processor(text=[text], images=images or None)["input_ids"][0]))
    found = [reader.prompt_tokens(question) for question in questions]
    # Gemma 3 writes empty lines around a picture, which may be a token with the text's own.
    most = int("gemma3" in str(student)) * 2
    assert all(0 <= a - b <= most for a, b in zip(found, whole, strict=True))
    assert len(set(whole)) > 2
    assert [reader.refusal(question) for question in questions] == [""] * len(questions)


def test_what_verl_would_fail_at_is_refused_with_the_reason():
    questions = [replace(question, id=name) for name, (question, _) in BAD.items()]
    refused = check_questions(NANO, [GOOD, *questions, *ODD], 512)
    assert set(refused) == set(BAD)
    for name, (_, words) in BAD.items():
        with pytest.raises(AssertionError, match=words):
            raise AssertionError(refused[name])


def test_a_torn_picture_is_found_after_a_good_one_of_its_size():
    torn = replace(GOOD, id="torn", images=(WHOLE[:-100],))
    assert list(check_questions(NANO, [GOOD, torn], 512)) == ["torn"]


def run_with(folder, questions, *settings):
    write_questions(folder / "train.parquet", questions)
    write_questions(folder / "dev.parquet", [GOOD])
    files = [f"data.{name}={folder / f'{name}.parquet'}" for name in ("train", "dev")]
    few = "schedule.prompts_per_step=2"
    return Run(folder / "r", load_recipe("both", "nano", "dr-grpo", [*files, few, *settings]))


def test_refused_questions_are_left_out_or_stop_a_strict_run(tmp_path):
    torn = replace(GOOD, id="torn", images=(WHOLE[:-100],))
    thinking = replace(GOOD, id="thinking", answer="<think>7, I see</think> 7")
    run = run_with(tmp_path, [GOOD, torn, thinking, *ODD])
    inputs = read_inputs(run)
    assert [q.id for q in inputs.questions] == ["good", "wide", "two", "after", "none"]
    assert set(inputs.checks["data.train"].refused) == {"torn", "thinking"}
    summary = inputs.checks["data.train"].summary("data.train")
    assert summary.startswith("2 of 7 questions of data.train cannot be trained on")
    assert "picture 1, answer 1; first torn" in summary
    with pytest.raises(
        UserError, match=r"2 questions cannot be trained on \(torn: picture.*--strict"
    ):
        read_inputs(run, strict=True)
    refuse_strictly({"data.dev": inputs.checks["data.dev"]})


def test_a_run_reads_several_files_as_one(tmp_path):
    write_questions(tmp_path / "more.parquet", [replace(GOOD, id="more")])
    both = f"data.train={tmp_path / 'train.parquet'},{tmp_path / 'm*.parquet'}"
    run = run_with(tmp_path, [GOOD], both)
    inputs = read_inputs(run)
    assert [q.id for q in inputs.questions] == ["good", "more"]
    store_pictures(picture_file(run.folder), inputs.scans)
    assert [q.images for q in inputs.questions] == [GOOD.images] * 2
    assert count_questions(run.recipe.data.train) == 2


def test_too_few_that_are_left_are_refused_with_the_reason(tmp_path):
    torn = replace(GOOD, id="torn", images=(WHOLE[:-100],))
    with pytest.raises(UserError, match=r"torn: .*one step takes 2, and 1 are left"):
        read_inputs(run_with(tmp_path, [GOOD, torn]))


def test_a_later_start_checks_only_what_changed(tmp_path, monkeypatch):
    run = run_with(tmp_path, [GOOD, *ODD])
    run.folder.mkdir()
    first = read_inputs(run).checks
    write_checks(run.folder, first)
    assert read_checks(run.folder) == first
    asked = []
    monkeypatch.setattr(
        "rilbench.train.pipeline.preflight.check_questions",
        lambda student, questions, most: asked.append(len(list(questions))) or {},
    )
    assert read_inputs(run).checks == first
    assert asked == []
    changed = replace(GOOD, images=(picture(56, 56),))
    again = read_inputs(run_with(tmp_path, [changed, *ODD])).checks
    assert asked == [1 + len(ODD)]
    (note,) = changed_questions(first, again)
    assert note.startswith("data.train is not what this run read before (5 questions, before 5)")


def test_the_digest_covers_every_part():
    digests = {digest([q], "student", 512) for q in (GOOD, *(q for q, _ in BAD.values()))}
    digests |= {digest([replace(GOOD, answer="no")], "student", 512), digest([GOOD], "other", 512)}
    digests |= {digest([GOOD], "student", 511), digest([GOOD, GOOD], "student", 512)}
    assert len(digests) == 1 + len(BAD) + 4
    assert json.dumps(sorted(digests))
