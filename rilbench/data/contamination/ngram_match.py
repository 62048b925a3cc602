"""Which of many known texts a text is, or nearly is.

Two texts are the same when their words are: case, punctuation, width and image marks do not count.
A text is near a known one when it has nearly all of the known text's n-grams of words, as a
question that was put into a longer prompt has.
"""

from __future__ import annotations

import hashlib
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

SAME, NEAR = "same", "near"

NGRAM = 4
"""Words of an n-gram."""
SHARE = 0.8
"""Share of a known text's n-grams that a near text has."""
SHORTEST = 8
"""Words of a known text below which no text is near: short questions are often alike."""

_MARK = re.compile(r"<image[^<>]*>")
_WORD = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]|[^\W_]+?(?=[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]|[\W_]|$)"
)
"""A word; in a script without spaces, each character is one."""


def words(text: str) -> list[str]:
    """Return the words of a text, normalized."""
    plain = unicodedata.normalize("NFKC", _MARK.sub(" ", text))
    # Case folding can undo the normal form, and the other way round.
    plain = unicodedata.normalize("NFKC", plain.casefold()).casefold()
    return _WORD.findall(plain)


def stem(text: str) -> str:
    """Return the question of a prompt: its first line with words, without "Question:"."""
    lines = [_MARK.sub(" ", line).strip() for line in text.splitlines()]
    first = next((line for line in lines if line), "")
    return first.removeprefix("Question:").strip()


def ngrams(words: Sequence[str]) -> set[int]:
    """Return each n-gram of words as a 64-bit hash."""
    texts = ("\x1f".join(words[i : i + NGRAM]) for i in range(len(words) - NGRAM + 1))
    return {
        int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
        for text in texts
    }


class TextIndex:
    """Known texts. Call `finish` before the first `match`."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[str, ...], int] = {}
        self._ngrams: dict[int, set[int]] = {}
        self._by_ngram: dict[int, list[int]] = {}

    def add(self, text: str) -> int | None:
        """Return the number of a text, the same for the same words; None without any word."""
        known = tuple(words(text))
        if not known:
            return None
        if known not in self._numbers:
            number = self._numbers[known] = len(self._numbers)
            if len(known) >= SHORTEST:
                self._ngrams[number] = ngrams(known)
        return self._numbers[known]

    def finish(self) -> None:
        """Index each text by its rarest n-grams.

        A text that shares ``SHARE`` of n n-grams has at least one of any n − ⌈SHARE · n⌉ + 1 of
        them, so that many are enough to find it.
        """
        counts = Counter(ngram for text in self._ngrams.values() for ngram in text)
        for number, text in self._ngrams.items():
            rarest = sorted(text, key=lambda ngram: (counts[ngram], ngram))
            for ngram in rarest[: len(text) - _needed(text) + 1]:
                self._by_ngram.setdefault(ngram, []).append(number)

    def match(self, text: str) -> dict[int, str]:
        """Return the known texts that a text, or its `stem`, is (`SAME`) or nearly is (`NEAR`)."""
        whole = words(text)
        same = (self._numbers.get(tuple(known)) for known in (whole, words(stem(text))))
        matches = {number: SAME for number in same if number is not None}
        found = ngrams(whole)
        for number in {n for ngram in found for n in self._by_ngram.get(ngram, ())}:
            known = self._ngrams[number]
            if number not in matches and len(known & found) >= _needed(known):
                matches[number] = NEAR
        return matches


def _needed(known: set[int]) -> int:
    return math.ceil(SHARE * len(known))
