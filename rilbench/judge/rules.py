"""The rules of the exact judge: pure functions from a ground truth and a response to a decision.

They follow the metrics of the benchmarks: ChartQA's relaxed correctness for numbers, MM-Vet's
``<AND>`` and ``<OR>`` for free text, equality for the rest.
"""

from __future__ import annotations

import re

RELAXED_TOLERANCE = 0.05
"""ChartQA counts a number as right within this share of the truth."""

_MARKER = re.compile(r"\banswer(?:\s+is\b|[\s*_]*:)", re.I)
# Full-width and curly marks are escapes here, since they look like the plain ones.
LEADING = " \t\r\n\"'`*_([{<:\u201c\u2018\u300c\uff08\u3010"
TRAILING = " \t\r\n\"'`*_)]}>.,;:!?\u201d\u2019\u300d\uff09\u3011\u3002\uff0c\uff01\uff1f"
_MINUS = "\u2212"
_NUMBER = re.compile(
    r"(?P<value>[+-]?(?:\d{1,3}(?:,\d{3})+(?:\.\d*)?|\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?)"
    r"\s*(?P<percent>%?)",
    re.I,
)
# Each Han character is one token; a number keeps its sign, separators and decimals.
_WORD = r"[^\W\u4e00-\u9fff]"
_TOKEN = re.compile(
    rf"[\u4e00-\u9fff]|(?<!{_WORD})-?(?:\d{{1,3}}(?:,\d{{3}})+|\d+|(?=\.\d))(?:\.\d+)?(?!{_WORD})"
    rf"|{_WORD}+"
)

# A number in a text, not part of a word or of a longer number.
_NUMBER_WITHIN = re.compile(r"(?<![\w.])-?(?:\d{1,3}(?:,\d{3})+|\d+|(?=\.\d))(?:\.\d+)?(?!\w)")
_LONGEST_NUMBER = 15  # characters; beyond that a float is not exact
_CHOICE = re.compile(r"^\((?P<letter>[A-Z])\) (?P<text>.*)$", re.M)
_CHOSEN = re.compile(r"([A-Z])(?:[).:].*)?", re.S)

NOTHING = "Z"
"""The extraction from a response without an answer; VLMEvalKit reads it as none of the options."""


def after_marker(text: str) -> str | None:
    """Return what follows the last "answer:" or "answer is"; None if there is neither."""
    markers = list(_MARKER.finditer(text))
    return text[markers[-1].end() :] if markers else None


def final_answer(text: str) -> str:
    """Return what follows the last "answer:" or "answer is", else the whole text.

    White space, surrounding punctuation and a trailing full stop are removed, unless that leaves
    nothing.
    """
    marked = after_marker(text)
    answer = text if marked is None else marked
    return answer.lstrip(LEADING).rstrip(TRAILING) or answer.strip()


def _number(text: str) -> float | None:
    """Return the value of a text that is one number (12, 1,200, -.5, 45%), else None."""
    match = _NUMBER.fullmatch(text.replace(_MINUS, "-").strip())
    if not match:
        return None
    value = float(match["value"].replace(",", ""))
    return value / 100 if match["percent"] else value


def _tokens(text: str) -> list[str]:
    """Split ``text`` into lower-case words, numbers and Han characters."""
    tokens = _TOKEN.findall(text.casefold().replace(_MINUS, "-"))
    return [token.replace(",", "") for token in tokens]


def _present(element: str, response: str) -> bool:
    """Return whether ``response`` has ``element`` as whole tokens: 3 is not in 35 or -3."""
    needle, hay = _tokens(element), _tokens(response)
    if not needle:  # only symbols, such as "+"
        return element.strip() in response
    width = len(needle)
    return any(hay[i : i + width] == needle for i in range(len(hay) - width + 1))


def _share(truth: str, response: str) -> float:
    """Return the largest share of ``<AND>`` elements present, over the ``<OR>`` alternatives."""
    shares = []
    for alternative in truth.split("<OR>"):
        elements = [part.strip() for part in alternative.split("<AND>") if part.strip()]
        if elements:
            present = sum(_present(element, response) for element in elements)
            shares.append(present / len(elements))
    if not shares:
        raise ValueError("the ground truth is empty; give every question an answer")
    return max(shares)


def is_right(truth: str, response: str) -> bool:
    """Decide whether ``response`` answers the question whose ground truth is ``truth``.

    With ``<AND>`` the response must have every element. With ``<OR>`` it must be right for one of
    the alternatives alone, so naming all of them earns nothing. A number must be the final answer
    within 5 % (a truth of 0 needs 0). Any other truth must equal the final answer, apart from case
    and surrounding punctuation.

    Raises:
        ValueError: the ground truth is empty.
    """
    if "<OR>" in truth:
        alternatives = [part for part in truth.split("<OR>") if part.strip()]
        if not alternatives:
            raise ValueError("the ground truth is empty; give every question an answer")
        return any(is_right(alternative, response) for alternative in alternatives)
    if "<AND>" in truth:
        return _share(truth, response) == 1.0
    expected = final_answer(truth)
    if not expected:
        raise ValueError("the ground truth is empty; give every question an answer")
    answer = final_answer(response)
    number, given = _number(expected), _number(answer)
    if number is not None:
        return given is not None and abs(given - number) <= RELAXED_TOLERANCE * abs(number)
    return answer.casefold() == expected.casefold()


def grade(truth: str, response: str) -> float:
    """Grade free text as MM-Vet does: 0.0 to 1.0 in tenths.

    It is the largest share of ``<AND>`` elements that ``response`` has, over the ``<OR>``
    alternatives of ``truth``.

    Raises:
        ValueError: the ground truth is empty.
    """
    return round(_share(truth, response), 1)


def extract(question: str, response: str) -> str:
    """Return the answer of ``response`` in the form that MathVista's hint asks for.

    With choices ("(A) 12" on lines after "Choices:") it is the letter of the final answer, or of
    the choice that it repeats. Where the hint asks for an integer or a floating-point number, it is
    the first number after "answer:", else the last of the whole text. Otherwise it is the final
    answer. :data:`NOTHING` means no answer.
    """
    answer = final_answer(response)
    _, listed, choices = question.partition("\nChoices:\n")
    if listed:
        texts = dict(_CHOICE.findall(choices))
        letter = _CHOSEN.fullmatch(answer)
        if letter and letter[1] in texts:
            return letter[1]
        same = [
            key for key, text in texts.items() if final_answer(text).casefold() == answer.casefold()
        ]
        return same[0] if len(same) == 1 else answer or NOTHING
    hint = question.partition("\n")[0]
    if "integer" in hint or "floating-point number" in hint:
        text = response.replace(_MINUS, "-")
        marked = after_marker(text)
        numbers = _NUMBER_WITHIN.findall(text if marked is None else marked)
        number = str(numbers[-1 if marked is None else 0]).replace(",", "") if numbers else ""
        if not number or len(number) > _LONGEST_NUMBER:
            return NOTHING
        whole = "integer" in hint and float(number).is_integer()  # 8.0 is 8
        return str(int(float(number))) if whole else number
    return answer or NOTHING
