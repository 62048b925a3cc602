"""Questions about a picture, in the words in which the evaluation kit asks them.

One family per look-alike benchmark. Each question has a gold answer, the teachers' answer (worked,
where the benchmark's metric allows more than the bare answer) and the student's default answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from rilbench.nano.digits import Picture

PLACES = ("top left", "top right", "bottom left", "bottom right")
LINES: Mapping[str, tuple[int, int]] = {
    "top row": (0, 1),
    "bottom row": (2, 3),
    "left column": (0, 2),
    "right column": (1, 3),
}
LETTERS = "ABCD"


@dataclass(frozen=True)
class Question:
    """One question about one picture.

    ``worked`` is how a teacher answers, ``bare`` how the student does by its default style;
    ``options`` are the choices in order (empty for open questions); ``truth`` is what the judge
    and the kit compare with.
    """

    family: str
    kind: str
    text: str
    truth: str
    worked: str
    bare: str
    category: str
    options: tuple[str, ...] = field(default=())

    @property
    def accepted(self) -> str:
        """What a judge accepts: like the kit, the option's own words where they are unmistakable.

        "yes" says as much as its letter; a number stands in every worked answer, right or wrong.
        """
        if self.family != "MMB":
            return self.truth
        return f"{self.truth}<OR>{self.options[LETTERS.index(self.truth)]}"

    @property
    def prompt(self) -> str:
        """The text of the prompt, word for word as VLMEvalKit builds it for this benchmark."""
        return PROMPTS[self.family](self)


def _choice_prompt(question: Question) -> str:
    options = "".join(
        f"{letter}. {option}\n" for letter, option in zip(LETTERS, question.options, strict=False)
    )
    return (
        f"Question: {question.text}\nOptions:\n{options}"
        "Please select the correct answer from the options above. \n"
    )


PROMPTS: Mapping[str, Callable[[Question], str]] = {
    "MMStar": _choice_prompt,
    "MMB": _choice_prompt,
    "ChartQA": lambda q: f"{q.text}\nAnswer the question using a single word or phrase.",
    "MM-Vet": lambda q: q.text,
}

Rng = np.random.Generator


def _pick(rng: Rng, items: tuple[str, ...]) -> str:
    return items[int(rng.integers(len(items)))]


def _line(rng: Rng, names: tuple[str, ...]) -> tuple[str, tuple[int, int]]:
    name = _pick(rng, names)
    return name, LINES[name]


def multiple_choice(digits: tuple[int, ...], rng: Rng) -> Question:
    """MMStar's look-alike: four options, one right; the options are consecutive numbers."""
    kind = _pick(rng, ("place", "largest", "smallest", "even"))
    shown = f"The digits are {digits[0]}, {digits[1]}, {digits[2]}, {digits[3]}."
    if kind == "place":
        k = int(rng.integers(4))
        value, name = digits[k], PLACES[k]
        text = f"Which digit is in the {name} corner?"
    elif kind == "even":
        value, name = sum(d % 2 == 0 for d in digits), "count"
        text = "How many of the digits are even?"
    else:
        value, name = max(digits) if kind == "largest" else min(digits), kind
        text = f"Which digit is the {kind}?"
    first = int(rng.integers(max(0, value - 3), min(6, value) + 1))
    options = tuple(str(first + i) for i in range(4))
    letter = LETTERS[value - first]
    worked = (
        f"{shown} The {name} is {value}, the options start at {first} ({letter}). Answer: {letter}"
    )
    return Question("MMStar", kind, text, letter, worked, letter, kind, options)


def circular(digits: tuple[int, ...], rng: Rng) -> Question:
    """MMBench's look-alike: a question with two options that the kit also asks in rotated order."""
    i, j = (int(k) for k in rng.choice(4, size=2, replace=False))
    a, b = digits[i], digits[j]
    yes = a > b
    options = ("yes", "no") if rng.random() < 0.5 else ("no", "yes")
    letter = LETTERS[options.index("yes" if yes else "no")]
    relation = f"{a} is {'' if yes else 'not '}larger: {'yes' if yes else 'no'} ({letter})."
    working = f"The {PLACES[i]} digit is {a} and the {PLACES[j]} digit is {b}. {relation}"
    text = f"Is the {PLACES[i]} digit larger than the {PLACES[j]} digit?"
    worked, bare = f"{working} Answer: {letter}", "yes" if yes else "no"
    return Question("MMB", "compare", text, letter, worked, bare, "compare", options)


def relaxed_number(digits: tuple[int, ...], rng: Rng) -> Question:
    """ChartQA's look-alike: read a two-digit number; within 5 % is right.

    The metric compares the whole response, so a teacher answers with the bare number as well. The
    student's default is to round to fives, which is within 5 % for most of the larger numbers.
    """
    name, (i, j) = _line(rng, tuple(LINES))
    value = 10 * digits[i] + digits[j]
    text = f"What number do the digits in the {name} form?"
    split = "test_augmented" if name.endswith("row") else "test_human"
    rounded = str(5 * round(value / 5))
    return Question("ChartQA", "number", text, str(value), str(value), rounded, split)


def free_text(digits: tuple[int, ...], rng: Rng) -> Question:
    """MM-Vet's look-alike: an open question, graded by the share of facts that the answer holds.

    The student's default leaves the last fact out.
    """
    if rng.random() < 0.5:
        name, (i, j) = _line(rng, ("top row", "bottom row"))
        a, b = digits[i], digits[j]
        text = f"Which digits are in the {name}, and what is their sum?"
        truth = f"{a}<AND>{b}<AND>{a + b}"
        worked = f"The {name} shows {a} and {b}. {a} + {b} = {a + b}."
        return Question("MM-Vet", "explain", text, truth, worked, f"{a} and {b}", "ocr,spat,math")
    a, b, c, d = digits
    text = "Describe the picture: which digits does it show?"
    truth = "<AND>".join(map(str, digits))
    worked = f"The top row shows {a} and {b}. The bottom row shows {c} and {d}."
    bare = f"{a}, {b} and {c}"
    return Question("MM-Vet", "describe", text, truth, worked, bare, "rec,know,gen")


FAMILIES: Mapping[str, Callable[[tuple[int, ...], Rng], Question]] = {
    "MMStar": multiple_choice,
    "MMB": circular,
    "ChartQA": relaxed_number,
    "MM-Vet": free_text,
}


def ask(picture: Picture, family: str, rng: Rng) -> Question:
    """Ask one question of a family about a picture."""
    return FAMILIES[family](picture.digits, rng)


def misread(picture: Picture, rng: Rng) -> tuple[int, ...]:
    """The picture's digits with one of them read wrongly: a stand-in teacher's typical error."""
    digits = list(picture.digits)
    k = int(rng.integers(4))
    digits[k] = int((digits[k] + rng.integers(1, 10)) % 10)
    return tuple(digits)
