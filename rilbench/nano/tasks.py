"""Questions about pictures: a synthetic stand-in for each benchmark, in the kit's own words.

Each question has a gold answer, the teachers' *worked* answer (what is seen, then the step, then
"Answer: B", where the benchmark's metric allows more than the bare answer) and the *bare* answer,
which is the students' default.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rilbench.nano import render_images as pictures
from rilbench.nano.digits import Pool
from rilbench.nano.question import LETTERS, SyntheticQuestion
from rilbench.nano.render_images import COLOURS, DIGITS, SHADED, SHAPES, Draw, Picture

PLACES = ("top left", "top right", "bottom left", "bottom right")
CHINESE_PLACES = ("左上", "右上", "左下", "右下")
LINES: Mapping[str, tuple[int, int]] = {
    "top row": (0, 1),
    "bottom row": (2, 3),
    "left column": (0, 2),
    "right column": (1, 3),
}
SIDES = ("equal", "left", "right")
INTEGER_HINT = (
    "Hint: Please answer the question requiring an integer answer and provide the final value, "
    "e.g., 1, 2, 3, at the end."
)
LETTER_HINT = (
    "Hint: Please answer the question and provide the correct option letter, e.g., A, B, C, D, "
    "at the end."
)

Rng = np.random.Generator
Glyphs = Sequence[str]


# ---- helpers


def _pick(rng: Rng, items: Sequence[str]) -> str:
    return items[int(rng.integers(len(items)))]


def _values(glyphs: Glyphs) -> list[int]:
    """The digits among the glyphs, in their order."""
    return [int(glyph[-1]) for glyph in glyphs if glyph[-1] in DIGITS]


def _listed(items: Sequence[object]) -> str:
    return ", ".join(map(str, items))


def _numbered(
    benchmark: str,
    kind: str,
    text: str,
    seen: str,
    value: int,
    name: str,
    rng: Rng,
    option: str = "{}",
) -> SyntheticQuestion:
    """A question whose four options are consecutive numbers, the right one among them.

    ``option`` puts the number into words: the kit reads a column of numbers in which some rows have
    none as 7.0.
    """
    first = int(rng.integers(max(0, value - 3), min(6, value) + 1))
    letter = LETTERS[value - first]
    worked = f"{seen} {name} {value}, the options start at {first} ({letter}). Answer: {letter}"
    options = tuple(option.format(first + i) for i in range(4))
    return SyntheticQuestion(benchmark, kind, text, letter, worked, letter, options)


def _named(
    benchmark: str, kind: str, text: str, seen: str, value: str, name: str, options: Sequence[str]
) -> SyntheticQuestion:
    """A question whose options are always the same words."""
    letter = LETTERS[list(options).index(value)]
    worked = f"{seen} {name} {value} ({letter}). Answer: {letter}"
    return SyntheticQuestion(benchmark, kind, text, letter, worked, letter, tuple(options))


# ---- the benchmarks, in the order of the paper's table


def labelled_diagram(glyphs: Glyphs, rng: Rng) -> SyntheticQuestion:
    """AI2D: digits in boxes, one of them shaded."""
    values = _values(glyphs)
    k = next((i for i, glyph in enumerate(glyphs) if glyph in SHADED), 0)
    seen = f"The boxes show {_listed(values)}."
    if rng.random() < 0.5:
        text, name = "Which digit is in the shaded box?", "The shaded box shows"
        return _numbered("AI2D", "shaded", text, seen, values[k], name, rng)
    seen = f"{seen} The shaded box shows {values[k]}."
    text, name = "Which digit is in the box beside the shaded one?", "Beside it is"
    return _numbered("AI2D", "beside", text, seen, values[k ^ 1], name, rng)


def bar_chart(glyphs: Glyphs, rng: Rng) -> SyntheticQuestion:
    """ChartQA: read a value of two digits; within 5 % is right.

    The metric compares the whole response, so a teacher answers with the bare number as well. The
    student's default is to round to fives, which is within 5 % for most of the larger numbers.
    """
    a, b, c, d = _values(glyphs)
    left, right = 10 * a + b, 10 * c + d
    kind = _pick(rng, ("left", "right", "taller"))
    value = {"left": left, "right": right, "taller": max(left, right)}[kind]
    text = f"What is the value of the {kind} bar?"
    rounded = str(5 * round(value / 5))
    return SyntheticQuestion("ChartQA", kind, text, str(value), str(value), rounded)


def mathematics(glyphs: Glyphs, rng: Rng) -> SyntheticQuestion:
    """MathVista: an integer, or a choice by its letter, under its original's hints."""
    values = _values(glyphs)
    if rng.random() < 0.65:
        name = _pick(rng, tuple(LINES))
        a, b = (values[i] for i in LINES[name])
        text = f"{INTEGER_HINT}\nQuestion: What is the sum of the digits in the {name}?"
        worked = f"The {name} shows {a}, {b}. {a} + {b} = {a + b}. Answer: {a + b}"
        return SyntheticQuestion("MathVista", "integer", text, str(a + b), worked, str(a + b))
    name = _pick(rng, ("top row", "bottom row"))
    a, b = (values[i] for i in LINES[name])
    value = "equal" if a == b else "left" if a > b else "right"
    lines = "\n".join(f"({letter}) {o}" for letter, o in zip(LETTERS, SIDES, strict=False))
    text = f"{LETTER_HINT}\nQuestion: Which digit of the {name} is larger?\nChoices:\n{lines}"
    seen = f"The {name} shows {a}, {b}."
    return _named("MathVista", "choice", text, seen, value, "Larger is", SIDES)


