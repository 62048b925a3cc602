"""Gold answers as data sets have them: short answers are found, anything else is refused."""

from __future__ import annotations

import re
from typing import Any

from rilbench.data.jsonl import to_text
from rilbench.errors import InvalidQuestionError

REASONING = frozenset(
    {"solution", "chosen", "rationale", "rationales", "explanation", "lecture", "reasoning", "cot"}
)
"""Columns that hold a whole response in most data sets, not the short answer at its end."""

SHORT = 100
"""Characters of a text that is taken for a short answer in such a column."""

_TAG = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)
_MARK = re.compile(r"(?:final answer(?: is)?\s*[:\uff1a]|####)[ \t*]*(\S.*)", re.IGNORECASE)
_WRITTEN_LIST = re.compile(r"""\[\s*(['"]).*\1\s*,?\s*\]|\{\s*(['"]).*\}""", re.DOTALL)
_BOX = r"\boxed{"


def gold_answer(value: Any, column: str) -> str:
    """Return the gold answer in a cell; a list becomes alternatives for the judge (``<OR>``).

    ``<answer>3</answer>`` and ``\\boxed{3}`` become 3. Of a whole response in one of the
    `REASONING` columns, what it marks as its final answer is taken.

    Raises:
        InvalidQuestionError: it is no text or number, a list or dictionary written as a text, or a
            response without a marked answer.
    """
    leaf = column.rpartition(".")[2]
    if isinstance(value, list):
        texts = [_short(to_text(each, "answer"), leaf) for each in value]
        return "<OR>".join(dict.fromkeys(filter(None, texts)))
    return _short(to_text(value, "answer"), leaf)


def _short(text: str, leaf: str) -> str:
    text = text.strip()
    if _WRITTEN_LIST.fullmatch(text):
        raise InvalidQuestionError(
            f"its answer {text[:40]!r} is a list or dictionary that was written as a text; name "
            "another column with --columns answer=NAME, or write alternatives as a<OR>b"
        )
    if tagged := _TAG.findall(text):
        text = tagged[-1].strip()
    elif leaf in REASONING or "<think>" in text:
        text = _final_answer(text, leaf)
    start, end, inner = _last_box(text.strip("$"))
    return inner.strip() if (start, end) == (0, len(text.strip("$"))) else text


def _final_answer(text: str, leaf: str) -> str:
    if marked := _MARK.findall(text):
        return str(marked[-1]).strip(" *")
    _, end, inner = _last_box(text)
    if end:
        return inner.strip()
    if len(text) > SHORT or "\n" in text or "<think>" in text:
        raise InvalidQuestionError(
            f"its {leaf!r} is a response of {len(text)} characters without a marked answer "
            "(<answer>, \\boxed, Final answer:); name a column of short answers with "
            "--columns answer=NAME, or give --whole-answers if sft.data is to learn them"
        )
    return text


def _last_box(text: str) -> tuple[int, int, str]:
    r"""Start, end and content of the last ``\boxed{…}``; (0, 0, "") if there is none."""
    start = text.rfind(_BOX)
    depth = 0
    for place in range(start + len(_BOX) - 1, len(text)) if start >= 0 else ():
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return start, place + 1, text[start + len(_BOX) : place]
    return 0, 0, ""
