"""VLMEvalKit (``ms-vlmeval``): its worker's jobs, seen from our side."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rilbench.errors import UserError
from rilbench.evaluate.kits.process import KitProcess, kit_environment
from rilbench.evaluate.suite import Benchmark

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
    """A benchmark's score on the 0–100 scale, over the questions that have an outcome."""

    value: float | None
    outcomes: tuple[Outcome, ...]
    missing: int
    """Questions without a verdict; the kit would count them as wrong."""
    seconds: float


def start_worker(python: Path, log: Path, judge_url: str | None) -> KitProcess:
    """Start the worker, which imports the kit (about 20 s) while the caller goes on."""
    return KitProcess(python, WORKER, log, kit_environment({}, judge_url))


def _specs(benchmarks: Sequence[Benchmark]) -> list[dict[str, Any]]:
    return [{"name": b.dataset, "circular": b.circular, "judged": b.judged} for b in benchmarks]


def prompts_job(benchmarks: Sequence[Benchmark], folder: Path, limit: int | None) -> dict[str, Any]:
    """The job that writes ``folder/questions.jsonl`` from ``folder/LMUData``."""
    return {"folder": str(folder), "datasets": _specs(benchmarks), "limit": limit}


def score_job(
    benchmarks: Sequence[Benchmark],
    folder: Path,
    out: Path,
    answers: Mapping[str, Mapping[str, str]],
    judge: tuple[str, str],
) -> dict[str, Any]:
    """Write the answers {dataset: {question_id: text}} into ``out`` and return the scoring job.

    Args:
        benchmarks: what to score.
        folder: as given to `prompts_job`.
        out: an empty folder; the result goes to ``out/result.json``.
        answers: the model's, for every question asked.
        judge: address up to ``/v1`` and name of the model to ask there.
    """
    file = out / "answers.json"
    file.write_text(json.dumps(answers, ensure_ascii=False), encoding="utf-8")
    return {
        "folder": str(folder),
        "datasets": _specs(benchmarks),
        "answers": str(file),
        "out": str(out),
        "judge_url": judge[0],
        "judge_name": judge[1],
    }


def read_scores(file: Path, benchmarks: Sequence[Benchmark]) -> tuple[str, dict[str, KitScore]]:
    """Read a ``result.json``: the kit with its version, and each dataset's score.

    Raises:
        UserError: the kit's total and its own per-question results disagree.
    """
    result = json.loads(file.read_text(encoding="utf-8"))
    return result["kit"], {b.dataset: _score(b, result["datasets"][b.dataset]) for b in benchmarks}


def _score(benchmark: Benchmark, found: Mapping[str, Any]) -> KitScore:
    outcomes = tuple(
        Outcome(q["question_id"], q["outcome"], q["extracted"]) for q in found["questions"]
    )
    known = [o.value for o in outcomes if o.value is not None]
    missing = len(outcomes) - len(known)
    value = 100.0 * sum(known) / len(known) if known else None
    if not missing and found["records"] is not None:
        total = _total(benchmark, found["records"])
        # The kit passes circular results through a file in /tmp that is named after the second,
        # which two evaluations can share: never trust a total that its own questions contradict.
        if value is None or abs(total - value) > 1e-6:
            raise UserError(
                f"{benchmark.dataset}: the kit's total {total} is not the mean {value} of its own "
                "questions; evaluate again, one evaluation at a time"
            )
        value = total
    return KitScore(value, outcomes, missing, float(found["seconds"]))


def _total(benchmark: Benchmark, records: Sequence[Mapping[str, Any]]) -> float:
    """The kit's own number on the 0–100 scale."""
    rows = records
    if benchmark.row is not None:
        column, wanted = benchmark.row
        rows = [r for r in records if r.get(column) == wanted]
    if len(rows) != 1 or rows[0].get(benchmark.metric) is None:
        raise UserError(
            f"{benchmark.dataset}: the kit's result has no single {benchmark.metric} for "
            f"{benchmark.row or 'all'}; its columns are {sorted(records[0])}; check the data file"
        )
    return float(rows[0][benchmark.metric]) * (100.0 / benchmark.scale)
