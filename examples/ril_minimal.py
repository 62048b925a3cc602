"""RIL in one file: Algorithm 2 on the nano student in plain PyTorch, to be read from top to bottom.

The equations are `rilbench.ril`'s, the same that the verl trainer calls. What this file leaves out:
Ray, verl, vLLM, servers, several devices, checkpoints, resuming, mu > 1. A test compares it with
the verl trainer: same responses and same discriminator logits, same rewards, advantages, loss and
gradient (`tests/examples/test_ril_minimal.py`).

It needs the teachers' saved responses, which are collected once:

    rilbench train --recipe both --student nano --run demo --collect-only
    python examples/ril_minimal.py runs/demo/collection --steps 30
"""

from __future__ import annotations

import argparse
import io
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from transformers import AutoModelForImageTextToText, AutoProcessor

from rilbench.data.question import Question
from rilbench.data.question_files import read_questions
from rilbench.judge.rules import is_right
from rilbench.paths import locate
from rilbench.ril.discriminator import discriminator_loss, discriminator_tokens
from rilbench.ril.methods import METHODS
from rilbench.ril.policy import PolicyLoss, policy_loss
from rilbench.ril.step import score_step
from rilbench.train.verl.discriminator_model import load_discriminator

# recipes/students/nano.yaml: the paper's values but for the learning rates, as the student is
# 7,000 times smaller than the paper's.
G, PROMPTS_PER_STEP = 4, 16
CLIP_EPS, KL_COEF, LENGTH_SCALE = 0.2, 0.01, 20.0
POLICY_LR, DISCRIMINATOR_LR, WEIGHT_DECAY, MAX_GRAD_NORM = 2e-4, 1e-4, 0.01, 1.0
PRETRAIN_STEPS, PRETRAIN_BATCH_SIZE, PRETRAIN_LR = 20, 128, 2e-4
MAX_TOKENS = 48
SAMPLING = {"temperature": 1.0, "top_p": 0.95, "top_k": 50, "repetition_penalty": 1.05}  # App. C
TEACHERS = ("72b", "78b")


@dataclass
class Models:
    """The three networks of RIL, and what turns text and images into their inputs."""

    processor: Any
    policy: Any
    reference: Any
    """The student as it was before training: the policy is kept near it by the KL."""
    discriminator: Any
    """The student's own decoder with a scalar head; reads text, no image."""

    @property
    def tokenizer(self) -> Any:
        """The student's tokenizer."""
        return self.processor.tokenizer


def load_models(student: str) -> Models:
    """Load a student's checkpoint three times: to train, to keep, and to tell who wrote a text."""
    processor = AutoProcessor.from_pretrained(student)
    processor.tokenizer.padding_side = "left"
    policy, reference = (
        AutoModelForImageTextToText.from_pretrained(student, dtype=torch.float32) for _ in range(2)
    )
    discriminator = load_discriminator(student, dtype=torch.float32, attention="sdpa")
    # None of them has dropout or batch statistics: train() would change nothing.
    return Models(processor, policy.eval(), reference.eval(), discriminator.eval())


def prompt_inputs(models: Models, questions: Sequence[Question]) -> dict[str, Tensor]:
    """The model's inputs for one prompt per question, padded on the left."""
    texts = [
        models.processor.apply_chat_template(q.chat, tokenize=False, add_generation_prompt=True)
        for q in questions
    ]
    images = [Image.open(io.BytesIO(image)) for q in questions for image in q.images]
    return dict(models.processor(text=texts, images=images, return_tensors="pt", padding=True))


@torch.no_grad()
def sample(models: Models, questions: Sequence[Question]) -> list[list[int]]:
    """One response of the policy to each question, as tokens that end with the end token."""
    inputs = prompt_inputs(models, questions)
    tokens = models.policy.generate(**inputs, **SAMPLING, max_new_tokens=MAX_TOKENS, do_sample=True)
    responses = []
    for row in tokens[:, inputs["input_ids"].shape[1] :].tolist():
        end = models.tokenizer.eos_token_id
        responses.append(row[: row.index(end) + 1] if end in row else row)
    return responses


