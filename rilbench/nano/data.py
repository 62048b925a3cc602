"""Questions of the small models: prompts for RIL, a dev split, and the benchmark files."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rilbench.data import question_files as training
from rilbench.nano import render_images as pictures
from rilbench.nano.digits import pools
from rilbench.nano.question import LETTERS, SyntheticQuestion
from rilbench.nano.render_images import Draw, Picture
from rilbench.nano.tasks import SIDES, STAND_INS, STAR, make_question

CIRCULAR_OFFSET = 1_000_000
"""MMBench's files give the k-th rotation of question i the index i + k * this."""

Row = dict[str, Any]
"""A row of a benchmark file."""


def training_questions(pool: str, each: int, seed: int) -> list[training.Question]:
    """Return ``each`` questions of every benchmark, on the scans of one pool."""
    rng = np.random.default_rng(seed)
    questions = []
    for number in range(each):
        for benchmark in STAND_INS:
            picture, question = make_question(benchmark, pools()[pool], rng)
            questions.append(
                training.Question(
                    id=f"{pool}-{number:04d}-{benchmark}",
                    images=picture.images,
                    question=question.prompt,
                    answer=question.accepted,
                    source=benchmark,
                )
            )
    return questions


# ---- columns of the kit's files besides the common ones, by benchmark


def _options(question: SyntheticQuestion) -> Row:
    return dict(zip(LETTERS, question.options, strict=False))


def _kinds(question: SyntheticQuestion) -> Row:
    return {**_options(question), "category": question.kind}


def _mathvista(question: SyntheticQuestion) -> Row:
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


def _mmbench(question: SyntheticQuestion) -> Row:
    return {"category": "attribute_comparison", "l2-category": question.kind, "split": "dev"}


def _mmmu(question: SyntheticQuestion) -> Row:
    return {
        **_options(question),
        "question_type": "multiple-choice" if question.kind == "choice" else "open",
        "category": "Math",
        "l2-category": "Science",
        "split": "validation",
    }


def _mmmu_pro(question: SyntheticQuestion) -> Row:
    return {**_options(question), "category": "Math", "topic_difficulty": "Easy"}


@dataclass(frozen=True)
class BenchmarkFile:
    """A synthetic stand-in for one of the kit's files.

    Attributes:
        benchmark: the benchmark of its questions.
        columns: returns the file's own columns of a question.
        draw: the only way of drawing in this file; None for all of the benchmark's.
        circular: the file has a row for each rotation of a question's options.
    """

    benchmark: str
    columns: Callable[[SyntheticQuestion], Row]
    draw: Draw | None = None
    circular: bool = False


BENCHMARK_FILES: Mapping[str, BenchmarkFile] = {
    "AI2D_TEST": BenchmarkFile("AI2D", _kinds),
    # ChartQA's split: questions by people, who compare, and by a program, which reads.
    "ChartQA_TEST": BenchmarkFile(
        "ChartQA", lambda q: {"split": "test_human" if q.kind == "taller" else "test_augmented"}
    ),
    "MathVista_MINI": BenchmarkFile("MathVista", _mathvista),
    "MMBench_DEV_EN": BenchmarkFile("MMB", _mmbench, circular=True),
    "MMBench_DEV_CN": BenchmarkFile("MMB-CN", _mmbench, circular=True),
    "MMVet": BenchmarkFile("MM-Vet", lambda q: {"category": q.kind}),
    "MMVetV2": BenchmarkFile("MM-Vet-v2", lambda q: {"category": q.kind}),
    "MMMU_DEV_VAL": BenchmarkFile("MMMU", _mmmu),
    "MMMU_Pro_10c": BenchmarkFile("MMMU-Pro", _mmmu_pro, pictures.grid),
    "MMMU_Pro_V": BenchmarkFile("MMMU-Pro", _mmmu_pro, pictures.task),
    "MMStar": BenchmarkFile(
        "MMStar", lambda q: {**_options(q), "category": STAR[q.kind], "l2_category": q.kind}
    ),
    "BLINK": BenchmarkFile("BLINK", lambda q: {**_kinds(q), "split": "val"}),
    "SEEDBench_IMG": BenchmarkFile("SEED", _kinds),
    "SEEDBench2_Plus": BenchmarkFile("SEED2+", _kinds),
    "RealWorldQA": BenchmarkFile("RWQA", _options),
}
"""VLMEvalKit's name of a file → its stand-in."""

SPLITS: Mapping[str, tuple[int, int]] = {"test": (100, 103), "dev": (50, 211)}
"""Questions in each file, and the seed, by split."""


def benchmark_questions(
    name: str, split: str, questions: int | None = None
) -> list[tuple[Picture, SyntheticQuestion]]:
    """Return the questions of one of the kit's files, on one pool's scans only.

    Args:
        name: a key of `BENCHMARK_FILES`.
        split: ``test`` or ``dev``; also the name of the pool.
        questions: number of questions; None for the split's own number.
    """
    each, seed = SPLITS[split]
    file = BENCHMARK_FILES[name]
    rng = np.random.default_rng([seed, list(BENCHMARK_FILES).index(name)])
    pool = pools()[split]
    return [
        make_question(file.benchmark, pool, rng, draw=file.draw) for _ in range(questions or each)
    ]


def write_benchmarks(folder: Path, split: str, questions: int | None = None) -> None:
    """Write the synthetic benchmarks as VLMEvalKit's TSV files; see `benchmark_questions`."""
    import pandas as pd

    folder.mkdir(parents=True, exist_ok=True)
    for name, file in BENCHMARK_FILES.items():
        asked = enumerate(benchmark_questions(name, split, questions))
        rows = [row for index, one in asked for row in _rows(file, index, *one)]
        rows.sort(key=lambda row: row["index"])
        pd.DataFrame(rows).to_csv(folder / f"{name}.tsv", sep="\t", index=False)


def _rows(
    file: BenchmarkFile, index: int, picture: Picture, question: SyntheticQuestion
) -> list[Row]:
    """Return the rows of one question: one, or every rotation of its options if circular."""
    encoded = [base64.b64encode(image).decode() for image in picture.images]
    base: Row = {
        "index": index,
        "image": encoded[0] if len(encoded) == 1 else str(encoded),
        "question": question.text,
        "answer": question.truth,
        **file.columns(question),
    }
    if not file.circular:
        return [base]
    right = question.options[LETTERS.index(question.truth)]
    rows = []
    for turn in range(len(question.options)):
        options = question.options[turn:] + question.options[:turn]
        letters = dict(zip(LETTERS, options, strict=False))
        row = base | letters | {"answer": LETTERS[options.index(right)]}
        # As in MMBench's files, a rotation names the row that has its image.
        image = index if turn else base["image"]
        rows.append(row | {"index": index + turn * CIRCULAR_OFFSET, "image": image})
    return rows
