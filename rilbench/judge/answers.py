r"""What a text gives as its answer: in tags, in ``\boxed{}``, as an option with its text.

Training sets and models of VLM reinforcement learning write one answer in many forms:
``\boxed{3}``, ``<answer>B</answer>``, ``A. West Virginia``. These functions read the forms; they
judge nothing and import no library.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

from rilbench.judge.rules import LEADING, TRAILING, after_marker

_THINKING_END = "</think>"
_TAG = re.compile(r"<answer>((?:(?!<answer>).)*?)</answer>", re.I | re.S)
_BRACE = re.compile(r"\\(?:boxed|fbox)\s*\{|\\[{}]|[{}]")
_STYLED = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mbox)\s*\{([^{}]*)\}")
_MATH_MODE = re.compile(r"\\[()\[\]]|\\?\$")
_COMMA = re.compile(r"\s*([,;])\s*")
_ARTICLE = re.compile(r"^(?:an?|the) (?=.)")
_NUMBER_AND_WORD = re.compile(r"([-+]?\d[\d,]*(?:\.\d+)?) ?[^\W\d_]+")

_OPTION_LINE = re.compile(r"^[ \t]*\(?([A-Z])[).:][ \t]+(\S.*)$", re.M)
_OPTION_INLINE = re.compile(r"\(([A-Z])\)\s*([^()\n]+)")
_LETTER = re.compile(r"(?:option |choice )?[(\[]?([A-Z])[)\].:]?", re.I)
_LETTER_AND_TEXT = re.compile(r"(?:option |choice )?(?:\(([A-Z])\)|([A-Z])[).:])\s*(\S.*)", re.S)


def boxed(text: str) -> str | None:
    r"""Return the contents of the last complete ``\boxed{}``, or None."""
    starts: list[int] = []  # of what the open braces hold; -1: no box
    contents = None
    for brace in _BRACE.finditer(text):
        if brace[0] == "{":
            starts.append(-1)
        elif brace[0] == "}" and starts:
            start = starts.pop()
            contents = text[start : brace.start()].strip() if start >= 0 else contents
        elif len(brace[0]) > 2:
            starts.append(brace.end())
    return contents


def stated_answer(text: str) -> tuple[str, bool]:
    r"""Return the answer that a text gives, and whether the text marks it as its answer.

    What a model thought, up to ``</think>``, does not count. The answer is in the last ``<answer>``
    tag, else in the last ``\boxed{}``, else after the last "answer is" or "answer:", else it is the
    last line.
    """
    said = text.rpartition(_THINKING_END)[2]
    tags = _TAG.findall(said)
    inner = tags[-1] if tags else said
    marked = boxed(inner)
    if marked is None:
        marked = after_marker(inner)
    if marked is None and tags:
        marked = inner
    answer = (said.strip().splitlines() or [""])[-1] if marked is None else marked
    answer = answer.strip(" \t\r\n\"'`*_\u201c\u201d").rstrip(" \t\r\n.,;:!?*_")
    return answer, marked is not None


def without_latex(text: str) -> str:
    r"""Return a text without ``$`` and ``\text{}`` around its words."""
    return _MATH_MODE.sub("", _STYLED.sub(r"\1", text)).strip()


def normalized(text: str) -> str:
    """Return words to compare: without LaTeX, case, a leading article and outer punctuation."""
    text = unicodedata.normalize("NFKC", without_latex(text))
    text = _COMMA.sub(r"\1", " ".join(text.split()).casefold())
    return _ARTICLE.sub("", text.lstrip(LEADING).rstrip(TRAILING) or text)


def options_of(question: str) -> dict[str, str]:
    """Return the options that a question lists, A, B, … with their texts; empty if it has none."""
    for form in (_OPTION_LINE, _OPTION_INLINE):
        found = {letter: text.strip(" \t,;") for letter, text in form.findall(question)}
        if len(found) > 1 and sorted(found) == [chr(ord("A") + i) for i in range(len(found))]:
            return found
    return {}


def option_and_text(answer: str) -> tuple[str, str] | None:
    """Return letter and text of an answer such as ``A. West Virginia``, or None."""
    both = _LETTER_AND_TEXT.fullmatch(without_latex(answer))
    return (both[1] or both[2], both[3].strip()) if both else None


def chosen_option(answer: str, options: Mapping[str, str]) -> str | None:
    """Return the letter that an answer names: alone, with its text, or by its text alone.

    None if it names none, several, or a letter with another option's text.
    """
    if letter := _LETTER.fullmatch(without_latex(answer)):
        return letter[1].upper()
    if both := option_and_text(answer):
        letter_, text = both
        agrees = letter_ not in options or normalized(text) == normalized(options[letter_])
        return letter_ if agrees else None
    same = [name for name, text in options.items() if normalized(text) == normalized(answer)]
    return same[0] if len(same) == 1 else None


def plain_forms(reference: str) -> list[str]:
    r"""Return the answers that a response may give in plain words to a question with this gold.

    ``\boxed{3}`` and ``$3$`` mean 3, ``A. West Virginia`` means A or West Virginia, and
    ``42 apples`` means 42.
    """
    answer = stated_answer(reference)[0]
    if both := option_and_text(answer):
        return list(both)
    number = _NUMBER_AND_WORD.fullmatch(answer)
    return [number[1] if number else without_latex(answer)]
