"""Judges that decide by code: the rules, the parser, and functions of the user's.

A judge is one function ``(question, reference, response)`` that returns 1 (right), 0 (wrong) or
None (no verdict). It is in a file, ``FILE.py:FUNCTION``, or a package offers it by an entry point
in the group ``rilbench.judges``. Its name goes into ``judge.model`` of a recipe or
``rilbench eval --judge``. `rilbench.judge.server` serves it on the loopback, so that the trainer
and the kits ask it as they ask a language model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import SupportsFloat

from rilbench.errors import UserError
from rilbench.extras import require
from rilbench.judge.rules import grade, is_right
from rilbench.plugins import load_function, load_plugins

JudgeFunction = Callable[[str, str, str], float | None]
"""Question, reference and response to 1 (right), 0 (wrong) or None (no verdict)."""

JUDGES_GROUP = "rilbench.judges"
"""Entry points of judges."""

RULE = "rule"
"""Name of the built-in judge, `rilbench.judge.rules`."""

PARSER = "parser"
"""Name of the built-in judge that compares by math-verify, `rilbench.judge.parser`."""

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
    built_in = [RULE, PARSER]
    return [*built_in, *sorted({p.name for p in entry_points(group=JUDGES_GROUP)} - {*built_in})]


def decides_by_code(name: str) -> bool:
    """Whether a name is one of `judge_names`, or ``FILE.py:FUNCTION``; else a language model's."""
    return _is_in_file(name) or name in judge_names()


def _is_in_file(name: str) -> bool:
    return name.rpartition(":")[0].endswith(".py")


def find_judge(name: str) -> CodeJudge:
    """Return a judge; a plug-in or function of the user's only after it judged one response.

    Raises:
        UserError: no judge has this name; the parser's package is missing; or a function cannot
            be imported, raises, or returns something that is no verdict.
    """
    if name == RULE:
        return RULES
    if name == PARSER:
        return _parser()
    judge = _in_file(name) if _is_in_file(name) else _plug_in(name)
    try:
        judge.decide("What is 1 + 1?", "2", "1 + 1 is 2.")
    except ValueError as error:
        raise UserError(str(error)) from error
    return judge


def _parser() -> CodeJudge:
    require("parser", f"the judge {PARSER}")
    from rilbench.judge import parser

    return CodeJudge(
        PARSER,
        parser.parser_judge(),
        decide=lambda question, reference, response: float(
            parser.is_right(question, reference, response)
        ),
        grade=RULES.grade,
    )


def _in_file(name: str) -> CodeJudge:
    """The judge of a file; the name under which it is recorded has a hash of the file."""
    path, _, function = name.rpartition(":")
    file = Path(path)
    decide = _checked(repr(name), load_function(file, function, f"judge {name}"), f"fix {file}")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:8]
    return CodeJudge(name, f"{file.name}:{function}-{digest}", decide, decide)


def _plug_in(name: str) -> CodeJudge:
    plugins = load_plugins(JUDGES_GROUP)
    if name not in plugins:
        raise UserError(
            f"unknown judge {name!r}; choose from {', '.join(judge_names())}, name a function of "
            "yours as FILE.py:FUNCTION, or give the address of a language model (judge.url=URL, "
            "--judge MODEL@URL)"
        )
    (point,) = entry_points(group=JUDGES_GROUP, name=name)
    package, version = (point.dist.name, point.dist.version) if point.dist else ("unknown", "0")
    decide = _checked(f"{name!r} of {package}", plugins[name], f"fix or uninstall {package}")
    return CodeJudge(name, f"{package}/{name}-{version}", decide, decide)


def _checked(name: str, function: JudgeFunction, remedy: str) -> JudgeFunction:
    """Return a function, with ValueError for whatever it does that is not a verdict."""

    def decide(question: str, reference: str, response: str) -> float | None:
        try:
            value = function(question, reference, response)
            verdict = float(value) if isinstance(value, SupportsFloat) else value
        except Exception as error:  # noqa: BLE001 - a function of the user's may raise anything
            said = f"raised {type(error).__name__}: {error}"
        else:
            if verdict is None or verdict in (0.0, 1.0):
                return verdict
            said = f"returned {value!r}"
        raise ValueError(
            f"judge {name} {' '.join(said.split())[:120]}; a judge returns 1, 0 or None: {remedy}"
        )

    return decide