def as_student_tokens(models: Models, response: str) -> list[int]:
    """A teacher's response in the student's tokens: Equation 2 needs π(o) of teacher text, too."""
    tokens = models.tokenizer.encode(response, add_special_tokens=False, split_special_tokens=True)
    return [*tokens, models.tokenizer.eos_token_id][:MAX_TOKENS]


def response_log_probs(
    models: Models, model: Any, questions: Sequence[Question], responses: Sequence[list[int]]
) -> tuple[Tensor, Tensor]:
    """log π(o | q) token by token.

    Returns:
        (N, T) log-probabilities, and the mask of the positions that are response tokens.
    """
    inputs = prompt_inputs(models, questions)
    longest = max(map(len, responses))
    pad = models.tokenizer.pad_token_id
    tokens = torch.tensor([r + [pad] * (longest - len(r)) for r in responses])
    mask = torch.arange(longest) < torch.tensor([[len(r)] for r in responses])
    # The responses follow the prompts: [pad … prompt | response … pad].
    extra = {"input_ids": tokens, "attention_mask": mask.long()}
    extra |= {"mm_token_type_ids": torch.zeros_like(tokens)}  # a response has no image tokens
    inputs |= {k: torch.cat([inputs[k], v], 1) for k, v in extra.items() if k in inputs}
    # The logits at a position say what comes next, so those of o_t are one position earlier.
    logits = model(**inputs).logits[:, -longest - 1 : -1]
    return logits.log_softmax(-1).gather(-1, tokens[..., None])[..., 0], mask


def discriminator_logits(models: Models, responses: Sequence[str]) -> Tensor:
    """(N,) logits of D, which reads the response alone: neither question nor image (Fig. 3)."""
    ids = [discriminator_tokens(models.tokenizer, response) for response in responses]
    inputs = models.tokenizer.pad({"input_ids": ids}, return_tensors="pt")
    mask = inputs["attention_mask"]
    positions = (mask.cumsum(-1) - 1).clamp(min=0)  # padding on the left must not shift a text
    output = models.discriminator(inputs["input_ids"], attention_mask=mask, position_ids=positions)
    return output.logits[:, -1, 0]


def update_discriminator(
    models: Models, optimizer: torch.optim.Optimizer, responses: Sequence[str], is_student: Tensor
) -> None:
    """One step of Equation 1: towards 1 for the student's responses and 0 for the teachers'."""
    n = len(responses)
    logits = discriminator_logits(models, responses)
    loss = discriminator_loss(logits, is_student.float(), torch.ones(n), denominator=n)
    optimizer.zero_grad()
    loss.backward()
    clip_grad_norm_(models.discriminator.parameters(), MAX_GRAD_NORM)
    optimizer.step()


def policy_objective(
    models: Models,
    questions: Sequence[Question],
    responses: Sequence[list[int]],
    advantages: Tensor,
) -> PolicyLoss:
    """Equation 2 negated, over the student's and the teachers' responses alike."""
    log_prob, mask = response_log_probs(models, models.policy, questions, responses)
    with torch.no_grad():
        ref_log_prob, _ = response_log_probs(models, models.reference, questions, responses)
    # With one update a step (mu = 1), π_old is the policy of this very forward: the ratio is 1 and
    # its gradient is the policy gradient. old_log_prob=None says so.
    return policy_loss(
        log_prob,
        None,
        ref_log_prob,
        advantages,
        mask,
        clip_eps=CLIP_EPS,
        kl_coef=KL_COEF,
        length_scale=LENGTH_SCALE,
        num_responses=len(responses),
    )


