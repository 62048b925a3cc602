"""Longer runs through verl: the same seed twice, more updates, the baselines, the dev split."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rilbench.checkpoint import inspect_checkpoint
from rilbench.data.question_files import read_questions, write_questions
from rilbench.paths import locate

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
SCRIPT = Path(sys.executable).parent / "rilbench"
REWARDS = [
    f"{kind}_reward_{who}" for kind in ("answer", "similarity") for who in ("student", "teacher")
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with eight questions; the collection in it is shared by the runs."""
    place = tmp_path_factory.mktemp("variants")
    questions = read_questions(locate("nano:prompts.parquet"))[:8]
    write_questions(place / "questions.parquet", questions)
    return place


def start(folder, name, *more, method="ril", steps=2, collection="collection"):
    settings = {
        "data.train": "questions.parquet",
        "data.dev": "questions.parquet",
        "collection.folder": collection,
        "collection.student_responses": 1,
        "schedule.prompts_per_step": 4,
        "schedule.save_every": 1,
        "discriminator.pretrain_steps": 3,
        "discriminator.pretrain_batch_size": 16,
    }
    return subprocess.run(
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


def train(folder, name, *more, **options):
    done = start(folder, name, *more, **options)
    assert done.returncode == 0, done.stderr + done.stdout[-3000:]
    lines = (folder / "runs" / name / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def rows(folder, name, step):
    file = folder / "runs" / name / "rollouts" / f"step_{step}.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()]


def key(row):
    return (row["question_id"], row["session"])


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
    more = ("--set", "policy.mu=2", "--set", "policy.mini_batches=2")
    (moved,) = train(folder, "moved", *more, steps=1)
    # Later mini-batches meet another student than π_old's, and than the reference.
    assert moved["ratio_max"] > 1.5
    assert moved["kl"] > 0.01
    (found,) = train(folder, "updates", *more, "--set", "policy.lr=1e-9", steps=1)
    # A student that does not move is π_old in every mini-batch and pass, row by row.
    assert found["ratio_mean"] == pytest.approx(1, abs=1e-4)
    assert found["ratio_max"] == pytest.approx(1, abs=1e-3)
    assert found["kl"] == pytest.approx(0, abs=1e-4)
    step = rows(folder, "updates", 1)
    assert len(step) == 4 * 8
    questions = {q.id: q for q in read_questions(folder / "questions.parquet")}
    compared = set()
    for row in step[::2]:
        seen = log_prob_of(questions[row["question_id"]], row)
        if seen is not None:
            compared.add(row["source"])
            assert row["old_log_prob"] == pytest.approx(seen, abs=2e-3)
    assert compared == {"student", "72b", "78b"}
    # The picture reaches the policy: another picture gives other probabilities.
    row = max(step, key=lambda r: r["tokens"])
    blank = log_prob_of(questions[row["question_id"]], row, blank=True)
    assert abs(row["old_log_prob"] - blank) > 0.5


def log_prob_of(question, row, blank=False):
    """The student's log-probability of a response; None where it cannot be told."""
    found = response_log_softmax(question, row, blank)
    if found is None:
        return None
    log_softmax, targets = found
    return log_softmax.gather(-1, targets[:, None]).sum().item()


def response_log_softmax(question, row, blank=False):
    """The student's log-distributions at a response's tokens, and those, by transformers alone.

    None where the text encodes to other tokens than those that were sampled.
    """
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    path = locate("nano:restyled")
    model = AutoModelForImageTextToText.from_pretrained(path, dtype=torch.float32)
    processor = AutoProcessor.from_pretrained(path)
    images = [Image.open(io.BytesIO(image)) for image in question.images]
    images = [Image.new("RGB", image.size) if blank else image for image in images]
    prompt = processor.apply_chat_template(
        question.chat, tokenize=False, add_generation_prompt=True
    )
    end = processor.tokenizer.eos_token if row["finished"] else ""
    text = prompt + row["response"] + end
    if len(processor.tokenizer.encode(row["response"] + end)) != row["tokens"]:
        return None
    batch = processor(text=[text], images=images, return_tensors="pt")
    with torch.no_grad():
        logits = model(**batch).logits[0, :-1].log_softmax(-1)
    targets = batch["input_ids"][0, 1:]
    return logits[-row["tokens"] :], targets[-row["tokens"] :]


@pytest.mark.parametrize("method", ["dr-grpo", "grpo"])
def test_baselines_have_2g_own_rows_and_no_discriminator(folder, method):
    found = train(folder, method, method=method, steps=1)
    step = rows(folder, method, 1)
    assert {row["source"] for row in step} == {"student"}
    assert len(step) == 4 * 8
    assert "discriminator_accuracy" not in found[0]
    assert not (folder / "runs" / method / "collection").exists()
    for question in {row["question_id"] for row in step}:
        group = [row for row in step if row["question_id"] == question]
        answers = [row["answer_reward"] for row in group]
        mean = sum(answers) / len(answers)
        for row in group:
            if method == "dr-grpo":
                assert row["advantage"] == pytest.approx(row["answer_reward"] - mean, abs=1e-6)
            assert (row["advantage"] > 0) == (row["answer_reward"] > mean)


def test_the_dev_split_chooses_the_step_and_trackers_get_the_figures(folder):
    more = ("--eval-every", "1", "--set", "schedule.export=best", "--log", "tensorboard")
    found = train(folder, "dev", *more)
    scores = {m["step"]: m["dev_accuracy"] for m in found}
    assert all(0 <= score <= 1 for score in scores.values())
    chosen = json.loads((folder / "runs" / "dev" / "checkpoint" / "export.json").read_text())
    assert chosen["choice"] == "best"
    assert chosen["dev_accuracy"] == max(scores.values()) == scores[chosen["step"]]
    written = EventAccumulator(str(folder / "runs" / "dev" / "tensorboard")).Reload()
    (sample,) = written.Tensors("samples/text_summary")
    table = sample.tensor_proto.string_val[0].decode()
    assert (sample.step, table.count("| student |")) == (1, 4)
    assert table.count("| 72b |") + table.count("| 78b |") == 4
    assert len(written.Tensors("val/generations/text_summary")) == 1 + len(scores)


def test_teacher_rows_with_the_answer_reward_alone_need_no_discriminator(folder):
    found = train(folder, "teacher-rows", method="teacher-rows", steps=1)[0]
    step = rows(folder, "teacher-rows", 1)
    assert {row["source"] for row in step} == {"student", "72b", "78b"}
    for question in {row["question_id"] for row in step}:
        group = [row for row in step if row["question_id"] == question]
        mean = sum(row["answer_reward"] for row in group) / len(group)
        for row in group:
            assert row["advantage"] == pytest.approx(row["answer_reward"] - mean, abs=1e-6)
    assert "discriminator_accuracy" not in found
    assert not (folder / "runs" / "teacher-rows" / "discriminator.jsonl").exists()
    own = sum(row["tokens"] for row in step if row["source"] == "student")
    saved = sum(row["tokens"] for row in step) - own
    cost = json.loads((folder / "runs" / "teacher-rows" / "cost.json").read_text())
    assert (cost["sampled_tokens"], cost["teacher_tokens"]) == (own, saved)
    assert cost["trained_tokens"] == own + saved
    assert cost["judge_calls"] == len(step)
    assert cost["cpu_seconds"]["collect"] > 0
    assert cost["cpu_seconds"]["ril"] > 5
    assert cost["cpu_seconds"]["discriminator"] == 0


def test_the_ablations_of_rewards_rows_and_judge(folder):
    (folder / "brevity.py").write_text(
        "def brevity(inputs):\n    return [1 / n for n in inputs.num_tokens]\n"
    )
    settings = [
        "reward.similarity=continuous",
        "reward.extra=[brevity.py:brevity]",
        "policy.teachers_in_loss=false",
        "teachers.max_responses=1",
        "judge.false_positive_rate=0.5",
        "judge.false_negative_rate=0.5",
    ]
    more = [part for setting in settings for part in ("--set", setting)]
    found = train(folder, "ablations", *more, steps=1)[0]
    assert 0 < found["reward_brevity_student"] <= 1
    step = rows(folder, "ablations", 1)
    for row in step:
        assert row["similarity_reward"] == pytest.approx(1 - row["discriminator_prob"], abs=1e-5)
    for question in {row["question_id"] for row in step}:
        group = [row for row in step if row["question_id"] == question]
        rewards = [
            row["similarity_reward"] + row["answer_reward"] + row["extra_rewards"]["brevity"]
            for row in group
        ]
        mean = sum(rewards) / len(rewards)
        for row, reward in zip(group, rewards, strict=True):
            assert row["extra_rewards"]["brevity"] == pytest.approx(1 / row["tokens"])
            own = row["source"] == "student"
            expected = reward - mean if own else 0
            assert row["advantage"] == pytest.approx(expected, abs=1e-5)
        for teacher in ("72b", "78b"):
            assert len({row["response"] for row in group if row["source"] == teacher}) == 1
    given = {(row["question_id"], row["response"]): row["answer_reward"] for row in step}
    assert all(row["answer_reward"] == given[key(row)[0], row["response"]] for row in step)
    assert any(row["answer_reward"] != row["answer_reward_before_noise"] for row in step)
    own_tokens = sum(row["tokens"] for row in step if row["source"] == "student")
    assert found["trained_tokens"] == found["sampled_tokens"] == own_tokens
    questions = {q.id: q for q in read_questions(folder / "questions.parquet")}
    own = [row for row in step if row["source"] == "student"]
    seen = [entropy_of(questions[row["question_id"]], row) for row in own]
    if None not in seen:
        expected = sum(seen) / sum(row["tokens"] for row in own)
        assert found["entropy"] == pytest.approx(expected, abs=1e-4)


def entropy_of(question, row):
    """The entropy of the student's distribution, summed over a response's tokens."""
    found = response_log_softmax(question, row)
    return None if found is None else -(found[0].exp() * found[0]).sum().item()


def test_numbers_that_are_not_finite_stop_the_run_and_the_rows_are_saved(folder):
    more = ("--set", "policy.lr=4e9", "--set", "discriminator.pretrain_steps=0")
    done = start(folder, "wild", *more)
    assert done.returncode == 1
    error = done.stderr.strip().splitlines()[-1]
    assert error.startswith("rilbench: step 2: ")
    assert "not finite" in error
    run = folder / "runs" / "wild"
    assert len(rows(folder, "wild", 2)) == 4 * 8
    assert [path.name for path in (run / "steps").glob("global_step_*")] == ["global_step_1"]
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 1


def test_rl_after_sft_starts_from_the_student_after_it(folder):
    more = ("--set", "sft.steps=3", "--set", "sft.batch_size=16", "--set", "sft.lr=1e-3")
    found = train(folder, "after", *more, "--set", "num_samples=2", steps=1)
    run = folder / "runs" / "after"
    after = inspect_checkpoint(run / "sft" / "checkpoint")
    assert after.fingerprint != inspect_checkpoint(locate("nano:restyled")).fingerprint
    assert found[0]["kl"] == 0, "the reference is the student after SFT"
    assert (run / "collection" / "student.parquet").exists(), "its responses are the run's own"
    step = rows(folder, "after", 1)
    assert sum(row["source"] == "student" for row in step) == 4 * 2
    labels = inspect_checkpoint(run / "checkpoint").labels
    assert (labels.method, labels.teacher) == ("sft+ril", "both")
    sft = [json.loads(line) for line in (run / "sft" / "metrics.jsonl").read_text().splitlines()]
    learned = sum(line["trained_tokens"] for line in sft)
    cost = json.loads((run / "cost.json").read_text())
    assert cost["trained_tokens"] == learned + found[0]["trained_tokens"]
    # The discriminator's pre-training may end before the first reading, a second after its start.
    assert all(cost["cpu_seconds"][stage] > 0 for stage in ("collect", "sft", "ril"))


def test_micro_batches_by_tokens_train_as_those_by_rows(folder):
    """What the profiles of GPUs do: other micro-batches in another order, the same update."""
    plain = train(folder, "by-rows", steps=1)[0]
    more = (
        "--set",
        "policy.micro_batch_tokens=450",
        "--set",
        "discriminator.micro_batch_tokens=600",
    )
    packed = train(folder, "by-tokens", *more, steps=1)[0]
    for name in (*REWARDS, "tokens_student", "discriminator_accuracy"):
        assert packed[name] == plain[name]
    for name in ("policy_loss", "grad_norm", "entropy", "discriminator_loss"):
        assert packed[name] == pytest.approx(plain[name], rel=1e-3, abs=1e-5)
    by_rows, by_tokens = (
        {key(row): row for row in rows(folder, name, 1)} for name in ("by-rows", "by-tokens")
    )
    assert by_rows.keys() == by_tokens.keys()
    for place, row in by_rows.items():
        assert by_tokens[place]["response"] == row["response"]
        assert by_tokens[place]["discriminator_prob"] == pytest.approx(
            row["discriminator_prob"], abs=1e-4
        )
