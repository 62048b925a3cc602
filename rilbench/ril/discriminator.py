"""The discriminator D: what it reads, Equation 1, and GAD's loss in its place.

D is the student's own network with a scalar head on the last token; D = sigmoid(logit), towards 1
for a student's text and 0 for a teacher's. The network itself is the trainer's business.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

TEACHER_LABEL = 0.0
STUDENT_LABEL = 1.0

# The paper's Fig. 3 in our words: 0 is the teacher, 1 is the student, the response stands in a tag.
# Short, because it stands before every row that D reads.
DISCRIMINATOR_SYSTEM = "Who wrote the response? 0 = teacher, 1 = student."


def discriminator_messages(response: str, question: str = "") -> list[dict[str, str]]:
    """Return the chat that D reads: the response alone, neither image nor question (Fig. 3).

    The response goes in as it is, whitespace and all: its form is what D must see. GAD's D reads
    the question's text too, as the turn before.
    """
    if question:
        return [
            {"role": "user", "content": question},
            {"role": "assistant", "content": response},
        ]
    return [
        {"role": "system", "content": DISCRIMINATOR_SYSTEM},
        {"role": "user", "content": f"<response>{response}</response>"},
    ]


def discriminator_tokens(tokenizer: Any, response: str, question: str = "") -> list[int]:
    """Return the tokens of the chat that D reads.

    What looks like a special token in the response is plain text, as in the policy's batch: D must
    not know a teacher by a token that no student's text can have.

    Args:
        tokenizer: D's, of transformers.
        response: the response's text.
        question: the question's text, for a D that reads it.
    """
    messages = discriminator_messages(response, question)
    prompt = tokenizer.apply_chat_template(messages, tokenize=False)
    added = tokenizer.added_tokens_decoder.values()
    outside = question + response
    if not any(token.special and token.content in outside for token in added):
        return list(tokenizer.encode(prompt, add_special_tokens=False))
    tokens: list[int] = []
    rest = prompt
    for message in messages if question else messages[-1:]:
        before, content, rest = rest.partition(message["content"])
        tokens += tokenizer.encode(before, add_special_tokens=False)
        tokens += tokenizer.encode(content, add_special_tokens=False, split_special_tokens=True)
    return [*tokens, *tokenizer.encode(rest, add_special_tokens=False)]


def discriminator_loss(
    logits: Tensor, labels: Tensor, weights: Tensor, denominator: float
) -> Tensor:
    """Return Equation 1 negated: binary cross-entropy, student = 1 and teacher = 0.

    Equation 1 maximises (1/N) sum_i [log D(student_i) + log(1 - D(teacher_i))] over N pairs; each
    pair is two rows here, and the loss is (sum over rows of weight * cross-entropy) / denominator.
    With all weights 1, ``denominator`` = N pairs is exactly minus Equation 1, and ``denominator`` =
    2N rows is half of it. As the denominator is the whole batch's, micro-batches add up.

    Args:
        logits: (n,) of D before the sigmoid, any float type; computed from in at least float32.
        labels: (n,) of :data:`STUDENT_LABEL` and :data:`TEACHER_LABEL`.
        weights: (n,) at least 0; a row of weight 0 (padding) adds nothing, whatever its logit.
        denominator: pairs or rows of the whole batch, above 0.

    Returns:
        Scalar with gradient.

    Raises:
        ValueError: ``denominator`` is not above 0, or the shapes differ.
    """
    _check(logits, labels, weights, denominator)
    exact = torch.promote_types(logits.dtype, torch.float32)
    kept = logits.to(exact).masked_fill(weights == 0, 0.0)
    total = binary_cross_entropy_with_logits(
        kept, labels.to(exact), weight=weights.to(exact), reduction="sum"
    )
    return total / denominator


def discriminator_accuracy(
    logits: Tensor, labels: Tensor, weights: Tensor, denominator: float | None = None
) -> Tensor:
    """Return the weighted share of rows that D puts on the right side of 0.5.

    D of exactly 0.5 counts as "student", the side on which it earns no similarity reward.

    Args:
        logits: (n,) of D before the sigmoid.
        labels: (n,) of :data:`STUDENT_LABEL` and :data:`TEACHER_LABEL`.
        weights: (n,) at least 0.
        denominator: the weights' sum over the whole batch, so that micro-batches add up; by default
            over these rows.

    Returns:
        Scalar in 0..1 without gradient; NaN where all weights are 0, as there is nothing to count.

    Raises:
        ValueError: ``denominator`` is not above 0, or the shapes differ.
    """
    _check(logits, labels, weights, denominator)
    right = (logits.detach() >= 0) == (labels >= 0.5)
    right &= ~logits.isnan()
    exact = weights.to(torch.promote_types(weights.dtype, torch.float32))
    total = torch.where(right, exact, torch.zeros_like(exact)).sum()
    return total / (exact.sum() if denominator is None else denominator)


def bradley_terry_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return GAD's loss of D: the mean of -log sigmoid(teacher's score - student's score).

    The score that GAD writes D(y) is minus the logit here, so that a logit means the same in all
    methods: towards the student.

    Args:
        student: (n,) logits of the student's responses.
        teacher: (n,) logits of the teachers' responses to the same questions, in the same order.

    Returns:
        Scalar with gradient.
    """
    exact = torch.promote_types(student.dtype, torch.float32)
    return softplus(teacher.to(exact) - student.to(exact)).mean()


def bradley_terry_gradient(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradient of :func:`bradley_terry_loss` by each logit, (n,) and (n,).

    With it the two responses of a pair need not meet in one micro-batch or on one device: the sum
    of gradient times logit, over all rows, has the same gradient in D's weights.
    """
    wrong = torch.sigmoid((teacher - student).detach().float()) / len(student)
    return -wrong, wrong


def _check(logits: Tensor, labels: Tensor, weights: Tensor, denominator: float | None) -> None:
    if not logits.shape == labels.shape == weights.shape:
        raise ValueError(
            f"logits {tuple(logits.shape)}, labels {tuple(labels.shape)} and weights "
            f"{tuple(weights.shape)} differ in shape; give one of each for every row"
        )
    if denominator is not None and not denominator > 0:
        raise ValueError(f"denominator is {denominator}; give the whole batch's number of rows")
