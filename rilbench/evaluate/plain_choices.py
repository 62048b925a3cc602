"""A second reading of choices, for what a kit's own rules leave unread.

VLMEvalKit's rules split at ASCII marks and look for a letter among the last five words, so that
``答案：B``, ``<answer>B</answer>`` and a letter before an explanation are no choice to it. This
reading knows these forms. Its score is another number than the kit's: it is shown next to it under
`NAME` and takes its place nowhere.
"""

from __future__ import annotations

import re
import unicodedata

from rilbench.judge.answers import stated_answer

NAME = "plain forms 1"
"""Of this reading, with its version: another one would give other scores."""

_STYLE = re.compile(r"[*_`#$\"']+|\\(?:text|mathrm|mathbf|textbf)\b|[{}]")
_LETTER = r"(?:[B-HJ-Z](?![A-Z0-9])|[AI](?![A-Z0-9])(?! (?!because|since|as )[a-z]))"
"""An option's letter within English words: "A" before another word is an article."""
_LETTER_ALONE = re.compile(r"\W*(?:option |choice |选项|选)?\W*([A-Z])(?:\W+\1)*\W*", re.I)
_LETTER_FIRST = re.compile(
    r"[(\[]?([A-Z])(?:[)\].:,、;/]|选项|\s*[-\u2013\u2014\n]|\s+(?:because|since)\b)"
)
_LISTED = re.compile(r"^\W*([A-Z])[).:、]", re.M)
_SEVERAL = re.compile(r"(?<![A-Za-z])[A-Z]\s*(?:or|and|或|和|与|/|、)\s*[A-Z](?![A-Za-z0-9])")
_MARKED = (
    re.compile(
        r"\b(?:answer|option|choice)(?: is| would be)?[:\s]*(?:option |choice )?"
        rf"[(\[]?({_LETTER})",
        re.I,
    ),
    re.compile(rf"\b(?:it is|it's|i choose|i pick|i think)\s+[(\[]?({_LETTER})", re.I),
    re.compile(rf"\b(?:so|thus|hence|therefore),?\s+[(\[]?({_LETTER})\W*$", re.I),
    re.compile(
        r"(?:答案|选择|选项|应选|故选|选)(?:应该|应)?(?:是|为)?\s*:?\s*[(\[]?\s*([A-Z])(?![A-Za-z0-9])"
    ),
    re.compile(r"(?<![A-Za-z])([A-Z])\s*选项"),
)


def read_plainly(text: str, options: str) -> str | None:
    """Return the option that a response names in a plain form; None if none, or several.

    Args:
        text: the response, without its reasoning.
        options: the letters of the question's options.
    """
    plain = unicodedata.normalize("NFKC", text)
    if _SEVERAL.search(plain):
        return None
    stated, is_marked = stated_answer(plain)
    lists_options = not is_marked and len(set(_LISTED.findall(plain))) > 1
    plain = _STYLE.sub("", plain).strip()
    for part in (_STYLE.sub("", stated).strip(), plain):
        found = _LETTER_ALONE.fullmatch(part)
        if found is None and not lists_options:
            found = _LETTER_FIRST.match(part)
        if found is not None and (letter := found[1].upper()) in options:
            return letter
    letters = {found[1].upper() for form in _MARKED for found in form.finditer(plain)}
    letters &= set(options)
    return letters.pop() if len(letters) == 1 else None
