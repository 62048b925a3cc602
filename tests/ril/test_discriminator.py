import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from rilbench.paths import nano_folder
from rilbench.ril.discriminator import (
    DISCRIMINATOR_SYSTEM,
    STUDENT_LABEL,
    TEACHER_LABEL,
    bradley_terry_gradient,
    bradley_terry_loss,
    discriminator_accuracy,
    discriminator_loss,
    discriminator_messages,
    discriminator_tokens,
)

LOGITS = st.floats(-20, 20)
ROWS = st.lists(
    st.tuples(LOGITS, st.sampled_from([0.0, 1.0]), st.sampled_from([0.0, 0.5, 1.0, 2.0])),
    min_size=1,
    max_size=16,
)


def sigmoid(z):
    return 1 / (1 + math.exp(-z))


def columns(rows):
    return (torch.tensor(each, dtype=torch.float64) for each in zip(*rows, strict=True))


def test_it_reads_the_response_alone_in_its_tag():
    system, user = discriminator_messages(" A cat.\n<b>")
    assert system == {"role": "system", "content": DISCRIMINATOR_SYSTEM}
    assert user == {"role": "user", "content": "<response> A cat.\n<b></response>"}
    assert "0 = teacher" in DISCRIMINATOR_SYSTEM
    assert "1 = student" in DISCRIMINATOR_SYSTEM
    assert (TEACHER_LABEL, STUDENT_LABEL) == (0.0, 1.0)


ORDINARY = ("A cat.", "", " \n\n", "x = 3\n", "<b>Ja</b>, \u56fe é", "[1, 2]<", "</response>")


def test_special_tokens_in_a_response_are_plain_text():
    tokenizer = AutoTokenizer.from_pretrained(nano_folder() / "restyled")
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}

    def chat(text):
        return tokenizer.apply_chat_template(discriminator_messages(text), tokenize=False)

    for text in ORDINARY:
        plain = tokenizer.encode(chat(text), add_special_tokens=False)
        assert discriminator_tokens(tokenizer, text) == plain
    marks = [token for token in plain if token in special]
    for text in ("It is 3.<|im_end|>", "<|image_pad|> or <|vision_start|>", "<|endoftext|>"):
        tokens = discriminator_tokens(tokenizer, text)
        assert [token for token in tokens if token in special] == marks, "those of the template"
        assert tokenizer.decode(tokens) == chat(text), "nothing is lost"


@given(st.lists(st.tuples(LOGITS, LOGITS), min_size=1, max_size=12))
def test_over_pairs_the_loss_is_minus_equation_1(pairs):
    equation = math.fsum(math.log(sigmoid(s)) + math.log(sigmoid(-t)) for s, t in pairs)
    equation /= len(pairs)
    student, teacher = (list(each) for each in zip(*pairs, strict=True))
    logits = torch.tensor(student + teacher, dtype=torch.float64)
    labels = torch.tensor([1.0] * len(pairs) + [0.0] * len(pairs), dtype=torch.float64)
    ones = torch.ones_like(labels)
    assert discriminator_loss(logits, labels, ones, len(pairs)).item() == pytest.approx(-equation)
    by_rows = discriminator_loss(logits, labels, ones, 2 * len(pairs)).item()
    assert by_rows == pytest.approx(-equation / 2)


@given(ROWS, st.floats(0.5, 50))
def test_value_and_gradient(rows, denominator):
    logits, labels, weights = columns(rows)
    logits.requires_grad_()
    loss = discriminator_loss(logits, labels, weights, denominator)
    loss.backward()
    expected = math.fsum(
        -w * (math.log(sigmoid(z)) if y else math.log(sigmoid(-z))) for z, y, w in rows
    )
    assert loss.item() == pytest.approx(expected / denominator)
    # d/dz of the cross-entropy is D - y.
    gradient = [w * (sigmoid(z) - y) / denominator for z, y, w in rows]
    torch.testing.assert_close(logits.grad, torch.tensor(gradient, dtype=torch.float64))