def _circular(
    benchmark: str, text: str, working: str, right: bool, words: tuple[str, str], rng: Rng
) -> SyntheticQuestion:
    """A question with two options that the kit also asks in rotated order.

    The bare answer is the option's word, which counts like its letter in the kit.
    """
    word = words[0] if right else words[1]
    options = words if rng.random() < 0.5 else (words[1], words[0])
    letter = LETTERS[options.index(word)]
    worked = f"{working}: {word} ({letter}). Answer: {letter}"
    return SyntheticQuestion(
        benchmark, "compare", text, letter, worked, word, options, alternative=word
    )


def circular(glyphs: Glyphs, rng: Rng) -> SyntheticQuestion:
    """MMBench: is one digit larger than another."""
    i, j = (int(k) for k in rng.choice(4, size=2, replace=False))
    values = _values(glyphs)
    a, b = values[i], values[j]
    working = f"The {PLACES[i]} digit is {a} and the {PLACES[j]} digit is {b}. {a} is "
    working += "larger" if a > b else "not larger"
    text = f"Is the {PLACES[i]} digit larger than the {PLACES[j]} digit?"
    return _circular("MMB", text, working, a > b, ("yes", "no"), rng)


def chinese_circular(glyphs: Glyphs, rng: Rng) -> SyntheticQuestion:
    """MMBench in Chinese: is one digit larger than another."""
    i, j = (int(k) for k in rng.choice(4, size=2, replace=False))
    values = _values(glyphs)
    a, b = values[i], values[j]
    working = f"{CHINESE_PLACES[i]}是 {a},{CHINESE_PLACES[j]}是 {b}。 {a} "
    working += "更大" if a > b else "不更大"
    text = f"{CHINESE_PLACES[i]}的数字比{CHINESE_PLACES[j]}的数字大吗?"
    return _circular("MMB-CN", text, working, a > b, ("是", "否"), rng)


def free_text(glyphs: Glyphs, rng: Rng) -> SyntheticQuestion:
    """MM-Vet: an open question, graded by the share of facts that the answer holds.

    The bare answer leaves the last fact out.
    """
    values = _values(glyphs)
    if rng.random() < 0.5:
        name = _pick(rng, ("top row", "bottom row"))
        a, b = (values[i] for i in LINES[name])
        text = f"Which digits are in the {name}, and what is their sum?"
        truth = f"{a}<AND>{b}<AND>{a + b}"
        worked = f"The {name} shows {a}, {b}. {a} + {b} = {a + b}."
        return SyntheticQuestion("MM-Vet", "ocr,spat,math", text, truth, worked, f"{a}, {b}")
    text = "Describe the picture: which digits does it show?"
    truth = "<AND>".join(map(str, values))
    worked = f"The top row shows {_listed(values[:2])}. The bottom row shows {_listed(values[2:])}."
    return SyntheticQuestion("MM-Vet", "rec,know,gen", text, truth, worked, _listed(values[:3]))


def free_text_of_two(glyphs: Glyphs, rng: Rng) -> SyntheticQuestion:
    """MM-Vet v2: an open question about two images in their order."""
    a, b, c, d = _values(glyphs)
    seen = f"The first image shows {a}, {b}. The second image shows {c}, {d}."
    text = "<image 1> <image 2> "
    if rng.random() < 0.5:
        text += "Which digits are in the first image, and which in the second?"
        truth = f"{a}<AND>{b}<AND>{c}<AND>{d}"
        return SyntheticQuestion(
            "MM-Vet-v2", "rec,know,gen,seq", text, truth, seen, f"{a}, {b}, {c}"
        )
    text += "Which is the left digit of each image, and what is their sum?"
    truth = f"{a}<AND>{c}<AND>{a + c}"
    worked = f"{seen} {a} + {c} = {a + c}."
    return SyntheticQuestion("MM-Vet-v2", "ocr,spat,math,seq", text, truth, worked, f"{a}, {c}")


