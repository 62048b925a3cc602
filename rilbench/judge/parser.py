r"""The judge ``parser``: reads the forms in which answers are written and compares by math-verify.

It is what the field calls a parser or a verifier, and what the paper's Table 5e compares with a
language model. `rilbench.judge.answers` finds the answer that a response gives. An option is
compared by its letter; a number or formula by math-verify (fractions, LaTeX, percent), with its
unit by sympy (120 mm are 12 cm); anything else word for word.
"""

from __future__ import annotations

import re
from functools import lru_cache
from importlib.metadata import version
from typing import Any, NamedTuple

from rilbench.judge import rules
from rilbench.judge.answers import (
    chosen_option,
    normalized,
    option_and_text,
    options_of,
    stated_answer,
    without_latex,
)

_SECONDS = 2
"""Time for one formula; what takes longer is not equal. math-verify takes whole seconds."""
_LONGEST = 300
"""Characters of a formula; an answer's is shorter, and parsing takes more than linear time."""

_NUMBER = r"(?:-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|-?\.\d+)(?:e[+-]?\d+)?"
_QUANTITY = re.compile(
    rf"[$€£¥]?(?P<number>{_NUMBER})\s*(?P<unit>%|°?[^\W\d_]*)(?:\^?(?P<power>[23²³]))?", re.I
)
_QUANTITY_WITHIN = re.compile(rf"(?<![\w.,:/-]){_QUANTITY.pattern}(?![\d/:-])", re.I)
_DIGITS = re.compile(r"\d[\d.,]*")
_EXPONENT = re.compile(r"(?<=[\d.])e([+-]?\d+)\b", re.I)
_ROOT = re.compile(r"(?:√|(?<!\\)sqrt)\s*(?:\(([^()]*)\)|(\w+))")
_VARIABLE = re.compile(r"-?[\d.]+[abknpqrtuvwxyz]\^?\d?")
_MIXED = re.compile(r"^(-?)(\d+) (\d+/\d+)$")
_RELATION = re.compile(r"=|≈|\\approx")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_FORMULA = re.compile(r"[\\^+*=(){}]|^-?[\d.,]+\s*/\s*[\d.,]+$|^-?[\d.]*[^\W\d_]$")
_NO_FORMULA = re.compile(r"\d\s*:\s*\d|\d[-/]\d+[-/]\d|(?<!\\)\b(?!sin|cos|tan|log)[^\W\d_]{3,}")
"""Words; and times, dates, telephone numbers: read as a formula, 5:15 would be a third."""

_UNITS = {
    "°": "degree",
    "min": "minute",
    "sec": "second",
    "hr": "hour",
    "in": "inch",
    "lb": "pound",
}
"""Abbreviations that sympy does not have."""


def parser_judge() -> str:
    """Return the name under which it is served; its verdicts depend on math-verify's version."""
    return f"rilbench-parser-judge-1/math-verify-{version('math-verify')}"


def is_right(question: str, reference: str, response: str) -> bool:
    """Decide whether ``response`` answers the question whose reference answer is ``reference``.

    With ``<OR>`` it must be right for one of the alternatives alone; ``<AND>`` is left to the
    rules, which look for each fact.

    Raises:
        ValueError: the reference is empty.
    """
    alternatives = [part for part in reference.split("<OR>") if part.strip()]
    if len(alternatives) > 1:
        return any(is_right(question, each, response) for each in alternatives)
    if "<AND>" in reference:
        return rules.is_right(reference, response)
    gold = stated_answer(alternatives[0])[0] if alternatives else ""
    if not gold:
        raise ValueError("the ground truth is empty; give every question an answer")
    answer, is_marked = stated_answer(response)
    if not answer:
        return False
    options, named = options_of(question), option_and_text(gold)
    if named and not options:
        options = dict([named])
    chosen, given = chosen_option(gold, options), chosen_option(answer, options)
    if chosen and given:
        return chosen == given
    meant = {gold, options.get(chosen or "", gold)}
    return any(_same(each, answer, is_marked) for each in meant)


def _same(gold: str, answer: str, is_marked: bool) -> bool:
    """Whether two answers are the same words, quantity or formula."""
    if normalized(gold) == normalized(answer):
        return True
    expected = _Value.of(gold)
    if expected is None:
        return False
    if not is_marked:
        answer = _SENTENCE_END.split(answer)[-1]
    if not _RELATION.search(gold):
        answer = _RELATION.split(answer)[-1]
    given = _Value.of(answer) or _Value.only_one_in(answer)
    return given is not None and expected.equals(given)


class _Value(NamedTuple):
    """A number or formula, and its unit: any word, or none."""

    formula: str
    unit: str = ""

    @classmethod
    def of(cls, text: str) -> _Value | None:
        """The value that the whole text is; None for other texts."""
        text = without_latex(text.replace("\u2212", "-").replace("π", r"\pi "))
        quantity = _QUANTITY.fullmatch(text)
        if quantity and not _VARIABLE.fullmatch(text):
            return cls._read(quantity)
        text = _MIXED.sub(r"\1(\2+\3)", text)
        text = _ROOT.sub(lambda root: rf"\sqrt{{{root[1] or root[2]}}}", text)
        is_formula = _FORMULA.search(text) and not _NO_FORMULA.search(text)
        return cls(text) if is_formula and len(text) <= _LONGEST else None

    @classmethod
    def only_one_in(cls, text: str) -> _Value | None:
        """The only number of a text; None if it has none or several."""
        found = list(_QUANTITY_WITHIN.finditer(text))
        alone = len(found) == 1 == len(_DIGITS.findall(text))
        return cls._read(found[0]) if alone else None

    @classmethod
    def _read(cls, quantity: re.Match[str]) -> _Value:
        number = _EXPONENT.sub(r" \\cdot 10^{\1}", quantity["number"])
        unit, power = quantity["unit"], (quantity["power"] or "")
        if unit.casefold() in ("%", "percent"):
            return cls(f"{number}%")
        return cls(number, unit + power.translate({0xB2: "2", 0xB3: "3"}))

    def equals(self, other: _Value) -> bool:
        """Whether both are equal; a unit counts only where both have one that sympy knows."""
        from math_verify import parse, verify

        mine, factor = _unit(self.unit), 1
        theirs = _unit(other.unit)
        values = [
            parse(f"${each.formula}$", fallback_mode="no_fallback", parsing_timeout=_SECONDS)
            for each in (self, other)
        ]
        if mine and theirs and mine != theirs:
            from sympy.physics.units import convert_to

            factor = convert_to(theirs, mine) / mine
            if not factor.is_number:
                return False
            values[1] = [value * factor for value in values[1]]
        return bool(verify(*values, timeout_seconds=_SECONDS))


@lru_cache(maxsize=256)
def _unit(name: str) -> Any:
    """Return sympy's unit of a name such as cm, meters or m2; None if it has none."""
    from sympy.physics import units

    word, power = (name[:-1], int(name[-1])) if name[-1:] in ("2", "3") else (name, 1)
    found = getattr(units, _UNITS.get(word, word), None) if word else None
    return found**power if isinstance(found, units.Quantity) else None
