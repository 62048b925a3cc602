"""Measures what the worked style is worth to each model before training (docs/findings.md)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rilbench.errors import UserError
from rilbench.lab.lab_paths import LabPaths

if TYPE_CHECKING:
    from rilbench.nano.question import SyntheticQuestion

QUESTIONS = 40
"""Questions of each benchmark."""
SEED = 52
OPENING = 3
"""Words of the worked answer that the model is given: "The top row"."""
MODELS = ("restyled", "independent", "72b", "78b")

Styles = dict[str, dict[str, float]]
"""model → ``right`` and ``digits`` of free answers, ``opened_…`` of answers with an opening."""


def measure_styles(paths: LabPaths, report: Callable[[str], None]) -> Path:
    """Sample each model on questions of the dev pool and write ``styles.json``.

    Every model answers the same questions twice: freely, and continuing the first words of the
    worked answer.
    """
    from rilbench.nano.model import load
    from rilbench.paths import nano_folder

    styles: dict[str, Any] = {"command": "rilbench lab styles", "questions": QUESTIONS}
    styles["seed"] = SEED
    for name in MODELS:
        report(name)
        styles[name] = _measure(*load(nano_folder() / name))
    paths.styles.parent.mkdir(parents=True, exist_ok=True)
    paths.styles.write_text(json.dumps(styles, indent=1) + "\n", encoding="utf-8")
    return paths.styles


def _measure(model: Any, processor: Any) -> dict[str, float]:
    from rilbench.judge.rules import is_right
    from rilbench.nano.quick_eval import answer_questions, can_be_opened, digits_read, worked_share

    def ask(opening: int) -> list[tuple[SyntheticQuestion, str]]:
        answered = answer_questions(
            model,
            processor,
            pool="dev",
            questions=QUESTIONS,
            seed=SEED,
            temperature=1.0,
            opening=opening,
        )
        return [(question, text) for question, text in answered if can_be_opened(question, OPENING)]

    free, opened = ask(0), ask(OPENING)
    shares: dict[str, float] = {"worked_share": round(worked_share(free), 3)}
    for prefix, answered in (("", free), ("opened_", opened)):
        right = [is_right(question.accepted, text) for question, text in answered]
        shares[f"{prefix}right"] = round(sum(right) / len(right), 3)
        shares[f"{prefix}digits"] = round(digits_read(answered), 3)
    return shares


def read_styles(path: Path) -> Styles:
    """Read ``styles.json``; empty when it was not measured.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        styles = json.loads(path.read_text(encoding="utf-8"))
        return {name: styles[name] for name in MODELS}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} cannot be read ({error}); run: rilbench lab styles") from error
