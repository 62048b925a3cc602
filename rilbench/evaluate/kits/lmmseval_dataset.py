"""The synthetic stand-ins for lmms-eval, laid out as the original benchmarks are on the hub.

One folder of Parquet files for each dataset, made from VLMEvalKit's files: the same pictures,
questions, options and answers, in the same order, in the columns that lmms-eval reads.
"""

from __future__ import annotations

import ast
import base64
import csv
import hashlib
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rilbench.errors import UserError
from rilbench.evaluate.new_folder import NewFolder, is_whole

Line = dict[str, str]
Doc = dict[str, Any]

_LETTERS = "ABCDEFGHIJ"
_BLINK = (
    "Counting",
    "Visual_Correspondence",
    "Semantic_Correspondence",
    "Object_Localization",
    "Visual_Similarity",
    "Art_Style",
    "Spatial_Relation",
    "Relative_Reflectance",
    "Jigsaw",
    "Forensic_Detection",
    "Functional_Correspondence",
    "Multi-view_Reasoning",
    "IQ_Test",
    "Relative_Depth",
)
"""BLINK's tasks in lmms-eval's order, each a configuration of its own; the stand-in's questions
are divided among them in order."""


@dataclass(frozen=True)
class _Conversion:
    """How one of VLMEvalKit's files becomes one of lmms-eval's datasets."""

    file: str
    folder: str
    split: str
    doc: Callable[[Line, int], Doc]
    """One question, from its line and number."""
    pictures: Sequence[str] = field(default=("image",))
    """Columns that hold a picture, or a list of pictures."""
    at_least: int = 1
    """Number of questions that lmms-eval needs."""


def write_hub(source: Path, out: Path) -> Path:
    """Write the stand-ins of ``source`` (``<dataset>.tsv``) below ``out``, unless they exist.

    Returns:
        The folder, named after the files' content.

    Raises:
        UserError: a file is missing, or lacks something that lmms-eval needs.
    """
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for conversion in _CONVERSIONS:
        file = source / f"{conversion.file}.tsv"
        if not file.is_file():
            raise UserError(f"{file} is missing; make the benchmarks, or copy them there")
        digest.update(file.read_bytes())
    folder = out / digest.hexdigest()[:12]
    if not is_whole(folder):
        new = NewFolder(folder)
        try:
            with _no_progress_bars():
                for conversion in _CONVERSIONS:
                    docs = _docs(conversion, source / f"{conversion.file}.tsv")
                    _write(conversion, docs, new.path)
            new.complete()
        finally:
            new.close()
        if not is_whole(folder):
            raise UserError(f"{folder} cannot be written; give another work folder")
    return folder


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Switch the library's progress bars off: we show our own."""
    import datasets

    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


def _docs(conversion: _Conversion, file: Path) -> list[Doc]:
    """Return a file's questions as lmms-eval reads them."""
    docs: list[Doc] = []
    seen: set[str] = set()
    for number, line in enumerate(_lines(file)):
        where = f"{file}: row {number + 1} (index {line['index']})"
        if line["index"] in seen:
            raise UserError(f"{where} has the index of another; make the data again")
        seen.add(line["index"])
        try:
            docs.append(conversion.doc(line, number))
        except KeyError as error:
            raise UserError(f"{file} has no column {error}; make the data again") from error
        except (ValueError, SyntaxError, TypeError, AttributeError, IndexError) as error:
            why = f"{type(error).__name__}: {error}"
            raise UserError(f"{where} cannot be read ({why}); make the data again") from error
    if len(docs) < conversion.at_least:
        raise UserError(
            f"{file} has {len(docs)} questions and lmms-eval needs {conversion.at_least}; "
            "make the data again"
        )
    return docs


def _lines(file: Path) -> list[Line]:
    csv.field_size_limit(sys.maxsize)
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            lines = list(csv.DictReader(stream, delimiter="\t"))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{file} cannot be read ({error}); make the data again") from error
    for column in ("index", "image"):
        if lines and column not in lines[0]:
            raise UserError(f"{file} has no column {column!r}; make the data again")
    # In place of a picture, a row may name the index of another that has it, as rotations do.
    by_index = {line["index"]: line["image"] for line in lines}
    return [{**line, "image": by_index.get(line["image"], line["image"])} for line in lines]


