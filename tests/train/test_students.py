"""Two steps of the whole loop with a tiny student of each layout, with pictures and without."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from direct import log_probs
from layouts import BUILDERS, write_layout
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from rilbench.checkpoint import inspect_checkpoint
from rilbench.config import read_recipe
from rilbench.config.layouts import LAYOUTS, suited
from rilbench.data.question_files import read_questions, write_questions
from rilbench.paths import locate

pytestmark = pytest.mark.timeout(1800)
SCRIPT = Path(sys.executable).parent / "rilbench"
SOON = ("gemma3", "qwen3_5", "llava_onevision", "glm4v")
"""One of each kind; all others in `make test-all`."""
SETTINGS = {
    "data.train": "questions.parquet",
    "data.dev": "questions.parquet",
    "data.max_response_tokens": 24,
    "collection.folder": "collection",
    "collection.teacher_responses": 2,
    "collection.student_responses": 1,
    "schedule.prompts_per_step": 4,
    "schedule.save_every": 2,
    "discriminator.pretrain_steps": 2,
    "discriminator.pretrain_batch_size": 8,
    "policy.mu": 2,  # so that π_old is recorded
}


@pytest.fixture(scope="module")
def collected(tmp_path_factory):
    """A folder for the teachers' responses, which all layouts share."""
    return tmp_path_factory.mktemp("collected")


@pytest.fixture(
    scope="module",
    params=[
        n if n in SOON else pytest.param(n, marks=pytest.mark.slow)
        for n in BUILDERS
        if not n.endswith("_moe")
    ],
)
def trained(request, tmp_path_factory, collected):
    """A student of a layout, the folder of its run, and what was printed."""
    name = request.param
    if name == "smolvlm":
        pytest.importorskip("num2words")
    place = tmp_path_factory.mktemp(name)
    asked = read_questions(locate("nano:prompts.parquet"))[:5]
    text = [
        replace(q, id=f"{q.id}-text", images=(), question=f"What is {i} + 4?", answer=str(i + 4))
        for i, q in enumerate(asked[:3])
    ]
    write_questions(place / "questions.parquet", [*asked, *text])
    student = write_layout(name, place / "student")
    (place / "collection").mkdir()
    for file in collected.glob("7*"):
        (place / "collection" / file.name).write_bytes(file.read_bytes())
    given = {**SETTINGS, "student.model": student}
    command = [str(SCRIPT), "train", "--recipe", "both", "--student", "nano", "--run", "one"]
    command += ["--steps", "2"]
    command += [part for key, value in given.items() for part in ("--set", f"{key}={value}")]
    done = subprocess.run(
        command, cwd=place, capture_output=True, text=True, timeout=1500, check=False
    )
    assert done.returncode == 0, done.stderr + done.stdout[-3000:]
    for file in (place / "collection").glob("7*"):
        (collected / file.name).write_bytes(file.read_bytes())
    return student, place / "runs" / "one", done.stdout + done.stderr


def test_two_steps_on_questions_with_pictures_and_without(trained):
    student, run, said = trained
    asked = {q.id: q for q in read_questions(run.parents[1] / "questions.parquet")}
    files = [run / "rollouts" / f"step_{step}.jsonl" for step in (1, 2)]
    rows = [json.loads(line) for file in files for line in file.open()]
    assert {row["source"] for row in rows} == {"student", "72b", "78b"}
    assert {row["image_tokens"] > 0 for row in rows} == {True, False}
    for row in rows:
        assert (row["image_tokens"] > 0) == bool(asked[row["question_id"]].images)
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").open()]
    assert len(metrics) == 2
    assert all(step["grad_norm"] > 0 for step in metrics)
    shares = suited(read_recipe(run / "recipe.yaml"), student).hardware.share_prompts
    title = LAYOUTS[inspect_checkpoint(student).model_type].title
    assert (f"{title} cannot share prompts" in said) == (not shares)


def test_the_trainer_saw_the_pictures(trained):
    """π_old of the first step, as the trainer computed it, is the student's by transformers alone.

    And not what the student says of black pictures.
    """
    path, run, _ = trained
    model = AutoModelForImageTextToText.from_pretrained(path, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(path)
    asked = {q.id: q for q in read_questions(run.parents[1] / "questions.parquet")}
    compared, moved = set(), []
    for line in (run / "rollouts" / "step_1.jsonl").open():
        row = json.loads(line)
        question = asked[row["question_id"]]
        text = row["response"] + (processor.tokenizer.eos_token if row["finished"] else "")
        if len(processor.tokenizer.encode(text)) != row["tokens"]:
            continue  # the text encodes to other tokens than those that were sampled
        found, _ = log_probs(model, processor, question, text)
        assert row["old_log_prob"] == pytest.approx(sum(found), abs=5e-3)
        compared.add(bool(question.images))
        if question.images:
            blank, _ = log_probs(model, processor, question, text, blank=True)
            moved.append(abs(sum(blank) - sum(found)))
    assert compared == {True, False}
    assert max(moved) > 0.05


def test_what_comes_out_is_a_checkpoint_that_moved(trained):
    student, run, _ = trained
    before = load_file(student / "model.safetensors")
    out = run / "checkpoint"
    after = load_file(out / "model.safetensors")
    assert after.keys() == before.keys()
    moved = {name for name, each in after.items() if not torch.equal(each.float(), before[name])}
    assert any("vision" in name or "visual" in name for name in moved)
    assert any("layers.1." in name for name in moved)
    AutoModelForImageTextToText.from_pretrained(out)
    AutoProcessor.from_pretrained(out)
