"""Longer runs through verl: the same seed twice, more updates, the baselines, the dev split."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from rilbench.locations import locate
from rilbench.teachers.questions import read_questions, write_questions

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
SCRIPT = Path(sys.executable).parent / "rilbench"
REWARDS = [f"{kind}_{who}" for kind in ("answer", "similarity") for who in ("student", "teacher")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with eight questions; the collection in it is shared by the runs."""
    place = tmp_path_factory.mktemp("variants")
    questions = read_questions(locate("nano:prompts.parquet"))[:8]
    write_questions(place / "questions.parquet", questions)
    return place


def train(folder, name, *more, method="ril", steps=2, collection="collection"):
    settings = {
        "data.train": "questions.parquet",
        "data.dev": "questions.parquet",
        "collection.folder": collection,
        "collection.student_responses": 1,
        "schedule.questions": 4,
        "schedule.save_every": 1,
        "discriminator.pretrain_steps": 3,
        "discriminator.pretrain_rows": 16,
    }
    done = subprocess.run(
        [
            *(str(SCRIPT), "train", "--recipe", "both", "--student", "nano", "--method", method),
            *("--run", name, "--steps", str(steps)),
            *[part for key, value in settings.items() for part in ("--set", f"{key}={value}")],
            *more,
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr + done.stdout[-3000:]
    lines = (folder / "runs" / name / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def rows(folder, name, step):
    file = folder / "runs" / name / "rows" / f"step_{step}.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()]


def key(row):
    return (row["question"], row["row"])


def test_the_same_seed_gives_the_same_rows_and_rewards(folder):
    first = train(folder, "one", steps=3, collection="collection-one")
    second = train(folder, "two", steps=3, collection="collection-two")
    for a, b in zip(first, second, strict=True):
        assert {name: a[name] for name in REWARDS} == {name: b[name] for name in REWARDS}
        assert a["policy_loss"] == b["policy_loss"]
    for step in (1, 2, 3):
        one, two = (sorted(rows(folder, name, step), key=key) for name in ("one", "two"))
        assert one == two
    other = train(folder, "other", "--seed", "1", steps=1)
    assert other[0]["policy_loss"] != first[0]["policy_loss"]


def test_more_updates_take_old_log_probabilities_from_the_student_for_all_rows(folder):
    more = ("--set", "policy.updates=2", "--set", "policy.mini_batches=2")
    found = train(folder, "updates", *more, steps=1)
    # The first mini-batch's ratio is 1 and later ones' are not: π_old is the student before them.
    assert found[0]["ratio_max"] > 1
    assert found[0]["ratio_mean"] == pytest.approx(1, abs=0.2)
    step = rows(folder, "updates", 1)
    assert len(step) == 4 * 8
    questions = {q.id: q for q in read_questions(folder / "questions.parquet")}
    compared = set()
    for row in step[::2]:
        seen = log_prob_of(questions[row["question"]], row)
        if seen is not None:
            compared.add(row["source"])
            assert row["old_log_prob"] == pytest.approx(seen, abs=2e-3)
    assert compared == {"student", "72b", "78b"}
    # The picture reaches the policy: another picture gives other probabilities.
    row = max(step, key=lambda r: r["tokens"])
    blank = log_prob_of(questions[row["question"]], row, blank=True)
    assert abs(row["old_log_prob"] - blank) > 0.5


def log_prob_of(question, row, blank=False):
    """The student's log-probability of a response, by transformers alone.

    None where the text encodes to other tokens than those that were sampled.
    """
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    path = locate("nano:restyled")
    model = AutoModelForImageTextToText.from_pretrained(path, dtype=torch.float32)
    processor = AutoProcessor.from_pretrained(path)
    image = Image.open(io.BytesIO(question.images[0]))
    image = Image.new("RGB", image.size) if blank else image
    content = [{"type": "image"}, {"type": "text", "text": question.question}]
    prompt = processor.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    end = processor.tokenizer.eos_token if row["finished"] else ""
    text = prompt + row["response"] + end
    if len(processor.tokenizer.encode(row["response"] + end)) != row["tokens"]:
        return None
    batch = processor(text=[text], images=[image], return_tensors="pt")
    with torch.no_grad():
        logits = model(**batch).logits[0, :-1].log_softmax(-1)
    targets = batch["input_ids"][0, 1:]
    chosen = logits.gather(-1, targets[:, None])[:, 0]
    return chosen[-row["tokens"] :].sum().item()


@pytest.mark.parametrize("method", ["dr-grpo", "grpo"])
def test_baselines_have_2g_own_rows_and_no_discriminator(folder, method):
    found = train(folder, method, method=method, steps=1)
    step = rows(folder, method, 1)
    assert {row["source"] for row in step} == {"student"}
    assert len(step) == 4 * 8
    assert "discriminator_accuracy" not in found[0]
    assert not (folder / "runs" / method / "collection").exists()
    for question in {row["question"] for row in step}:
        group = [row for row in step if row["question"] == question]
        answers = [row["answer"] for row in group]
        mean = sum(answers) / len(answers)
        for row in group:
            if method == "dr-grpo":
                assert row["advantage"] == pytest.approx(row["answer"] - mean, abs=1e-6)
            assert (row["advantage"] > 0) == (row["answer"] > mean)


def test_the_dev_split_chooses_the_step_and_trackers_get_the_figures(folder):
    more = ("--eval-every", "1", "--set", "schedule.export=best", "--log", "tensorboard")
    found = train(folder, "dev", *more)
    scores = {m["step"]: m["dev_accuracy"] for m in found}
    assert all(0 <= score <= 1 for score in scores.values())
    chosen = json.loads((folder / "runs" / "dev" / "checkpoint" / "export.json").read_text())
    assert chosen["choice"] == "best"
    assert chosen["dev_accuracy"] == max(scores.values()) == scores[chosen["step"]]
    assert list((folder / "runs" / "dev" / "tensorboard").rglob("events.out.tfevents*"))
