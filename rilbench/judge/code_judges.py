"""Judges that decide by code: the built-in rules, and functions of other installed packages.

A judge is one function ``(question, reference, response)`` that returns 1 (right), 0 (wrong) or
None (no verdict). A package offers one by an entry point in the group ``rilbench.judges``; its name
goes into ``judge.model`` of a recipe or ``rilbench eval --judge``. `rilbench.judge.server` serves
it on the loopback, so that the trainer and the kits ask it as they ask a language model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points

from rilbench.errors import UserError
from rilbench.judge.rules import grade, is_right
from rilbench.plugins import load_plugins

JudgeFunction = Callable[[str, str, str], float | None]
"""Question, reference and response to 1 (right), 0 (wrong) or None (no verdict)."""

JUDGES_GROUP = "rilbench.judges"
"""Entry points of judges."""

RULE = "rule"
"""Name of the built-in judge, `rilbench.judge.rules`."""

RULE_JUDGE = "rilbench-rule-judge-1"
"""Name under which the rules are served; the number goes up whenever a rule changes a verdict."""


@dataclass(frozen=True)
class CodeJudge:
    """A judge that decides by code.

    Attributes:
        name: what ``judge.model`` and ``--judge`` call it.
        model: the name under which it is served and recorded; it holds the version.
        decide: its verdict; raises ValueError where it cannot decide.
        grade: its grade for MM-Vet's prompt, from 0 to 1: the rules give partial credit.
    """

    name: str
    model: str
    decide: JudgeFunction
    grade: JudgeFunction


RULES = CodeJudge(
    RULE,
    RULE_JUDGE,
    decide=lambda question, reference, response: float(is_right(reference, response)),
    grade=lambda question, reference, response: grade(reference, response),
)
"""The built-in rules."""


def judge_names() -> list[str]:
    """Return the names of all judges that decide by code; no plug-in is imported."""
    return [RULE, *sorted({point.name for point in entry_points(group=JUDGES_GROUP)} - {RULE})]


def find_judge(name: str) -> CodeJudge:
    """Return a judge, a plug-in only after it has judged one response.

    Raises:
        UserError: no judge has this name; or the plug-in cannot be imported, is no function, or
            returns something that is no verdict.
    """
    if name == RULE:
        return RULES
    plugins = load_plugins(JUDGES_GROUP)
    if name not in plugins:
        raise UserError(
            f"unknown judge {name!r}; choose from {', '.join(judge_names())}, or give the address "
            "of a language model (judge.url=URL, --judge MODEL@URL)"
        )
    (point,) = entry_points(group=JUDGES_GROUP, name=name)
    package, version = (point.dist.name, point.dist.version) if point.dist else ("unknown", "0")
    decide = _checked(name, package, plugins[name])
    judge = CodeJudge(name, f"{package}/{name}-{version}", decide, decide)
    try:
        judge.decide("What is 1 + 1?", "2", "1 + 1 is 2.")
    except ValueError as error:
        raise UserError(str(error)) from error
    return judge


def _checked(name: str, package: str, function: JudgeFunction) -> JudgeFunction:
    """Return the function of a plug-in, with ValueError for whatever is not a verdict."""

    def decide(question: str, reference: str, response: str) -> float | None:
        try:
            value = function(question, reference, response)
        except Exception as error:  # noqa: BLE001 - a plug-in may raise anything
            said = f"raised {type(error).__name__}: {error}"
        else:
            if value is None:
                return None
            if isinstance(value, int | float) and value in (0, 1):
                return float(value)
            said = f"returned {value!r}"
        raise ValueError(
            f"judge {name!r} of {package} {' '.join(said.split())[:80]}; a judge returns 1, 0 or "
            f"None: fix or uninstall {package}"
        )

    return decide