def disciplines(glyphs: Glyphs, rng: Rng) -> SyntheticQuestion:
    """MMMU: two images in the text; a choice, or an open question.

    The kit reads an open answer only from a short text.
    """
    a, b, c, d = _values(glyphs)
    which = _pick(rng, ("first", "second"))
    x, y = (a, b) if which == "first" else (c, d)
    if rng.random() < 0.3:
        text = f"<image 1> <image 2> What is the sum of the digits in the {which} image?"
        worked = f"{x} + {y} = {x + y}. Answer: {x + y}"
        return SyntheticQuestion("MMMU", "open", text, str(x + y), worked, str(x + y))
    text = f"<image 1> <image 2> Which is the larger digit of the {which} image?"
    seen = f"The {which} image shows {x}, {y}."
    name, option = "The larger is", "digit {}"
    return _numbered("MMMU", "choice", text, seen, max(x, y), name, rng, option)


def ten_options(glyphs: Glyphs, rng: Rng) -> SyntheticQuestion:
    """MMMU-Pro: ten options, which are the digits; half of the questions are in the picture."""
    vision = glyphs[0] in pictures.WORDS
    values = _values(glyphs)
    most = glyphs[0] == "max" if vision else bool(rng.random() < 0.5)
    kind, name = ("vision", "picture") if vision else ("standard", "digits")
    word = "largest" if most else "smallest"
    value = max(values) if most else min(values)
    text = f"Which digit is the {word}?"
    seen = f"The {name} shows {glyphs[0]}, {_listed(values)}." if vision else ""
    seen = seen or f"The digits are {_listed(values)}."
    return _named("MMMU-Pro", kind, text, seen, str(value), f"The {word} is", DIGITS)


def _count(values: Sequence[int], kind: str) -> int:
    rules: Mapping[str, Callable[[int], bool]] = {
        "even": lambda d: d % 2 == 0,
        "odd": lambda d: d % 2 == 1,
        "above 4": lambda d: d > 4,
    }
    return sum(map(rules[kind], values))


STAR: Mapping[str, str] = {
    "place": "fine-grained perception",
    "above 4": "coarse perception",
    "largest": "instance reasoning",
    "smallest": "logical reasoning",
    "even": "math",
    "odd": "science & technology",
}
"""MMStar's six categories by the kind of question that stands in for them."""


def six_categories(glyphs: Glyphs, rng: Rng) -> SyntheticQuestion:
    """MMStar: a digit by its place or size, or how many digits are of a kind."""
    values = _values(glyphs)
    kind = _pick(rng, tuple(STAR))
    seen = f"The digits are {_listed(values)}."
    if kind == "place":
        k = int(rng.integers(4))
        text, name = f"Which digit is in the {PLACES[k]} corner?", f"The {PLACES[k]} is"
        return _numbered("MMStar", kind, text, seen, values[k], name, rng)
    if kind in ("largest", "smallest"):
        value = max(values) if kind == "largest" else min(values)
        text, name = f"Which digit is the {kind}?", f"The {kind} is"
        return _numbered("MMStar", kind, text, seen, value, name, rng)
    text, name = f"How many of the digits are {kind}?", f"The count of {kind} is"
    return _numbered("MMStar", kind, text, seen, _count(values, kind), name, rng)


def two_images(glyphs: Glyphs, rng: Rng) -> SyntheticQuestion:
    """BLINK: which of two images has the larger digit on a side."""
    a, b, c, d = _values(glyphs)
    side = _pick(rng, ("left", "right"))
    x, y = (a, c) if side == "left" else (b, d)
    options = ("the first image", "the second image")
    value = options[0] if x >= y else options[1]
    text = f"Which image has the larger {side} digit?"
    seen = f"The first image shows {a}, {b}. The second image shows {c}, {d}."
    name = f"{x} and {y} are {side}, larger is"
    return _named("BLINK", f"{side} digit", text, seen, value, name, options)


