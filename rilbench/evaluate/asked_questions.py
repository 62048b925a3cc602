"""What was asked: the texts and pictures of the questions, from the folder of an evaluation."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rilbench.evaluate.suite import SUITES
from rilbench.ledger import Evaluation

QuestionKey = tuple[str, str]
"""Benchmark and question id, as a sample has them."""


@dataclass(frozen=True)
class QuestionContent:
    """A question's text and picture files; for a circular question those of its first turn."""

    text: str
    pictures: tuple[Path, ...] = ()
    turns: int = 1


def questions_folder(evaluation: Evaluation) -> Path | None:
    """Return the folder of an evaluation's prompts; None if it names none."""
    folder = evaluation.settings.get("questions")
    return Path(folder) if isinstance(folder, str) and folder and "\0" not in folder else None


def read_contents(
    folder: Path, benchmarks: Mapping[str, tuple[str, bool]]
) -> dict[QuestionKey, QuestionContent]:
    """Read a folder of prompts, as far as it exists and can be read."""
    contents: dict[QuestionKey, QuestionContent] = {}
    try:
        with (folder / "questions.jsonl").open(encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                dataset, group = row["dataset"], str(row["group"])
                if dataset not in benchmarks:
                    continue
                benchmark, several = benchmarks[dataset]
                key = (benchmark, f"{dataset}/{group}" if several else group)
                if key in contents:
                    turns = contents[key].turns + 1
                    contents[key] = dataclasses.replace(contents[key], turns=turns)
                    continue
                parts = row["parts"]
                text = "\n".join(str(part["text"]) for part in parts if part["type"] == "text")
                files = [folder / str(part["path"]) for part in parts if part["type"] == "image"]
                # Only pictures of the folder are read, and no other file of this machine.
                inside = [
                    file
                    for file in files
                    if "\0" not in str(file) and file.resolve().is_relative_to(folder.resolve())
                ]
                contents[key] = QuestionContent(text or str(row.get("question", "")), tuple(inside))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        # Somebody else's file, or half of one: what was read before is good.
        pass
    return contents


def benchmarks_of_datasets(evaluations: Sequence[Evaluation]) -> dict[str, tuple[str, bool]]:
    """Return {data set: (benchmark, whether the benchmark has several data sets)}.

    Args:
        evaluations: of one suite.
    """
    # The scores also have the benchmarks that are in no suite.
    benchmarks = {
        score.dataset: (score.benchmark, False) for e in evaluations for score in e.scores
    }
    suite = evaluations[0].suite
    if suite in SUITES:
        for benchmark in SUITES[suite].benchmarks:
            for datasets in benchmark.by_kit.values():
                for dataset in datasets:
                    benchmarks[dataset.name] = (benchmark.column, len(datasets) > 1)
    return benchmarks
