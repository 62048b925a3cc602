"""What the worked style is worth to each model, before any training (docs/findings.md)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rilbench.errors import UserError
from rilbench.lab.lab_paths import Places

if TYPE_CHECKING:
    from rilbench.nano.question import Question

QUESTIONS = 40
"""Of each family."""
SEED = 52
OPENING = 3
"""Words of the worked answer that the model is given: "The top row"."""
MODELS = ("restyled", "independent", "72b", "78b")

Styles = dict[str, dict[str, float]]
"""model → ``right`` and ``digits`` by itself, ``opened_…`` when it is given the words."""


def measure_styles(places: Places, report: Callable[[str], None]) -> Path:
    """Sample each model on fresh questions of the dev pool and write ``styles.json``.

    Every model answers the same questions twice: as it likes, and going on from the first words of
    the worked answer.
    """
    from rilbench.nano.model import load
    from rilbench.paths import nano_folder

    found: dict[str, Any] = {"command": "rilbench lab styles", "questions": QUESTIONS, "seed": SEED}
    for name in MODELS:
        report(name)
        found[name] = _measure(*load(nano_folder() / name))
    places.styles.parent.mkdir(parents=True, exist_ok=True)
    places.styles.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return places.styles


def _measure(model: Any, processor: Any) -> dict[str, float]:
    from rilbench.judge.rules import is_right
    from rilbench.nano.quick_eval import answers, can_be_opened, digits_read, worked_share

    def ask(opening: int) -> list[tuple[Question, str]]:
        found = answers(
            *(model, processor),
            pool="dev",
            questions=QUESTIONS,
            seed=SEED,
            temperature=1.0,
            opening=opening,
        )
        return [(question, text) for question, text in found if can_be_opened(question, OPENING)]

    free, opened = ask(0), ask(OPENING)
    out: dict[str, float] = {"worked_share": round(worked_share(free), 3)}
    for name, answered in (("", free), ("opened_", opened)):
        right = [is_right(question.accepted, text) for question, text in answered]
        out[f"{name}right"] = round(sum(right) / len(right), 3)
        out[f"{name}digits"] = round(digits_read(answered), 3)
    return out


def read_styles(path: Path) -> Styles:
    """Read ``styles.json``; empty when it was not measured.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {name: found[name] for name in MODELS}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} cannot be read ({error}); run: rilbench lab styles") from error
