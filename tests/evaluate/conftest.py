"""A real checkpoint to evaluate, and small benchmarks in VLMEvalKit's own format."""

import base64
import io
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The laboratory's layout with random weights."""
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


def _write(folder: Path, name: str, rows: list[dict[str, Any]]) -> None:
    pd.DataFrame(rows).to_csv(folder / f"{name}.tsv", sep="\t", index=False)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The nano suite's four files in VLMEvalKit's format, a few questions each."""
    folder = tmp_path_factory.mktemp("data")
    colours = ["red", "green", "blue", "pink"]
    options = dict(zip("ABCD", colours, strict=True))
    choices = [
        {"index": i, "image": _image(i), "question": f"Which colour is box {i}?", **options}
        | {"answer": "ABCD"[i], "category": ["math", "coarse perception"][i % 2]}
        for i in range(4)
    ]
    _write(folder, "MMStar", choices)
    circular = []
    for turn in range(2):  # The image of a rotation is the index of the row that has it.
        turned = dict(zip("ABCD", colours[turn:] + colours[:turn], strict=True))
        for i in range(3):
            answer = next(letter for letter, text in turned.items() if text == colours[i])
            row = {"index": i + turn * 1_000_000, "question": f"Colour of box {i}?", **turned}
            row |= {"answer": answer, "image": str(i) if turn else _image(i), "split": "dev"}
            row |= {"hint": "Look well." if i == 1 else None, "category": "image_style"}
            circular.append(row | {"l2-category": "coarse_perception"})
    _write(folder, "MMBench_DEV_EN", circular)
    truths = ["10", "red", "0.25", "0", "yes"]
    charts = [
        {"index": i, "image": _image(i), "question": f"Value {i}?", "answer": truth}
        | {"split": ["test_human", "test_augmented"][i % 2]}
        for i, truth in enumerate(truths)
    ]
    _write(folder, "ChartQA_TEST", charts)
    capabilities = ["rec,know", "ocr,spat", "gen,math", "rec"]
    free = [
        {"index": f"v1_{i}", "image": _image(i), "question": f"What is on picture {i}?"}
        | {"answer": "3<AND>8", "category": capability}
        for i, capability in enumerate(capabilities)
    ]
    _write(folder, "MMVet", free)
    return folder
