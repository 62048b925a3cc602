"""A real checkpoint to evaluate, and small benchmarks in VLMEvalKit's own format."""

import base64
import io
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

Row = dict[str, Any]
COLOURS = ("red", "green", "blue", "pink")


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The nano student's layout with random weights."""
    from rilbench.nano.model import build_model, build_processor, train_tokenizer

    folder = tmp_path_factory.mktemp("models") / "tiny"
    tokenizer = train_tokenizer(seed=0)
    build_model(tokenizer, seed=0).save_pretrained(folder)
    build_processor(tokenizer).save_pretrained(folder)
    return folder


def _image(number: int) -> str:
    """A PNG of one colour as base64."""
    stream = io.BytesIO()
    Image.new("RGB", (56, 56), (40 * number % 255, 90, 200)).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


def _images(number: int) -> str:
    """Two pictures, as the kit's files hold several: a Python list as text."""
    return str([_image(number), _image(number + 1)])


def _options(texts: tuple[str, ...]) -> Row:
    return dict(zip("ABCDEFGHIJ", texts, strict=False))


def _choice() -> list[Row]:
    """Four questions with four options; the answers are A, B, C, D."""
    return [
        {"index": i, "image": _image(i), "question": f"Which colour is box {i}?"}
        | _options(COLOURS)
        | {"answer": "ABCD"[i], "category": ["math", "coarse perception"][i % 2]}
        for i in range(4)
    ]


def _circular(question: str, first_image: int) -> list[Row]:
    """Three questions, each in two rotations."""
    rows = []
    for turn in range(2):  # The image of a rotation is the index of the row that has it.
        turned = _options(COLOURS[turn:] + COLOURS[:turn])
        for i in range(3):
            answer = next(letter for letter, text in turned.items() if text == COLOURS[i])
            row = {"index": i + turn * 1_000_000, "question": question.format(i), **turned}
            row |= {"answer": answer, "image": str(i) if turn else _image(i + first_image)}
            row |= {"split": "dev", "hint": "Look well." if i == 1 else None}
            rows.append(row | {"category": "image_style", "l2-category": "coarse_perception"})
    return rows


def _blink() -> list[Row]:
    """Two pictures each and two options; the last question is of a split that does not count."""
    return [
        {"index": i, "image": _images(i), "question": f"Which picture is brighter, {i}?"}
        | {"A": "the first", "B": "the second", "C": None, "D": None, "answer": "AB"[i % 2]}
        | {"category": ["Counting", "IQ_Test"][i % 2], "split": "test" if i == 3 else "val"}
        for i in range(4)
    ]


def _charts() -> list[Row]:
    truths = ["10", "red", "0.25", "0", "yes"]
    return [
        {"index": i, "image": _image(i), "question": f"Value {i}?", "answer": truth}
        | {"split": ["test_human", "test_augmented"][i % 2]}
        for i, truth in enumerate(truths)
    ]


def _free(images: bool) -> list[Row]:
    capabilities = ["rec,know", "ocr,spat", "gen,math", "rec"]
    two = "What is on <image 1> but not on <image 2>, {}?"
    return [
        {"index": f"v{1 + images}_{i}", "image": _images(i) if images else _image(i)}
        | {"question": (two if images else "What is on picture {}?").format(i)}
        | {"answer": "3<AND>8", "category": capability}
        for i, capability in enumerate(capabilities)
    ]


def _mathvista() -> list[Row]:
    """Two choices, an integer and a decimal number."""
    integer = "an integer answer and provide the final value, e.g., 1, 2, 3, at the end."
    number = (
        "a floating-point number with one decimal place and provide the final value, "
        "e.g., 1.2, 1.3, 1.4, at the end."
    )
    option = (
        "Hint: Please answer the question and provide the correct option letter, "
        "e.g., A, B, C, D, at the end.\nQuestion: How many, {}?\nChoices:\n(A) 1\n(B) 12\n(C) 2"
    )
    hint = "Hint: Please answer the question requiring {}\nQuestion: How much, {}?"
    choice = {"question_type": "multi_choice", "answer_type": "text"}
    choice |= {"choices": "['1', '12', '2']"}
    free = {"question_type": "free_form", "choices": None, "answer_option": None}
    rows: list[Row] = [
        choice | {"question": option.format(0), "answer": "12", "answer_option": "B"},
        free | {"question": hint.format(integer, 1), "answer": "7", "answer_type": "integer"},
        choice | {"question": option.format(2), "answer": "2", "answer_option": "C"},
        free | {"question": hint.format(number, 3), "answer": "1.5", "answer_type": "float"},
    ]
    shared = {"task": "figure question answering", "skills": "['statistical reasoning']"}
    return [{"index": i, "image": _image(i), **row, **shared} for i, row in enumerate(rows)]


def _mmmu() -> list[Row]:
    """A development question, two choices and an open question."""
    rows = [
        {"index": i, "id": f"validation_Art_{i}", "image": _image(i)}
        | {"question": f"<image 1> Which colour is box {i}?", **_options(COLOURS)}
        | {"answer": "ABCD"[i], "category": "Art", "split": "validation" if i else "dev"}
        | {"question_type": "multiple-choice"}
        for i in range(4)
    ]
    rows[3] |= {"answer": "24", "question_type": "open", **dict.fromkeys("ABCD")}
    return rows


def _mmmu_pro(vision: bool) -> list[Row]:
    """Ten options; in the vision file they stand in the picture, and only there for the model."""
    return [
        {"index": i, "image": _image(i), "question": f"<image 1> Which word is on box {i}?"}
        | _options(tuple(f"{'v' if vision else 'w'}{letter}" for letter in "klmnopqrst"))
        | {"answer": "CJAB"[i], "category": "Art"}
        for i in range(4)
    ]


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The nano suite's files in VLMEvalKit's format, a few questions each."""
    files = {
        **dict.fromkeys(
            ("AI2D_TEST", "MMStar", "SEEDBench_IMG", "SEEDBench2_Plus", "RealWorldQA"), _choice()
        ),
        "BLINK": _blink(),
        "ChartQA_TEST": _charts(),
        "MMBench_DEV_CN": _circular("盒子{}的颜色", 4),
        "MMBench_DEV_EN": _circular("Colour of box {}?", 0),
        "MMMU_DEV_VAL": _mmmu(),
        "MMMU_Pro_10c": _mmmu_pro(vision=False),
        "MMMU_Pro_V": _mmmu_pro(vision=True),
        "MMVet": _free(images=False),
        "MMVetV2": _free(images=True),
        "MathVista_MINI": _mathvista(),
    }
    folder = tmp_path_factory.mktemp("data")
    for name, rows in files.items():
        pd.DataFrame(rows).to_csv(folder / f"{name}.tsv", sep="\t", index=False)
    return folder
