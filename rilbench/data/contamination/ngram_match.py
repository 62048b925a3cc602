"""Which of many known texts a text is, or nearly is.

Two texts are the same when their words are: case, punctuation, width and the marks of pictures do
not count. A known text is nearly another when the other has nearly all of its runs of words, as one
that was put into a longer prompt has.
"""

from __future__ import annotations

import hashlib
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

SAME, NEAR = "same", "near"

RUN = 4
"""Words of a run."""
SHARE = 0.8
"""Of a known text's runs, how many a near text has."""
SHORTEST = 8
"""Words of a known text below which nothing is near: two short questions are soon alike."""

_MARK = re.compile(r"<image[^<>]*>")
_WORD = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]|[^\W_]+?(?=[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]|[\W_]|$)"
)
"""A character of a script that has no spaces is a word."""


def words(text: str) -> list[str]:
    """The words that count."""
    plain = unicodedata.normalize("NFKC", _MARK.sub(" ", text))
    # Folding can undo the normal form, and the other way round.
    plain = unicodedata.normalize("NFKC", plain.casefold()).casefold()
    return _WORD.findall(plain)


def stem(text: str) -> str:
    """What a prompt asks: its first line with words, without "Question:"."""
    lines = [_MARK.sub(" ", line).strip() for line in text.splitlines()]
    first = next((line for line in lines if line), "")
    return first.removeprefix("Question:").strip()


def _runs(found: Sequence[str]) -> set[int]:
    """Each run of words as a number of 64 bits."""
    texts = ("\x1f".join(found[i : i + RUN]) for i in range(len(found) - RUN + 1))
    return {
        int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
        for text in texts
    }


class TextIndex:
    """Known texts; `finish` before the first `match`."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[str, ...], int] = {}
        self._sets: dict[int, set[int]] = {}
        self._by_run: dict[int, list[int]] = {}

    def add(self, text: str) -> int | None:
        """The number of a text; the same words have the same. None of a text without words."""
        found = tuple(words(text))
        if not found:
            return None
        if found not in self._numbers:
            number = self._numbers[found] = len(self._numbers)
            if len(found) >= SHORTEST:
                self._sets[number] = _runs(found)
        return self._numbers[found]

    def finish(self) -> None:
        """Make the index of the runs.

        A text that shares ``SHARE`` of n runs has at least one of any n − ⌈SHARE · n⌉ + 1 of them:
        so many of the rarest are enough to find it.
        """
        often = Counter(run for runs in self._sets.values() for run in runs)
        for number, runs in self._sets.items():
            rarest = sorted(runs, key=lambda run: (often[run], run))
            for run in rarest[: len(runs) - _needed(runs) + 1]:
                self._by_run.setdefault(run, []).append(number)

    def match(self, text: str) -> dict[int, str]:
        """The known texts that a text, or its `stem`, is (`SAME`) or nearly is (`NEAR`)."""
        whole = words(text)
        same = (self._numbers.get(tuple(found)) for found in (whole, words(stem(text))))
        matches = {number: SAME for number in same if number is not None}
        runs = _runs(whole)
        for number in {n for run in runs for n in self._by_run.get(run, ())}:
            known = self._sets[number]
            if number not in matches and len(known & runs) >= _needed(known):
                matches[number] = NEAR
        return matches


def _needed(runs: set[int]) -> int:
    return math.ceil(SHARE * len(runs))
