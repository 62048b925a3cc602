"""VLMEvalKit (``ms-vlmeval``): its worker's jobs, seen from our side."""

import json
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
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
    judged: bool = False
    """A judge took part."""


@dataclass(frozen=True)
class KitScore:
    """A dataset's score on the 0–100 scale, over the questions that have an outcome."""

    value: float | None
    outcomes: tuple[Outcome, ...]
    missing: int
    """Questions without a verdict; the kit would count them as wrong."""
    seconds: float

    def without(self, lost: AbstractSet[str]) -> "KitScore":
        """The score when these questions have no verdict."""
        if not lost:
            return self
        outcomes = tuple(
            replace(each, value=None) if each.question_id in lost else each
            for each in self.outcomes
        )
        return KitScore(*_mean(outcomes), self.seconds)


def _mean(outcomes: tuple[Outcome, ...]) -> tuple[float | None, tuple[Outcome, ...], int]:
    """The score of the outcomes that are known, the outcomes, and how many are not."""
    known = [each.value for each in outcomes if each.value is not None]
    value = 100.0 * sum(known) / len(known) if known else None
    return value, outcomes, len(outcomes) - len(known)


def start_worker(python: Path, log: Path) -> KitProcess:
    """Start the worker, which imports the kit (about 20 s) while the caller goes on."""
    return KitProcess(python, WORKER, log, kit_environment({}))


def specs(datasets: Sequence[Dataset]) -> list[dict[str, Any]]:
    """What the worker has to know of the datasets."""
    return [
        {"name": d.name, "circular": d.circular, "judging": d.judging, "split": d.split}
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
    judge: tuple[str, str, bool],
) -> dict[str, Any]:
    """Write the answers {dataset: {question_id: text}} into ``out`` and return the scoring job.

    Args:
        datasets: what to score.
        folder: as given to `prompts_job`.
        out: an empty folder; the result goes to ``out/result.json``.
        answers: the model's, for every question asked.
        judge: address up to ``/v1``, name of the model to ask there, and whether it also reads
            options where the kit's own rules cannot.
    """
    file = out / "answers.json"
    file.write_text(json.dumps(answers, ensure_ascii=False), encoding="utf-8")
    return {
        "folder": str(folder),
        "datasets": specs(datasets),
        "answers": str(file),
        "out": str(out),
        "judge": {"url": judge[0], "name": judge[1], "reads": judge[2]},
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
        Outcome(q["question_id"], q["outcome"], q["extracted"], q["judged"])
        for q in found["questions"]
    )
    value, _, missing = _mean(outcomes)
    if not missing and found["records"] is not None:
        total = _total(dataset, found["records"])
        # Never trust a total that its own questions contradict.
        if value is None or abs(total - value) > 1e-6:
            raise UserError(
                f"{dataset.name}: the kit's total {total} is not the mean {value} of its own "
                "questions; evaluate again in another work folder"
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
