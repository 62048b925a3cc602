"""The regimes of the laboratory: where the student stands, and what its teachers know.

A method is compared within a regime. Each model is made from a shipped one in about a minute: noise
on its decoder takes skill away, a short SFT on generated answers gives it a style and some back.
The digits of these questions are those of no other purpose.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from torch.nn.utils import clip_grad_norm_

from rilbench.checkpoint import Labels, write_labels
from rilbench.data.question import Question
from rilbench.lab.fast.prompts import Student
from rilbench.nano.build import WEAK_72B, WEAK_78B
from rilbench.nano.digits import pools
from rilbench.nano.question import SyntheticQuestion
from rilbench.nano.tasks import STAND_INS, make_question
from rilbench.paths import locate

BATCH_SIZE = 48
STYLES = ("worked", "rephrased", "bare")

Say = Callable[[str], None]


@dataclass(frozen=True)
class Made:
    """How a model is made from a shipped one.

    Attributes:
        base: the shipped model.
        noise: Gaussian noise on each matrix of the decoder, as a share of the matrix's own
            standard deviation; the embedding has none.
        steps: of SFT after it.
        lr: learning rate of these steps; it falls to a tenth.
        styles: share of the answers in each of `STYLES`.
        misread: share of the pictures that are read wrongly, by benchmark.
    """

    base: str
    noise: float = 0.0
    steps: int = 0
    lr: float = 5e-4
    styles: Mapping[str, float] = field(default_factory=lambda: {"worked": 1.0})
    misread: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0


@dataclass(frozen=True)
class Regime:
    """One of the laboratory's situations.

    Attributes:
        name: as in the experiment files.
        about: what it stands for, in one sentence.
        student: where the student starts.
        teachers: by the names in recipes.
        settings: what differs from the nano student's recipe, such as a judge that errs.
    """

    name: str
    about: str
    student: Made
    teachers: Mapping[str, Made]
    settings: Mapping[str, float] = field(default_factory=dict)


_SHIPPED = {"72b": Made("72b"), "78b": Made("78b")}
_PAPER_START = Made("72b", noise=0.6, steps=24, styles={"rephrased": 0.8, "worked": 0.2}, seed=11)


def _errs(share: float) -> dict[str, float]:
    return {"judge.false_positive_rate": share, "judge.false_negative_rate": share}


REGIMES = {
    regime.name: regime
    for regime in (
        Regime(
            "paper",
            "The paper's distance: an SFT'ed student behind teachers of another phrasing.",
            _PAPER_START,
            _SHIPPED,
        ),
        Regime(
            "format",
            "The student knows the tasks and never samples the teachers' form.",
            Made("restyled"),
            _SHIPPED,
        ),
        Regime(
            "complementary",
            "Each teacher is right where the other is wrong.",
            _PAPER_START,
            {
                "72b": Made("72b", steps=60, misread=dict.fromkeys(WEAK_72B, 1.0), seed=21),
                "78b": Made("78b", steps=60, misread=dict.fromkeys(WEAK_78B, 1.0), seed=22),
            },
        ),
        Regime(
            "judge-errs-10",
            "As paper, with a judge that errs in 10 %.",
            _PAPER_START,
            _SHIPPED,
            _errs(0.1),
        ),
        Regime(
            "judge-errs-30",
            "As paper, with a judge that errs in 30 %.",
            _PAPER_START,
            _SHIPPED,
            _errs(0.3),
        ),
        Regime(
            "graded-style",
            "One teacher answers as the student does: a teacher's text is not always the better.",
            Made("restyled"),
            {"72b": Made("72b"), "78b": Made("72b", steps=60, styles={"bare": 1.0}, seed=31)},
        ),
    )
}


def regime_folder(regime: Regime, root: Path, say: Say) -> Path:
    """Return the folder of a regime's models, ``student`` and the teachers'; made on first use."""
    folder = root / regime.name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{regime.name}.lock")):
        if not folder.exists():
            part = folder.with_name(f".{regime.name}.part")
            shutil.rmtree(part, ignore_errors=True)
            for name, made in {"student": regime.student, **regime.teachers}.items():
                say(f"{regime.name}: making {name}")
                make_model(made, part / name, regime.name if name == "student" else name)
            part.rename(folder)
    return folder


def make_model(made: Made, folder: Path, label: str) -> None:
    """Make a model and write its checkpoint."""
    torch.set_num_threads(1)
    student = Student(locate(f"nano:{made.base}"))
    if made.noise:
        _add_noise(student, made.noise, made.seed)
    if made.steps:
        _learn(student, made)
    student.save(folder)
    write_labels(folder, Labels(student=f"nano-{label}", method="base", teacher="none"))


def _add_noise(student: Student, share: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in student.model.named_parameters():
            if "language_model.layers" in name and weight.ndim == 2:
                noise = torch.randn(weight.shape, generator=generator)
                weight += share * weight.std() * noise


def _learn(student: Student, made: Made) -> None:
    """SFT on answers to generated questions."""
    parameters = list(student.model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=made.lr, weight_decay=0.01)
    for step, (questions, answers) in enumerate(_batches(made)):
        for group in optimizer.param_groups:
            group["lr"] = made.lr * (1 - 0.9 * step / max(1, made.steps - 1))
        tokens = [
            [*student.tokenizer.encode(answer, add_special_tokens=False), student.end]
            for answer in answers
        ]
        rows = torch.arange(len(tokens))
        log_probs, mask = student.log_probs(student.read(questions), rows, tokens)
        optimizer.zero_grad()
        (-log_probs.sum() / mask.sum()).backward()  # type: ignore[no-untyped-call]
        clip_grad_norm_(parameters, 1.0)
        optimizer.step()


def _batches(made: Made) -> Iterator[tuple[list[Question], list[str]]]:
    rng = np.random.default_rng([made.seed, 7])
    pool, benchmarks = pools()["pretrain"], tuple(STAND_INS)
    styles = np.array([made.styles.get(style, 0.0) for style in STYLES])
    for step in range(made.steps):
        questions, answers = [], []
        for number in range(BATCH_SIZE):
            benchmark = benchmarks[int(rng.integers(len(benchmarks)))]
            misread = made.misread.get(benchmark, 0.0)
            picture, question = make_question(benchmark, pool, rng, misread=misread)
            name = f"{step}-{number}"
            asked = Question(name, picture.images, question.prompt, question.accepted, benchmark)
            questions.append(asked)
            answers.append(styled(question, STYLES[int(rng.choice(len(STYLES), p=styles))]))
        yield questions, answers


def styled(question: SyntheticQuestion, style: str) -> str:
    """An answer in one of `STYLES`; ``rephrased`` is the worked one in other sentences."""
    if style == "bare":
        return question.bare
    if style == "worked":
        return question.worked
    steps = question.worked.replace("。", ".").split(". ")
    *seen, answer = [step[:1].lower() + step[1:] for step in steps]
    answer = answer[:1].upper() + answer[1:] if answer.startswith("answer") else answer
    return "; ".join([*seen, answer])
