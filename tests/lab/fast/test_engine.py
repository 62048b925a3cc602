"""Runs of the fast engine: every method, repeatable, on the recipe's settings."""

import json

import pytest
import torch

from rilbench.config import load_recipe
from rilbench.data.question_files import read_questions
from rilbench.errors import UserError
from rilbench.lab.fast.engine import FastRun
from rilbench.lab.fast.groups import TrainingData
from rilbench.lab.fast.models import accepted
from rilbench.lab.fast.prompts import Student
from rilbench.paths import locate
from rilbench.ril.methods import METHODS
from rilbench.train.nan_guard import NotFiniteError

SMALL = ["schedule.steps=2", "schedule.prompts_per_step=3", "group_size=2"]
SMALL += ["discriminator.pretrain_steps=2", "discriminator.pretrain_batch_size=8"]


@pytest.fixture(scope="module")
def data():
    asked = read_questions(locate("nano:prompts.parquet"))
    sources = ("MMStar", "BLINK", "ChartQA", "MM-Vet", "SEED")
    questions = [next(q for q in asked if q.source == source) for source in sources]
    saved = {
        q.id: {
            "72b": [f"It is so. Answer: {q.answer}", "Answer: Z", "I see 3, 4."],
            "78b": [q.answer.split("<AND>")[0], f"The answer is {q.answer}"],
        }
        for q in questions
    }
    return TrainingData(questions, saved, {q.id: ["B", "25", "no", "A"] for q in questions})


@pytest.fixture
def run(tmp_path, data):
    """Trains with these settings; returns the run and its lines of metrics."""
    count = iter(range(9))

    def train(method, *settings, recipe="both"):
        resolved = load_recipe(recipe, "nano", method, [*SMALL, *settings])
        folder = tmp_path / str(next(count))
        trained = FastRun(resolved, locate("nano:restyled"), data, folder, lambda *_: None)
        trained.run()
        file = folder / "metrics.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        return trained, [json.loads(line) for line in lines]

    return train


def weights(trained):
    return flat(trained.policy)


def flat(student):
    return torch.cat([p.detach().flatten() for p in student.model.parameters()])


@pytest.fixture(scope="module")
def start():
    return flat(Student(locate("nano:restyled")))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains(run, start, method):
    settings = ["sft.steps=2", "sft.batch_size=4"] if method == "sft" else []
    trained, lines = run(method, *settings)
    spec = METHODS[method]
    assert len(lines) == (2 if spec.is_rl else 0)
    assert not torch.equal(weights(trained), start)
    for line in lines:
        assert ("answer_reward_teacher" in line) == spec.uses_teachers
        assert ("discriminator_accuracy" in line) == spec.uses_discriminator
        assert line.get("advantage_group_sum_max", 0.0) < 1e-5
        assert ("discriminator_score_student" in line) == spec.pairs_with_teachers
        assert ("teacher_kl" in line) == spec.uses_teacher_log_probs
    if method == "teacher-bonus":
        assert [line["similarity_reward_teacher"] for line in lines] == [1.0, 1.0]


def test_a_run_repeats_itself_and_its_seed_changes_it(run):
    first, lines = run("ril")
    again, same = run("ril")
    assert torch.equal(weights(first), weights(again))
    assert lines == same
    other, _ = run("ril", "seed=1")
    assert not torch.equal(weights(first), weights(other))


def test_more_updates_of_a_step_are_clipped(run):
    _, once = run("ril")
    _, twice = run("ril", "policy.mu=2", "discriminator.mu=2", "policy.lr=1e-2")
    assert {line["ratio_max"] for line in once} == {1.0}
    assert max(line["ratio_max"] for line in twice) > 1.0
    assert twice[0]["trained_tokens"] == 2 * once[0]["trained_tokens"]


def test_a_frozen_discriminator_and_a_frozen_part_keep_their_weights(run):
    trained, lines = run("ril", "discriminator.mu=0", "policy.freeze=attention")
    assert "discriminator_loss" not in lines[0]
    before = Student(locate("nano:restyled")).model.state_dict()
    after = trained.policy.model.state_dict()
    changed = {name for name, weight in after.items() if not torch.equal(weight, before[name])}
    assert changed
    assert not [name for name in changed if "language_model" in name and "self_attn" in name]