def _write(conversion: _Conversion, docs: list[Doc], root: Path) -> None:
    """Write one dataset as a Parquet file; BLINK as one for each of its tasks."""
    from datasets import Dataset, Image
    from datasets import Sequence as Several

    root = root / conversion.folder
    parts = {root: docs}
    if conversion.file == "BLINK":
        parts = {}
        for i, task in enumerate(_BLINK):
            part = docs[i * len(docs) // len(_BLINK) : (i + 1) * len(docs) // len(_BLINK)]
            parts[root / task] = [
                doc | {"sub_task": task, "idx": f"val_{task}_{n}"} for n, doc in enumerate(part)
            ]
    for folder, part in parts.items():
        dataset = Dataset.from_list(part)
        for column in conversion.pictures:
            several = any(isinstance(doc[column], list) for doc in part)
            dataset = dataset.cast_column(column, Several(Image()) if several else Image())
        folder.mkdir(parents=True, exist_ok=True)
        dataset.to_parquet(folder / f"{conversion.split}-00000-of-00001.parquet")


# ---- one question of each dataset


def _pictures(line: Line) -> list[dict[str, Any]]:
    text = line["image"]
    encoded = ast.literal_eval(text) if text.startswith("[") else [text]
    return [{"bytes": base64.b64decode(picture), "path": None} for picture in encoded]


def _numbered(line: Line, first: int, count: int) -> Doc:
    """Return pictures as ``image_1``, ``image_2``, …; None for those that the line lacks."""
    pictures = dict(enumerate(_pictures(line), first))
    return {f"image_{i}": pictures.get(i) for i in range(first, first + count)}


def _options(line: Line) -> list[str]:
    return [line[letter] for letter in _LETTERS if line.get(letter)]


def _listed(line: Line) -> str:
    return "\n".join(f"{letter}. {line[letter]}" for letter in _LETTERS if line.get(letter))


def _ai2d(line: Line, _: int) -> Doc:
    return {
        "question": line["question"],
        "options": _options(line),
        "answer": str(_LETTERS.index(line["answer"])),
        "image": _pictures(line)[0],
    }


def _chartqa(line: Line, _: int) -> Doc:
    return {
        "question": line["question"],
        "answer": line["answer"],
        "type": f"{line['split'].removeprefix('test_')}_test",
        "image": _pictures(line)[0],
    }


def _mathvista(line: Line, _: int) -> Doc:
    choices = ast.literal_eval(line["choices"]) if line["choices"] else None
    head, mark, question = line["question"].partition("Question: ")
    return {
        "pid": line["index"],
        "question": question.split("\n")[0] if mark else head,
        "decoded_image": _pictures(line)[0],
        "choices": choices or None,
        "unit": None,
        "precision": float(line["precision"] or 1),
        "answer": line["answer"],
        "question_type": line["question_type"],
        "answer_type": line["answer_type"],
        "query": line["question"],
        "metadata": {
            **dict.fromkeys(("language", "source", "category", "context", "grade"), "nano"),
            "split": "testmini",
            "task": line["task"],
            "skills": ast.literal_eval(line["skills"]),
        },
    }


def _mmbench(line: Line, _: int) -> Doc:
    return {
        "index": int(line["index"]),
        "question": line["question"],
        "hint": None,
        "answer": line["answer"],
        **{letter: line.get(letter) or "nan" for letter in "ABCD"},
        "category": line["category"],
        "image": _pictures(line)[0],
        "source": "nano",
        "L2-category": line["l2-category"],
        "comment": "",
        "split": line["split"],
    }


def _mmvet(line: Line, _: int) -> Doc:
    return {
        "question_id": line["index"],
        "image": _pictures(line)[0],
        "question": line["question"],
        "answer": line["answer"],
        "image_source": "nano",
        "capability": line["category"],
    }


def _mmvetv2(line: Line, _: int) -> Doc:
    return {
        "id": line["index"],
        "question": re.sub(
            r"<image (\d+)>",
            lambda match: f"<IMG><image_{int(match[1]) - 1}><IMG>",
            line["question"],
        ),
        "answer": line["answer"],
        "capability": line["category"].split(","),
        "added_in": "v2",
        **_numbered(line, 0, 17),
    }


def _mmmu(line: Line, number: int) -> Doc:
    return {
        "id": f"validation_{line['category']}_{number + 1}",
        "question": line["question"],
        "options": str(_options(line)),
        "explanation": "",
        **_numbered(line, 1, 7),
        "img_type": "['nano']",
        "answer": line["answer"],
        "topic_difficulty": "Easy",
        "question_type": "multiple-choice" if _options(line) else "open",
        "subfield": line["category"],
    }


def _mmmu_pro(line: Line, number: int) -> Doc:
    return {
        "id": f"test_{line['category']}_{number + 1}",
        "question": f"<image 1> {line['question']}",
        "options": str(_options(line)),
        "explanation": "",
        **_numbered(line, 1, 7),
        "img_type": "['nano']",
        "answer": line["answer"],
        "topic_difficulty": line["topic_difficulty"],
        "subject": line["category"],
    }


def _mmmu_pro_vision(line: Line, number: int) -> Doc:
    return {
        "id": f"test_{line['category']}_{number + 1}",
        "image": _pictures(line)[0],
        "options": str(_options(line)),
        "answer": line["answer"],
        "subject": line["category"],
    }


def _mmstar(line: Line, _: int) -> Doc:
    listed = ", ".join(f"{a}: {line[a]}" for a in _LETTERS if line.get(a))
    return {
        "index": int(line["index"]),
        "question": f"{line['question']}\nOptions: {listed}",
        "image": _pictures(line)[0],
        "answer": line["answer"],
        "category": line["category"],
        "l2_category": line["l2_category"],
        "meta_info": {"source": "nano"},
    }


def _blink(line: Line, _: int) -> Doc:
    options = _options(line)
    listed = "\n".join(f"({a}) {text}" for a, text in zip(_LETTERS, options, strict=False))
    return {
        "question": line["question"],
        **_numbered(line, 1, 4),
        "choices": options,
        "answer": f"({line['answer']})",
        "prompt": f"{line['question']}\nSelect from the following choices.\n{listed}\n",
        "explanation": "",
    }


def _seed(line: Line, _: int) -> Doc:
    return {
        "answer": line["answer"],
        **{f"choice_{letter.lower()}": line[letter] for letter in "ABCD"},
        "data_id": line["index"],
        "data_type": "image",
        "question": line["question"],
        "question_id": line["index"],
        "question_type_id": 1,
        "image": _pictures(line),
        "segment": [],
    }


def _seed2plus(line: Line, _: int) -> Doc:
    return {
        "answer": line["answer"],
        **{f"choice_{letter}": line[letter] for letter in "ABCD"},
        "data_id": line["index"],
        "question": line["question"],
        "question_id": line["index"],
        "question_image_type": line["category"].lower(),
        "image": _pictures(line)[0],
    }


def _realworldqa(line: Line, _: int) -> Doc:
    instruction = (
        "Please answer directly with only the letter of the correct option and nothing else."
    )
    return {
        "image": _pictures(line)[0],
        "image_path": f"{line['index']}.jpg",
        "question": f"{line['question']}\n{_listed(line)}\n{instruction}",
        "answer": line["answer"],
    }


_SEVEN = [f"image_{i}" for i in range(1, 8)]
_CONVERSIONS = (
    _Conversion("AI2D_TEST", "lmms-lab-encoder/ai2d", "test", _ai2d),
    _Conversion("ChartQA_TEST", "lmms-lab-encoder/ChartQA", "test", _chartqa),
    _Conversion("MathVista_MINI", "AI4Math/MathVista", "testmini", _mathvista, ["decoded_image"]),
    _Conversion("MMBench_DEV_EN", "lmms-lab-encoder/MMBench/en", "dev", _mmbench),
    _Conversion("MMBench_DEV_CN", "lmms-lab-encoder/MMBench/cn", "dev", _mmbench),
    _Conversion("MMVet", "lmms-lab-encoder/MMVet", "test", _mmvet),
    _Conversion("MMVetV2", "whyu/mm-vet-v2", "test", _mmvetv2, [f"image_{i}" for i in range(17)]),
    _Conversion("MMMU_DEV_VAL", "lmms-lab-encoder/MMMU", "validation", _mmmu, _SEVEN),
    _Conversion("MMMU_Pro_10c", "MMMU/MMMU_Pro/standard (10 options)", "test", _mmmu_pro, _SEVEN),
    _Conversion("MMMU_Pro_V", "MMMU/MMMU_Pro/vision", "test", _mmmu_pro_vision),
    _Conversion("MMStar", "Lin-Chen/MMStar", "val", _mmstar),
    _Conversion("BLINK", "BLINK-Benchmark/BLINK", "val", _blink, _SEVEN[:4], len(_BLINK)),
    _Conversion("SEEDBench_IMG", "lmms-lab-encoder/SEED-Bench", "test", _seed),
    _Conversion("SEEDBench2_Plus", "doolayer/SEED-Bench-2-Plus", "test", _seed2plus),
    _Conversion("RealWorldQA", "lmms-lab-encoder/RealWorldQA", "test", _realworldqa),
)
