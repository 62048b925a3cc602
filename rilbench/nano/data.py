"""The laboratory's questions: prompts for RIL, a dev split, and the benchmark files."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np

from rilbench.nano.digits import draw, pools
from rilbench.nano.tasks import FAMILIES, LETTERS, Question, ask
from rilbench.teachers import questions as training

BENCHMARK_FILES = {
    "MMStar": "MMStar",
    "MMB": "MMBench_DEV_EN",
    "ChartQA": "ChartQA_TEST",
    "MM-Vet": "MMVet",
}
"""Paper column → the kit's name of the file that looks like it."""

CIRCULAR_OFFSET = 1_000_000
"""MMBench's files give the k-th rotation of question i the index i + k * this."""


def training_questions(pool: str, each: int, seed: int) -> list[training.Question]:
    """``each`` questions of every family, on the scans of one pool."""
    rng = np.random.default_rng(seed)
    out = []
    for number in range(each):
        for family in FAMILIES:
            picture = draw(pools()[pool], rng)
            question = ask(picture, family, rng)
            out.append(
                training.Question(
                    id=f"{pool}-{number:04d}-{family}",
                    images=(picture.jpeg,),
                    question=question.prompt,
                    answer=question.accepted,
                    source=family,
                )
            )
    return out


def write_benchmarks(folder: Path, questions: int, seed: int) -> None:
    """Write the four look-alikes as VLMEvalKit's TSV files, on the test pool's scans only."""
    import pandas as pd

    folder.mkdir(parents=True, exist_ok=True)
    for offset, (family, name) in enumerate(BENCHMARK_FILES.items()):
        rng = np.random.default_rng(seed + offset)
        rows: list[dict[str, Any]] = []
        for index in range(questions):
            picture = draw(pools()["test"], rng)
            image = base64.b64encode(picture.jpeg).decode()
            rows += _rows(index, ask(picture, family, rng), image)
        rows.sort(key=lambda row: row["index"])
        pd.DataFrame(rows).to_csv(folder / f"{name}.tsv", sep="\t", index=False)


def _rows(index: int, question: Question, image: str) -> list[dict[str, Any]]:
    """The rows of one question: one, or every rotation of its options for the circular one."""
    base: dict[str, Any] = {"index": index, "image": image, "question": question.text}
    if question.family == "MMStar":
        options = dict(zip(LETTERS, question.options, strict=True))
        kind = {"category": question.category, "l2_category": question.kind}
        return [base | options | {"answer": question.truth} | kind]
    if question.family == "MMB":
        return [
            base
            | rotated
            | {"index": index + turn * CIRCULAR_OFFSET, "image": image if turn == 0 else str(index)}
            | {"category": question.category, "l2-category": question.kind, "split": "dev"}
            for turn, rotated in enumerate(_rotations(question))
        ]
    if question.family == "ChartQA":
        return [base | {"answer": question.truth, "split": question.category}]
    return [base | {"answer": question.truth, "category": question.category}]


def _rotations(question: Question) -> list[dict[str, str]]:
    right = question.options[LETTERS.index(question.truth)]
    turns = []
    for turn in range(len(question.options)):
        options = question.options[turn:] + question.options[:turn]
        letters = dict(zip(LETTERS, options, strict=False))
        turns.append(letters | {"answer": LETTERS[options.index(right)]})
    return turns