@given(ROWS, st.integers(0, 16))
def test_micro_batches_add_up(rows, cut):
    logits, labels, weights = columns(rows)
    parts = (slice(None, cut), slice(cut, None))
    total = max(weights.sum().item(), 1.0)
    loss = sum(discriminator_loss(logits[p], labels[p], weights[p], len(rows)) for p in parts)
    torch.testing.assert_close(loss, discriminator_loss(logits, labels, weights, len(rows)))
    right = sum(discriminator_accuracy(logits[p], labels[p], weights[p], total) for p in parts)
    torch.testing.assert_close(right, discriminator_accuracy(logits, labels, weights, total))


def test_at_half_the_loss_is_log_2():
    loss = discriminator_loss(torch.zeros(2), torch.tensor([0.0, 1.0]), torch.ones(2), 2)
    assert loss.item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_extreme_logits_stay_finite(dtype):
    logits = torch.tensor([1e4, -1e4, 1e4, -1e4], dtype=dtype, requires_grad=True)
    labels = torch.tensor([1.0, 0.0, 0.0, 1.0])
    loss = discriminator_loss(logits, labels, torch.ones(4), 4)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(5000, rel=0.01)
    assert logits.grad.tolist() == [0.0, 0.0, 0.25, -0.25]


def test_padding_counts_for_nothing_even_when_broken():
    logits = torch.tensor([2.0, torch.nan, torch.inf], requires_grad=True)
    labels, weights = torch.tensor([1.0, 1.0, 0.0]), torch.tensor([1.0, 0.0, 0.0])
    loss = discriminator_loss(logits, labels, weights, 1)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-2)))
    assert logits.grad[1:].tolist() == [0.0, 0.0]
    assert discriminator_accuracy(logits, labels, weights).item() == 1.0
    none = discriminator_loss(logits, labels, torch.zeros(3), 1)
    none.backward()
    assert none.item() == 0.0


def test_accuracy():
    # Right, wrong, right, wrong, and D of exactly 0.5 which is the student's side; NaN is wrong.
    logits = torch.tensor([3.0, -3.0, -3.0, 3.0, 0.0, 0.0, torch.nan])
    labels = torch.tensor([1.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0])
    assert discriminator_accuracy(logits, labels, torch.ones(7)).item() == pytest.approx(3 / 7)
    weights = torch.tensor([2.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0])
    assert discriminator_accuracy(logits, labels, weights).item() == pytest.approx(0.5)
    assert discriminator_accuracy(logits, labels, torch.zeros(7)).isnan()


def test_accuracy_agrees_with_the_reward_at_half():
    half, one = torch.zeros(1), torch.ones(1)
    assert discriminator_accuracy(half, torch.tensor([STUDENT_LABEL]), one).item() == 1.0
    assert discriminator_accuracy(half, torch.tensor([TEACHER_LABEL]), one).item() == 0.0


def test_what_does_not_fit_is_refused():
    good = torch.zeros(2)
    with pytest.raises(ValueError, match="denominator"):
        discriminator_loss(good, good, good, 0)
    with pytest.raises(ValueError, match="differ in shape"):
        discriminator_loss(good.unsqueeze(1), good, good, 2)
    with pytest.raises(ValueError, match="differ in shape"):
        discriminator_accuracy(good.unsqueeze(1), good, good)


def test_bradley_terry_is_gads_loss_and_its_gradient():
    """-log sigmoid(D(teacher) - D(student)), where D(y) is minus the logit; in float64."""
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 5, dtype=torch.float64, requires_grad=True)
    loss = bradley_terry_loss(student, teacher)
    scores = zip((-student).tolist(), (-teacher).tolist(), strict=True)
    naive = [-math.log(1 / (1 + math.exp(-(t - s)))) for s, t in scores]
    assert loss.item() == pytest.approx(sum(naive) / 5)
    expected = torch.autograd.grad(loss, (student, teacher))
    got = bradley_terry_gradient(student, teacher)
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-7)
    assert got[0].max() < 0 < got[1].min(), (
        "descent moves the student's logit up, the teacher's down"
    )


def test_a_question_that_is_read_is_a_turn_of_its_own():
    assert [turn["content"] for turn in discriminator_messages("B", "Which?")] == ["Which?", "B"]
    assert discriminator_messages("B")[0]["role"] == "system"
