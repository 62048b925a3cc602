"""The exact judge's rules: pure functions from a ground truth and a response to a decision.

They follow the metrics of the benchmarks: ChartQA's relaxed correctness for numbers, MM-Vet's
``<AND>`` and ``<OR>`` for free text, equality for the rest.
"""

from __future__ import annotations

import re

RELAXED_TOLERANCE = 0.05
"""ChartQA counts a number as right within this share of the truth."""

_MARKER = re.compile(r"\banswer(?:\s+is\b|[\s*_]*:)", re.I)
# Full-width and curly marks are written as escapes, since they look like the plain ones.
_LEADING = " \t\r\n\"'`*_([{<:\u201c\u2018\u300c\uff08\u3010"
_TRAILING = " \t\r\n\"'`*_)]}>.,;:!?\u201d\u2019\u300d\uff09\u3011\u3002\uff0c\uff01\uff1f"
_MINUS = "\u2212"
_NUMBER = re.compile(
    r"(?P<value>[+-]?(?:\d{1,3}(?:,\d{3})+(?:\.\d*)?|\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?)"
    r"\s*(?P<percent>%?)",
    re.I,
)
# A Han character is a token of its own; a number keeps its sign, separators and decimals.
_WORD = r"[^\W\u4e00-\u9fff]"
_TOKEN = re.compile(
    rf"[\u4e00-\u9fff]|(?<!{_WORD})-?(?:\d{{1,3}}(?:,\d{{3}})+|\d+|(?=\.\d))(?:\.\d+)?(?!{_WORD})"
    rf"|{_WORD}+"
)

# A number among other text: no part of a word or of a longer number.
_NUMBER_WITHIN = re.compile(r"(?<![\w.])-?(?:\d{1,3}(?:,\d{3})+|\d+|(?=\.\d))(?:\.\d+)?(?!\w)")
_LONGEST_NUMBER = 15  # characters; beyond that a float is not exact
_CHOICE = re.compile(r"^\((?P<letter>[A-Z])\) (?P<text>.*)$", re.M)
_CHOSEN = re.compile(r"([A-Z])(?:[).:].*)?", re.S)

NOTHING = "Z"
"""What is extracted where there is no answer; VLMEvalKit reads it as none of the options."""


def final_answer(text: str) -> str:
    """Return what follows the last "answer:" or "answer is", else the whole text.

    White space, surrounding punctuation and a trailing full stop are removed, unless nothing else
    is there.
    """
    markers = list(_MARKER.finditer(text))
    answer = text[markers[-1].end() :] if markers else text
    return answer.lstrip(_LEADING).rstrip(_TRAILING) or answer.strip()


def _number(text: str) -> float | None:
    """Return the number that ``text`` is as a whole (12, 1,200, -.5, 45%), or None."""
    found = _NUMBER.fullmatch(text.replace(_MINUS, "-").strip())
    if not found:
        return None
    value = float(found["value"].replace(",", ""))
    return value / 100 if found["percent"] else value


def _tokens(text: str) -> list[str]:
    """Split ``text`` into lower-case words, numbers and Han characters."""
    found = _TOKEN.findall(text.casefold().replace(_MINUS, "-"))
    return [token.replace(",", "") for token in found]


def _present(element: str, response: str) -> bool:
    """Tell whether ``element`` stands in ``response`` as whole tokens, so 3 is not in 35 or -3."""
    needle, hay = _tokens(element), _tokens(response)
    if not needle:  # Only symbols, such as "+": there is no token to compare.
        return element.strip() in response
    width = len(needle)
    return any(hay[i : i + width] == needle for i in range(len(hay) - width + 1))


def _share(truth: str, response: str) -> float:
    """Return the best share of ``<AND>`` elements present, over the ``<OR>`` alternatives."""
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

    With ``<AND>`` every element must stand in the response; of ``<OR>`` alternatives one must be
    right, each as if it were the truth alone, so naming all of them earns nothing. A number must be
    the final answer within 5 % (a truth of 0 needs 0). Anything else must be equal to the final
    answer but for case and surrounding punctuation.

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

    Over the ``<OR>`` alternatives of ``truth``, the largest share of ``<AND>`` elements that stand
    in ``response``.

    Raises:
        ValueError: the ground truth is empty.
    """
    return round(_share(truth, response), 1)


def extract(question: str, response: str) -> str:
    """Return the answer that ``response`` gives, in the form that MathVista's hint asks for.

    With choices ("(A) 12" on lines after "Choices:") it is the letter of the final answer, or of
    the choice that it repeats. Where an integer or a floating-point number is asked, it is the
    first number after "answer:", else the last of the whole text. Otherwise it is the final answer.
    :data:`NOTHING` stands for no answer.
    """
    answer = final_answer(response)
    _, listed, choices = question.partition("\nChoices:\n")
    if listed:
        return _chosen(answer, dict(_CHOICE.findall(choices)))
    hint = question.partition("\n")[0]
    if "integer" in hint or "floating-point number" in hint:
        return _last_number(response, whole="integer" in hint)
    return answer or NOTHING


def _chosen(answer: str, choices: dict[str, str]) -> str:
    """Return the letter of the choice that ``answer`` names, else the answer itself."""
    letter = _CHOSEN.fullmatch(answer)
    if letter and letter[1] in choices:
        return letter[1]
    said = answer.casefold()
    same = [key for key, text in choices.items() if final_answer(text).casefold() == said]
    return same[0] if len(same) == 1 else answer or NOTHING


def _last_number(response: str, whole: bool) -> str:
    """Return the number that ``response`` ends with; ``whole`` writes 8.0 as 8."""
    text = response.replace(_MINUS, "-")
    markers = list(_MARKER.finditer(text))
    found = _NUMBER_WITHIN.findall(text[markers[-1].end() :] if markers else text)
    if not found:
        return NOTHING
    number = str(found[0] if markers else found[-1]).replace(",", "")
    if len(number) > _LONGEST_NUMBER:
        return NOTHING
    return str(int(float(number))) if whole and float(number).is_integer() else number
