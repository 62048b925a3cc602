"""The regimes of the lab: where the student stands, and what its teachers know.

A method is compared within a regime. Each model is made from a shipped one in about a minute: noise
on its decoder takes skill away, a short SFT on generated answers gives it a style and some back.
The digits of these answers are those on which the shipped models were trained.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rilbench.nano.build import WEAK_72B, WEAK_78B

STYLES = ("worked", "rephrased", "bare")
RECIPE_STUDENT = "nano"
"""The student's recipe whose settings every regime starts from."""


@dataclass(frozen=True)
class Made:
    """How a model is made from a shipped one.

    Attributes:
        base: the shipped model.
        layers: decoder layers that it keeps, the first ones; 0: all.
        noise: Gaussian noise on each matrix of the decoder, as a share of the matrix's own
            standard deviation; the embedding has none.
        steps: of SFT after it.
        lr: learning rate of these steps; it falls to a tenth.
        styles: share of the answers in each of `STYLES`.
        blind: benchmarks that it learns to answer without looking: the answers are to other
            pictures. Pictures that are misread now and then would not do: at temperature 0 their
            errors average out.
    """

    base: str
    layers: int = 0
    noise: float = 0.0
    steps: int = 0
    lr: float = 5e-4
    styles: Mapping[str, float] = field(default_factory=lambda: {"worked": 1.0})
    blind: tuple[str, ...] = ()
    seed: int = 0


@dataclass(frozen=True)
class Regime:
    """One of the lab's situations.

    Attributes:
        name: as in the experiment files.
        about: what it stands for, in one sentence.
        student: where the student starts.
        teachers: by the names in recipes.
        judge: settings of its judge, for the methods that have an answer reward.
    """

    name: str
    about: str
    student: Made
    teachers: Mapping[str, Made]
    judge: Mapping[str, float] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Eight hex digits over how it is made: another number is another regime."""
        models = {"student": self.student, **self.teachers}
        made = {name: _not_default(model) for name, model in models.items()} | dict(self.judge)
        return hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()[:8]

    def folder(self, root: Path) -> Path:
        """The folder of its models, below that of all regimes."""
        return root / f"{self.name}-{self.digest}"

    def recipe_settings(self, folder: Path) -> dict[str, Any]:
        """Groups of a recipe's settings: the regime's models, which are in ``folder``."""
        models = {name: str(folder / name) for name in self.teachers}
        student = {"name": self.name, "model": str(folder / "student")}
        return {"student": student, "teachers": {"models": models}}


def _not_default(made: Made) -> dict[str, Any]:
    """What says how it is made: a new attribute does not change the older regimes."""
    default = Made(made.base)
    values = dataclasses.asdict(made)
    return {"base": made.base} | {k: v for k, v in values.items() if v != getattr(default, k)}


_SHIPPED = {"72b": Made("72b"), "78b": Made("78b")}
_PAPER_START = Made(
    "72b", noise=0.3, steps=24, lr=1e-3, styles={"rephrased": 0.8, "worked": 0.2}, seed=11
)


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
            "knowledge",
            "The teachers are larger than the student: they are better by ability, not by style.",
            Made("72b", layers=2, steps=90, lr=1e-3, seed=41),
            _SHIPPED,
        ),
        Regime(
            "complementary",
            "Each teacher is right where the other is wrong.",
            _PAPER_START,
            {
                "72b": Made("72b", steps=80, lr=1e-3, blind=WEAK_72B, seed=21),
                "78b": Made("78b", steps=80, lr=1e-3, blind=WEAK_78B, seed=22),
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
