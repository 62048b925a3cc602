"""VLMEvalKit (``ms-vlmeval``): its worker's jobs, seen from our side."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rilbench.errors import UserError
from rilbench.evaluate.kits.process import KitProcess, kit_environment
from rilbench.evaluate.suite import Dataset

KIT = "vlmevalkit"
WORKER = Path(__file__).with_name("vlmevalkit_worker.py")

EXACT_MATCHING = "exact_matching"
"""What the kit calls reading an answer by its own rules, without a judge."""


@dataclass(frozen=True)
class Outcome:
    """One question as the kit scored it: 0–1, or None where the judge gave no verdict."""

    question_id: str
    value: float | None
    extracted: str | None


@dataclass(frozen=True)
class KitScore:
    """A dataset's score on the 0–100 scale, over the questions that have an outcome."""

    value: float | None
    outcomes: tuple[Outcome, ...]
    missing: int
    """Questions without a verdict; the kit would count them as wrong."""
    seconds: float


def start_worker(python: Path, log: Path, judge_url: str | None) -> KitProcess:
    """Start the worker, which imports the kit (about 20 s) while the caller goes on."""
    return KitProcess(python, WORKER, log, kit_environment({}, judge_url))


def specs(datasets: Sequence[Dataset]) -> list[dict[str, Any]]:
    """What the worker has to know of the datasets."""
    return [
        {"name": d.name, "circular": d.circular, "judged": d.judged, "split": d.split}
        for d in datasets
    ]


def prompts_job(datasets: Sequence[Dataset], folder: Path, limit: int | None) -> dict[str, Any]:
    """The job that writes ``folder/questions.jsonl`` from ``folder/LMUData``."""
    return {"folder": str(folder), "datasets": specs(datasets), "limit": limit}


def score_job(
    datasets: Sequence[Dataset],
    folder: Path,
    out: Path,
    answers: Mapping[str, Mapping[str, str]],
    judge: tuple[str, str],
) -> dict[str, Any]:
    """Write the answers {dataset: {question_id: text}} into ``out`` and return the scoring job.

    Args:
        datasets: what to score.
        folder: as given to `prompts_job`.
        out: an empty folder; the result goes to ``out/result.json``.
        answers: the model's, for every question asked.
        judge: address up to ``/v1`` and name of the model to ask there.
    """
    file = out / "answers.json"
    file.write_text(json.dumps(answers, ensure_ascii=False), encoding="utf-8")
    return {
        "folder": str(folder),
        "datasets": specs(datasets),
        "answers": str(file),
        "out": str(out),
        "judge_url": judge[0],
        "judge_name": judge[1],
    }


def read_scores(file: Path, datasets: Sequence[Dataset]) -> tuple[str, dict[str, KitScore]]:
    """Read a ``result.json``: the kit with its version, and each dataset's score.

    Raises:
        UserError: the kit's total and its own per-question results disagree.
    """
    result = json.loads(file.read_text(encoding="utf-8"))
    return result["kit"], {d.name: _score(d, result["datasets"][d.name]) for d in datasets}


def _score(dataset: Dataset, found: Mapping[str, Any]) -> KitScore:
    outcomes = tuple(
        Outcome(q["question_id"], q["outcome"], q["extracted"]) for q in found["questions"]
    )
    known = [o.value for o in outcomes if o.value is not None]
    missing = len(outcomes) - len(known)
    value = 100.0 * sum(known) / len(known) if known else None
    if not missing and found["records"] is not None:
        total = _total(dataset, found["records"])
        # The kit passes circular results through a file in /tmp that is named after the second,
        # which two evaluations can share: never trust a total that its own questions contradict.
        if value is None or abs(total - value) > 1e-6:
            raise UserError(
                f"{dataset.name}: the kit's total {total} is not the mean {value} of its own "
                "questions; evaluate again, one evaluation at a time"
            )
        value = total
    return KitScore(value, outcomes, missing, float(found["seconds"]))


def _total(dataset: Dataset, records: Sequence[Mapping[str, Any]]) -> float:
    """The kit's own number on the 0–100 scale."""
    rows = records
    if dataset.row is not None:
        column, wanted = dataset.row
        rows = [r for r in records if r.get(column) == wanted]
    if len(rows) != 1 or rows[0].get(dataset.metric) is None:
        raise UserError(
            f"{dataset.name}: the kit's result has no single {dataset.metric} for "
            f"{dataset.row or 'all'}; its columns are {sorted(records[0])}; check the data file"
        )
    return float(rows[0][dataset.metric]) * (100.0 / dataset.scale)
