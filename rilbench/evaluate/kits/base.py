"""What the rest of the evaluation has to know of a kit, the same for both."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from rilbench.evaluate.kits.scores import KitScore, Outcome, checked, summed_up
from rilbench.evaluate.kits.worker_process import KitProcess
from rilbench.evaluate.suite import Dataset

Address = tuple[str, str]
"""Of a judge: up to ``/v1``, and the model's name there."""


class Adapter(Protocol):
    """A kit: its worker, its data, and what its results mean."""

    @property
    def name(self) -> str:
        """Of its environment, and of ``--kit``."""

    @property
    def worker(self) -> Path:
        """The script that runs under the kit's Python."""

    @property
    def sources(self) -> Sequence[Path]:
        """All files of the worker, which decide what it makes."""

    @property
    def styles(self) -> Mapping[str, str]:
        """Its prompts for models, by the models' ``model_type``."""

    def start(self, python: Path, log: Path, judge: Callable[[], Address]) -> KitProcess:
        """Start the worker, which imports the kit while the caller goes on.

        The judge is asked for its address only by a kit that has to know it from the start.
        """

    def files(self, datasets: Sequence[Dataset], data: Path) -> dict[str, list[Path]]:
        """Each dataset's files in a folder; none where the kit is to get it from the hub.

        Raises:
            UserError: they are missing, and the kit cannot get them.
        """

    def prepare(self, folder: Path, files: Sequence[Path]) -> None:
        """Put what a ``prompts`` job reads into its folder."""

    def spec(self, dataset: Dataset) -> dict[str, Any]:
        """What the worker has to know of a dataset."""

    def total(self, dataset: Dataset, found: Mapping[str, Any]) -> float | None:
        """The kit's own number on the 0-100 scale, None where it could not sum up.

        Raises:
            UserError: it is not where it should be.
        """


def prompts_job(
    kit: Adapter,
    datasets: Sequence[Dataset],
    folder: Path,
    data: Path,
    limit: int | None = None,
    style: str | None = None,
) -> dict[str, Any]:
    """The job that writes ``folder/questions.jsonl``.

    Args:
        kit: whose worker it is for.
        datasets: of one suite.
        folder: prepared for it.
        data: the kit's data files.
        limit: questions of each; None for all.
        style: one of the kit's styles; None for the prompts of the datasets.
    """
    return {
        "folder": str(folder),
        "data": str(data),
        "datasets": [kit.spec(dataset) for dataset in datasets],
        "limit": limit,
        "style": style,
    }


def score_job(
    prompts: Mapping[str, Any],
    out: Path,
    answers: Mapping[str, Mapping[str, str]],
    judge: tuple[str, str, bool],
) -> dict[str, Any]:
    """Write the answers {dataset: {question_id: text}} into ``out`` and return the scoring job.

    Args:
        prompts: the job that made the questions, its folder as it is now called.
        out: an empty folder; the result goes to ``out/result.json``.
        answers: the model's, for every question asked.
        judge: address up to ``/v1``, name of the model to ask there, and whether it also reads
            options where the kit's own rules cannot.
    """
    file = out / "answers.json"
    file.write_text(json.dumps(answers, ensure_ascii=False), encoding="utf-8")
    named = {"url": judge[0], "name": judge[1], "reads": judge[2]}
    return {**prompts, "answers": str(file), "out": str(out), "judge": named}


def read_scores(
    kit: Adapter, file: Path, datasets: Sequence[Dataset]
) -> tuple[str, dict[str, KitScore]]:
    """Read a ``result.json``: the kit with its version, and each dataset's score.

    Raises:
        UserError: the kit's total and its own per-question results disagree.
    """
    result = json.loads(file.read_text(encoding="utf-8"))
    return result["kit"], {d.name: _score(kit, d, result["datasets"][d.name]) for d in datasets}


def _score(kit: Adapter, dataset: Dataset, found: Mapping[str, Any]) -> KitScore:
    outcomes = tuple(
        Outcome(q["question_id"], q["outcome"], q["extracted"], q["judged"], q.get("stratum", ""))
        for q in found["questions"]
    )
    score = summed_up(outcomes, float(found["seconds"]))
    total = None if score.missing else kit.total(dataset, found)
    return score if total is None else checked(dataset.name, score, total, dataset.rounding)
