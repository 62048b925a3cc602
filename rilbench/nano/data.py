"""The laboratory's questions: prompts for RIL, a dev split, and the benchmark files."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rilbench.data import question_files as training
from rilbench.nano import render_images as pictures
from rilbench.nano.digits import pools
from rilbench.nano.question import LETTERS, Question
from rilbench.nano.render_images import Draw, Picture
from rilbench.nano.tasks import FAMILIES, SIDES, STAR, make

CIRCULAR_OFFSET = 1_000_000
"""MMBench's files give the k-th rotation of question i the index i + k * this."""

Row = dict[str, Any]


def training_questions(pool: str, each: int, seed: int) -> list[training.Question]:
    """``each`` questions of every family, on the scans of one pool."""
    rng = np.random.default_rng(seed)
    out = []
    for number in range(each):
        for family in FAMILIES:
            picture, question = make(family, pools()[pool], rng)
            out.append(
                training.Question(
                    id=f"{pool}-{number:04d}-{family}",
                    images=picture.images,
                    question=question.prompt,
                    answer=question.accepted,
                    source=family,
                )
            )
    return out


# ---- rows of the kit's files, by family


def _choice(question: Question) -> Row:
    return dict(zip(LETTERS, question.options, strict=False))


def _diagram(question: Question) -> Row:
    return {**_choice(question), "category": question.kind}


def _chart(question: Question) -> Row:
    """The original's split: questions by people, who compare, and by a program, which reads."""
    return {"split": "test_human" if question.kind == "taller" else "test_augmented"}


def _mathematics(question: Question) -> Row:
    choice = question.kind == "choice"
    return {
        "answer": SIDES[LETTERS.index(question.truth)] if choice else question.truth,
        "question_type": "multi_choice" if choice else "free_form",
        "answer_type": "text" if choice else "integer",
        "choices": str(list(SIDES)) if choice else None,
        "answer_option": question.truth if choice else None,
        "task": "figure question answering",
        "skills": "['numeric commonsense']" if choice else "['arithmetic reasoning']",
        "precision": 1.0,
    }


def _circular(question: Question) -> Row:
    return {"category": "attribute_comparison", "l2-category": question.kind, "split": "dev"}


def _free_text(question: Question) -> Row:
    return {"category": question.kind}


def _disciplines(question: Question) -> Row:
    choice = question.kind == "choice"
    return {
        **_choice(question),
        "question_type": "multiple-choice" if choice else "open",
        "category": "Math",
        "l2-category": "Science",
        "split": "validation",
    }


def _ten(question: Question) -> Row:
    return {
        **_choice(question),
        "category": "Math",
        "topic_difficulty": "Easy",
    }


def _six(question: Question) -> Row:
    return {**_choice(question), "category": STAR[question.kind], "l2_category": question.kind}


def _kinds(question: Question) -> Row:
    return {**_choice(question), "category": question.kind}


def _validation(question: Question) -> Row:
    return {**_kinds(question), "split": "val"}


def _plain(question: Question) -> Row:
    return _choice(question)


class File:
    """One file of the kit: a family's questions, and what its columns hold beside the common ones.

    Attributes:
        family: the paper's column.
        columns: the file's own columns of a question.
        draw: the one way of drawing that this file shows; None for all of the family's.
        circular: a question stands there once for each rotation of its options.
    """

    def __init__(
        self,
        family: str,
        columns: Callable[[Question], Row],
        draw: Draw | None = None,
        circular: bool = False,
    ) -> None:
        self.family, self.columns = family, columns
        self.draw, self.circular = draw, circular


BENCHMARK_FILES: Mapping[str, File] = {
    "AI2D_TEST": File("AI2D", _diagram),
    "ChartQA_TEST": File("ChartQA", _chart),
    "MathVista_MINI": File("MathVista", _mathematics),
    "MMBench_DEV_EN": File("MMB", _circular, circular=True),
    "MMBench_DEV_CN": File("MMB-CN", _circular, circular=True),
    "MMVet": File("MM-Vet", _free_text),
    "MMVetV2": File("MM-Vet-v2", _free_text),
    "MMMU_DEV_VAL": File("MMMU", _disciplines),
    "MMMU_Pro_10c": File("MMMU-Pro", _ten, pictures.grid),
    "MMMU_Pro_V": File("MMMU-Pro", _ten, pictures.task),
    "MMStar": File("MMStar", _six),
    "BLINK": File("BLINK", _validation),
    "SEEDBench_IMG": File("SEED", _kinds),
    "SEEDBench2_Plus": File("SEED2+", _kinds),
    "RealWorldQA": File("RWQA", _plain),
}
"""VLMEvalKit's name of a file → the look-alike in it."""

SPLITS: Mapping[str, tuple[int, int]] = {"test": (100, 103), "dev": (50, 211)}
"""Questions in each file, and the seed, by split."""


def benchmark_questions(
    name: str, split: str, questions: int | None = None
) -> list[tuple[Picture, Question]]:
    """The questions of one of the kit's files, on one pool's scans only.

    Args:
        name: of `BENCHMARK_FILES`.
        split: ``test`` or ``dev``; also the name of the pool.
        questions: how many; None for the split's own number.
    """
    each, seed = SPLITS[split]
    file = BENCHMARK_FILES[name]
    rng = np.random.default_rng([seed, list(BENCHMARK_FILES).index(name)])
    pool = pools()[split]
    return [make(file.family, pool, rng, draw=file.draw) for _ in range(questions or each)]


def write_benchmarks(folder: Path, split: str, questions: int | None = None) -> None:
    """Write the look-alikes as VLMEvalKit's TSV files; see `benchmark_questions`."""
    import pandas as pd

    folder.mkdir(parents=True, exist_ok=True)
    for name, file in BENCHMARK_FILES.items():
        asked = enumerate(benchmark_questions(name, split, questions))
        rows = [row for index, one in asked for row in _rows(file, index, *one)]
        rows.sort(key=lambda row: row["index"])
        pd.DataFrame(rows).to_csv(folder / f"{name}.tsv", sep="\t", index=False)


def _rows(file: File, index: int, picture: Picture, question: Question) -> list[Row]:
    """The rows of one question: one, or every rotation of its options for a circular one."""
    encoded = [base64.b64encode(image).decode() for image in picture.images]
    base: Row = {
        "index": index,
        "image": encoded[0] if len(encoded) == 1 else str(encoded),
        "question": question.text,
        "answer": question.truth,
    }
    base |= file.columns(question)
    if not file.circular:
        return [base]
    return [
        base
        | rotated
        | {"index": index + turn * CIRCULAR_OFFSET, "image": base["image"] if not turn else index}
        for turn, rotated in enumerate(_rotations(question))
    ]


def _rotations(question: Question) -> list[dict[str, str]]:
    right = question.options[LETTERS.index(question.truth)]
    turns = []
    for turn in range(len(question.options)):
        options = question.options[turn:] + question.options[:turn]
        letters = dict(zip(LETTERS, options, strict=False))
        turns.append(letters | {"answer": LETTERS[options.index(right)]})
    return turns