def test_sft_before_the_loop_is_where_reference_and_discriminator_start(run):
    trained, lines = run("dr-grpo", "sft.steps=3", "sft.batch_size=4", "sft.lr=1e-3")
    losses = [json.loads(line) for line in (trained.folder / "sft.jsonl").read_text().splitlines()]
    assert [line["step"] for line in losses] == [1, 2, 3]
    assert lines[0]["kl"] == pytest.approx(0, abs=1e-9), "the reference is the student after SFT"


def test_no_question_comes_twice_before_all_came(run, data):
    trained, _ = run("dr-grpo")
    asked = [q.id for step in range(1, 6) for q in trained.groups.questions(step)]
    assert all(sorted(asked[i : i + 5]) == sorted(q.id for q in data.questions) for i in (0, 5, 10))


def test_only_as_many_saved_responses_as_the_recipe_says(run, data):
    trained, _ = run("teacher-rows", "teachers.max_responses=1", recipe="72b")
    for name in ("step_1", "step_2"):
        file = trained.folder / "rollouts" / f"{name}.jsonl"
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        teachers = [row for row in rows if row["source"] != "student"]
        assert {row["source"] for row in teachers} == {"72b"}
        assert all(row["response"].startswith("It is so.") for row in teachers)


def test_accepted_responses_are_the_right_ones(data):
    kept = accepted(data)
    texts = [t for by in kept.saved.values() for responses in by.values() for t in responses]
    assert "Answer: Z" not in texts
    assert sum(text.startswith("It is so.") for text in texts) == len(kept.questions)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("policy.mini_batches=3", "one update of a step"),
        ("judge.model=parser", "judges by rules"),
        ("reward.extra=[x.py:f]", "no reward.extra"),
        ("policy.lora_rank=4", "no LoRA"),
    ],
)
def test_what_the_engine_does_not_have_is_refused(run, setting, said):
    with pytest.raises(UserError, match=said):
        run("ril", setting)


def test_a_loss_that_is_not_finite_stops_the_run(run):
    with pytest.raises(NotFiniteError, match=r"sft, step \d: .*not finite"):
        run("sft", "sft.steps=4", "sft.batch_size=4", "sft.lr=4e9", "sft.final_lr=4e9")


def test_distillation_draws_the_student_to_its_teachers(run):
    _, lines = run("opd", "schedule.steps=12", "policy.lr=1e-3", "group_size=4")
    start, end = (sum(line["teacher_kl"] for line in part) for part in (lines[:3], lines[-3:]))
    assert end < 0.8 * start
    assert {line["kl"] for line in lines} == {0.0}, "there is no other reference"


def test_each_sample_has_one_teacher_and_routes_choose_it(run, data):
    mixed, _ = run("opd")
    routed, _ = run("opd", "teachers.mix=routed", "teachers.routes={MMStar: 72b, '*': 78b}")
    questions = list(data.questions[:2])
    for trained, names in ((mixed, None), (routed, ["72b", "78b"])):
        prompts = trained.policy.read(questions)
        batch, tokens = trained.groups.sample(1, questions, prompts)
        got = trained.teachers.log_probs(1, questions, batch, tokens)
        by_name = {
            name: model.log_probs(model.read(questions), batch.group, tokens)[0].detach()
            for name, model in trained.teachers.models.items()
        }
        for i, row in enumerate(got):
            of = {name for name, each in by_name.items() if torch.allclose(row, each[i], atol=1e-5)}
            assert len(of) == 1
            if names:
                assert of == {names[batch.group[i]]}


def test_gad_pairs_each_sample_with_a_teachers_response_to_its_question(run, data):
    trained, _ = run("gad")
    questions = list(data.questions[:3])
    batch, _ = trained.groups.sample(1, questions, trained.policy.read(questions))
    assert batch.is_student.all()
    assert len(batch) == 3 * 4, "2G samples"
    for name, paired in zip(batch.question_id, batch.paired_response, strict=True):
        assert any(paired in responses for responses in data.saved[name].values())