def read_collection(folder: Path) -> tuple[list[str], dict[str, dict[str, list[str]]]]:
    """The student's saved responses, and the teachers': question id -> teacher -> responses."""
    (own,) = folder.glob("student*.parquet")  # a shared folder has one for each student
    student = pq.read_table(own).column("response").to_pylist()
    saved: dict[str, dict[str, list[str]]] = {}
    for teacher in TEACHERS:
        for row in pq.read_table(folder / f"{teacher}.parquet").to_pylist():
            if row["response"]:  # None where the teacher's server failed
                by_teacher = saved.setdefault(row["question_id"], {})
                by_teacher.setdefault(teacher, []).append(row["response"])
    return [response for response in student if response], saved


def train(collection: Path, steps: int, seed: int = 0) -> Models:
    """Algorithm 2, from the pre-training of the discriminator to the last step."""
    torch.manual_seed(seed)
    sampler = random.Random(seed)
    models = load_models(str(locate("nano:restyled")))
    policy_optimizer = torch.optim.AdamW(
        models.policy.parameters(), lr=POLICY_LR, weight_decay=WEIGHT_DECAY
    )
    discriminator_optimizer = torch.optim.AdamW(
        models.discriminator.parameters(), lr=PRETRAIN_LR, weight_decay=WEIGHT_DECAY
    )
    student_saved, saved = read_collection(collection)
    questions = [
        q
        for q in read_questions(locate("nano:prompts.parquet"))
        if all(len(saved.get(q.id, {}).get(t, [])) >= G // 2 for t in TEACHERS)
    ]

    # Before the loop: pre-train D, so that its first rewards already mean something.
    teacher_saved = [r for by_teacher in saved.values() for rs in by_teacher.values() for r in rs]
    half = PRETRAIN_BATCH_SIZE // 2
    for _ in range(PRETRAIN_STEPS):
        texts = sampler.choices(student_saved, k=half) + sampler.choices(teacher_saved, k=half)
        update_discriminator(models, discriminator_optimizer, texts, torch.arange(2 * half) < half)
    discriminator_optimizer.param_groups[0]["lr"] = DISCRIMINATOR_LR

    for step in range(1, steps + 1):
        batch = sampler.sample(questions, PROMPTS_PER_STEP)

        # 1. The student samples G responses to each question; the teachers' G saved ones join
        #    them, half from each teacher. The 2G responses to a question are one group.
        asked = [q for q in batch for _ in range(G)]
        sampled = sample(models, asked)
        from_teachers = [
            response
            for q in batch
            for teacher in TEACHERS
            for response in sampler.sample(saved[q.id][teacher], G // 2)
        ]
        tokens = sampled + [as_student_tokens(models, r) for r in from_teachers]
        texts = models.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        asked = asked * 2
        group = torch.arange(PROMPTS_PER_STEP).repeat_interleave(G).repeat(2)
        is_student = torch.arange(len(tokens)) < len(sampled)

        # 2. Update the discriminator by Equation 1, before it rewards anything.
        update_discriminator(models, discriminator_optimizer, texts, is_student)

        # 3. Rewards, 1[D < 0.5] + judge, and advantages: the reward minus its group's mean.
        with torch.no_grad():
            logits = discriminator_logits(models, texts)
        verdicts = [float(is_right(q.answer, r)) for q, r in zip(asked, texts, strict=True)]
        signal = score_step(logits, torch.tensor(verdicts), group, is_student, METHODS["ril"])

        # 4. Update the policy by Equation 2.
        result = policy_objective(models, asked, tokens, signal.learned_advantage)
        policy_optimizer.zero_grad()
        result.loss.backward()
        clip_grad_norm_(models.policy.parameters(), MAX_GRAD_NORM)
        policy_optimizer.step()

        answer, similarity = signal.answer_reward, signal.similarity_reward
        print(
            f"step {step}  answer {answer[is_student].mean():.2f}/{answer[~is_student].mean():.2f}"
            f"  similarity {similarity[is_student].mean():.2f}/{similarity[~is_student].mean():.2f}"
            f"  KL {result.kl:.4f}  tokens {sum(map(len, sampled)) / len(sampled):.1f}",
            flush=True,
        )
    return models


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("collection", type=Path, help="folder of a run's saved responses")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    train(arguments.collection, arguments.steps, arguments.seed)