def coloured_scene(glyphs: Glyphs, rng: Rng) -> SyntheticQuestion:
    """SEED: how many shapes of a kind a scene has, or the colour of one."""
    seen = f"The shapes are {_listed(glyphs)}."
    if rng.random() < 0.5:
        shape = _pick(rng, SHAPES)
        number = sum(glyph.endswith(shape) for glyph in glyphs)
        text, name = f"How many {shape}s are in the picture?", f"The count of {shape}s is"
        return _numbered("SEED", "Instances Counting", text, seen, number, name, rng)
    k = int(rng.integers(4))
    text, name = f"What is the colour of the {PLACES[k]} shape?", f"The {PLACES[k]} shape is"
    colour = glyphs[k].split()[0]
    return _named("SEED", "Instance Attributes", text, seen, colour, name, tuple(COLOURS))


def text_rich(glyphs: Glyphs, rng: Rng) -> SyntheticQuestion:
    """SEED-2-Plus: a chart's bars, or the digit that a map's arrow leads to."""
    values = _values(glyphs)
    if len(values) == 4:
        left, right = 10 * values[0] + values[1], 10 * values[2] + values[3]
        options = ("the left bar", "the right bar", "they are equal", "there is no bar")
        value = options[0] if left > right else options[1] if left < right else options[2]
        seen = f"The chart shows {left} and {right}."
        text = "Which bar has the larger value?"
        return _named("SEED2+", "Chart", text, seen, value, "Larger is", options)
    k = next((i for i, glyph in enumerate(glyphs) if glyph in pictures.ARROWS), 0)
    target = k ^ 1 if glyphs[k] in ("left", "right") else k ^ 2
    text, name = "Which digit does the arrow point to?", "The arrow points to"
    seen, digit = f"The map shows {_listed(glyphs)}.", int(glyphs[target][-1])
    return _numbered("SEED2+", "Map", text, seen, digit, name, rng)


def real_scene(glyphs: Glyphs, rng: Rng) -> SyntheticQuestion:
    """RealWorldQA: which shape is at a place, or whether a row has one colour."""
    seen = f"The shapes are {_listed(glyphs)}."
    if rng.random() < 0.5:
        k = int(rng.integers(4))
        text, name = f"Which shape is at the {PLACES[k]}?", f"The {PLACES[k]} shape is a"
        shape = glyphs[k].split()[1]
        return _named("RWQA", "shape", text, seen, shape, name, SHAPES)
    row = _pick(rng, ("top row", "bottom row"))
    first, second = (glyphs[i].split()[1] for i in LINES[row])
    text = f"Are the shapes of the {row} of one form?"
    name = f"One {first} and one {second}:"
    value = "yes" if first == second else "no"
    return _named("RWQA", "alike", text, seen, value, name, ("yes", "no"))


@dataclass(frozen=True)
class StandIn:
    """The ways to draw the pictures of one synthetic benchmark, and how it asks about them."""

    draw: tuple[Draw, ...]
    ask: Callable[[Glyphs, Rng], SyntheticQuestion]


STAND_INS: Mapping[str, StandIn] = {
    "AI2D": StandIn((pictures.diagram,), labelled_diagram),
    "ChartQA": StandIn((pictures.chart,), bar_chart),
    "MathVista": StandIn((pictures.grid,), mathematics),
    "MMB": StandIn((pictures.grid,), circular),
    "MMB-CN": StandIn((pictures.grid,), chinese_circular),
    "MM-Vet": StandIn((pictures.grid,), free_text),
    "MM-Vet-v2": StandIn((pictures.pair,), free_text_of_two),
    "MMMU": StandIn((pictures.pair,), disciplines),
    "MMMU-Pro": StandIn((pictures.grid, pictures.task), ten_options),
    "MMStar": StandIn((pictures.grid,), six_categories),
    "BLINK": StandIn((pictures.pair,), two_images),
    "SEED": StandIn((pictures.scene,), coloured_scene),
    "SEED2+": StandIn((pictures.chart, pictures.route), text_rich),
    "RWQA": StandIn((pictures.scene,), real_scene),
}
"""By benchmark, in the paper's order."""


def make_question(
    benchmark: str, pool: Pool, rng: Rng, *, misread: float = 0.0, draw: Draw | None = None
) -> tuple[Picture, SyntheticQuestion]:
    """Draw a picture and ask one question about it.

    Args:
        benchmark: a key of `STAND_INS`.
        pool: the pool of digits.
        rng: the only source of randomness.
        misread: probability that the question's answers come from a misread picture.
        draw: one of the benchmark's ways of drawing; None chooses one at random.
    """
    ways = STAND_INS[benchmark].draw
    picture = (draw or ways[int(rng.integers(len(ways)))])(pool, rng)
    wrong = rng.random() < misread
    glyphs = pictures.misread(picture.glyphs, rng) if wrong else picture.glyphs
    return picture, STAND_INS[benchmark].ask(glyphs, rng)
