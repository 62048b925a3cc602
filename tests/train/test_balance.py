"""Rows are dealt to ranks by work, and groups stay whole in a mini-batch."""

import math
from typing import ClassVar

import pytest
import torch
from step_batches import step_batch
from tensordict import NonTensorData, TensorDict

from rilbench.config import load_recipe
from rilbench.ril.discriminator import bradley_terry_loss
from rilbench.train.batch import balanced_order, nested
from rilbench.train.discriminator_trainer import DiscriminatorTrainer, discriminator_batch
from rilbench.train.step_config import StepConfig

ROWS, GROUP = 288, 8


def log_normal(mean, count=ROWS, most=2048, seed=0):
    """Lengths as responses have them: the longest are many times the median."""
    torch.manual_seed(seed)
    lengths = (torch.randn(count) * 0.8 + math.log(mean) - 0.32).exp()
    return lengths.clamp(8, most).int().tolist()


def shares(order, ranks):
    """What verl's dispatch gives each rank."""
    size = len(order) // ranks
    return [order[first : first + size] for first in range(0, len(order), size)]


def longest_over_mean(lengths, order, ranks):
    tokens = [sum(lengths[i] for i in share) for share in shares(order, ranks)]
    return max(tokens) / (sum(tokens) / ranks)


@pytest.mark.parametrize("mean", [300, 512, 1000])
@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_no_rank_has_much_more_than_the_mean(mean, ranks):
    for seed in range(3):
        lengths = [length + 40 for length in log_normal(mean, seed=seed)]
        order = balanced_order(lengths, ranks)
        assert sorted(order) == list(range(ROWS))
        assert longest_over_mean(lengths, order, ranks) <= 1.05
    # As it was: sorted by length, then cut.
    if ranks == 8:
        by_length = sorted(range(ROWS), key=lambda i: lengths[i])
        assert longest_over_mean(lengths, by_length, ranks) > 1.8


def test_32_ranks_of_nine_rows_each():
    # verl's partitions hold the number of rows first: nine rows cannot be as even.
    lengths = [length + 40 for length in log_normal(512)]
    assert longest_over_mean(lengths, balanced_order(lengths, 32), 32) <= 1.08


def test_one_rank_sorts_by_length():
    lengths = log_normal(512)
    assert [lengths[i] for i in balanced_order(lengths, 1)] == sorted(lengths)


@pytest.mark.parametrize("ranks", [1, 2, 4, 8])
@pytest.mark.parametrize("mini_batches", [2, 3, 4])
def test_a_mini_batch_has_the_same_whole_groups_on_any_number_of_ranks(ranks, mini_batches):
    lengths = log_normal(512)
    order = balanced_order(lengths, ranks, mini_batches)
    assert sorted(order) == list(range(ROWS))
    size = ROWS // ranks // mini_batches
    for i in range(mini_batches):  # verl's: the i-th part of each rank's rows
        found = {row for share in shares(order, ranks) for row in share[i * size : (i + 1) * size]}
        first = i * ROWS // mini_batches
        assert found == set(range(first, first + ROWS // mini_batches))
        assert len({row // GROUP for row in found}) * GROUP == len(found)
        tokens = [
            sum(lengths[r] for r in s[i * size : (i + 1) * size]) for s in shares(order, ranks)
        ]
        assert max(tokens) / (sum(tokens) / ranks) <= (1.05 if size > 9 else 1.2)


class Tokenizer:
    """One token for each character."""

    added_tokens_decoder: ClassVar = {}

    def apply_chat_template(self, messages, tokenize):
        return messages[-1]["content"]

    def encode(self, text, add_special_tokens):
        return [ord(letter) for letter in text]


class Workers:
    """A worker group of eight ranks whose logit of a row is its number of tokens."""

    world_size = 8

    def __init__(self):
        self.tokens = []

    def set_loss_fn(self, loss_fn):
        """Nothing is trained."""

    def weights_digest(self):
        return [0.0]

    def infer_batch(self, data):
        self.weights = data["weight"].tolist()
        lengths = data["input_ids"].offsets().diff()
        self.tokens = [int(part.sum()) for part in lengths.view(self.world_size, -1)]
        values = nested([torch.full((int(n),), float(n)) for n in lengths])
        return type("Later", (), {"get": lambda _: TensorDict({"values": values}, len(lengths))})()


def test_the_discriminators_rows_are_dealt_and_its_logits_come_back_in_order(tmp_path):
    lengths = log_normal(512)
    batch = step_batch([1.0] * ROWS, response=["x" * length for length in lengths])
    recipe = load_recipe("both", "nano", overrides=["discriminator.mu=0"])
    workers = Workers()
    trainer = DiscriminatorTrainer(workers, Tokenizer(), StepConfig.from_recipe(recipe, tmp_path))
    logits, _ = trainer.update_and_score(batch)
    read = discriminator_batch(Tokenizer(), batch.response, batch.is_student)["input_ids"]
    assert logits.tolist() == read.offsets().diff().tolist()
    assert max(workers.tokens) / (sum(workers.tokens) / 8) <= 1.05
    assert sum(workers.weights) == ROWS
    assert len(workers.weights) < ROWS, "equal ones are merged"
    # The same where each response must stay a row.
    recipe = load_recipe(
        "both", "nano", overrides=["discriminator.mu=0", "hardware.share_prompts=false"]
    )
    plain = DiscriminatorTrainer(workers, Tokenizer(), StepConfig.from_recipe(recipe, tmp_path))
    assert plain.update_and_score(batch)[0].tolist() == logits.tolist()
    assert workers.weights == [1.0] * ROWS


class TrainedWorkers(Workers):
    """They keep what they are trained on."""

    def train_mini_batch(self, data):
        self.trained = data
        metrics = TensorDict({"metrics": NonTensorData({"grad_norm": [1.0]})})
        return type("Later", (), {"get": lambda _: metrics})()


@pytest.mark.parametrize("share", ["true", "false"])
def test_pairs_that_lie_on_different_ranks_have_bradley_terrys_gradient(tmp_path, share):
    """D is θ times a row's tokens, at θ = 1: the derivative by θ beside autograd's."""
    settings = [f"hardware.share_prompts={share}"]
    recipe = load_recipe("both", "nano", "gad", settings)
    step = StepConfig.from_recipe(recipe, tmp_path)
    torch.manual_seed(3)
    student, teacher = (torch.randint(1, 9, (24,)).tolist() for _ in range(2))
    batch = step_batch(
        [0.0] * 24,
        response=["x" * n for n in student],
        paired_response=["y" * n for n in teacher],
        question=["?"] * 24,
    )
    workers = TrainedWorkers()
    logits, metrics = DiscriminatorTrainer(workers, Tokenizer(), step).update_and_score(batch)
    assert logits.tolist() == student, "the teachers' are not scored"
    wins = [t < s for s, t in zip(student, teacher, strict=True)]
    assert metrics["discriminator_accuracy"] == pytest.approx(sum(wins) / 24)
    lengths = workers.trained["input_ids"].offsets().diff().float()
    theta = torch.ones((), requires_grad=True)
    loss = bradley_terry_loss(theta * torch.tensor(student), theta * torch.tensor(teacher))
    (expected,) = torch.autograd.grad(loss, theta)
    found = (workers.trained["weight"] * lengths).sum()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert metrics["discriminator_loss"] == pytest.approx(loss.item(), rel=1e-5)
