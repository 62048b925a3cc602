"""The interface of an evaluation kit, the same for all."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rilbench.evaluate.image_resize import Pixels
from rilbench.evaluate.kits.scores import Choice, KitScore, Outcome, summed_up
from rilbench.evaluate.kits.trial import Trial, with_total
from rilbench.evaluate.kits.worker_process import KitProcess
from rilbench.evaluate.suite import Dataset

JudgeAddress = tuple[str, str]
"""A judge's address up to ``/v1``, and the model's name there."""


@dataclass(frozen=True)
class ModelSettings:
    """What a kit's own entry for a model sets, apart from its prompts."""

    pixels: Pixels
    repetition_penalty: float | None = None
    """None: the checkpoint's own."""


class Adapter(Protocol):
    """A kit: its worker, its data, and how its results are read."""

    @property
    def name(self) -> str:
        """Name of its environment, and for ``--kit``."""

    @property
    def worker(self) -> Path:
        """The script that runs under the kit's Python."""

    @property
    def sources(self) -> Sequence[Path]:
        """All files of the worker; prompts made by other versions of them are made again."""

    @property
    def styles(self) -> Mapping[str, str]:
        """Names of the kit's prompts for models, by the models' ``model_type``."""

    @property
    def model_settings(self) -> Mapping[str, ModelSettings]:
        """Its settings for families of models, by the models' ``model_type``."""

    def start(self, python: Path, log: Path, judge: Callable[[], JudgeAddress]) -> KitProcess:
        """Start the worker, which imports the kit while the caller goes on.

        ``judge`` is called only by a kit that needs the judge's address from the start.
        """

    def files(self, datasets: Sequence[Dataset], data: Path) -> dict[str, list[Path]]:
        """Return each dataset's files in a folder; none where the kit gets it from the hub.

        Raises:
            UserError: files are missing, and the kit cannot get them.
        """

    def prepare(self, folder: Path, files: Sequence[Path]) -> None:
        """Put what a ``prompts`` job reads into its folder."""

    def spec(self, dataset: Dataset) -> dict[str, Any]:
        """Return what the worker needs to know about a dataset."""

    def total(self, dataset: Dataset, result: Mapping[str, Any]) -> float | None:
        """Return the kit's own total on the 0-100 scale, None where it could not sum up.

        Where the data set's scale is unknown, as the kit gives it.

        Raises:
            UserError: the result does not hold it.
        """


def prompts_job(
    kit: Adapter,
    datasets: Sequence[Dataset],
    folder: Path,
    data: Path,
    limit: int | None = None,
    style: str | None = None,
) -> dict[str, Any]:
    """Return the job that writes ``folder/questions.jsonl``.

    Args:
        kit: the kit whose worker does it.
        datasets: datasets of one suite.
        folder: a folder prepared by the kit.
        data: folder with the kit's data files.
        limit: questions of each dataset; None for all.
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
    """Write the responses {dataset: {question_id: text}} into ``out``; return the scoring job.

    Args:
        prompts: the job that made the questions, with the folder where they are now.
        out: an empty folder; the result goes to ``out/result.json``.
        answers: the model's responses to all questions.
        judge: address up to ``/v1``, name of the model to ask there, and whether it also reads
            options where the kit's own rules cannot.
    """
    file = out / "answers.json"
    file.write_text(json.dumps(answers, ensure_ascii=False), encoding="utf-8")
    url, name, reads = judge
    judge_fields = {"url": url, "name": name, "reads": reads}
    return {**prompts, "answers": str(file), "out": str(out), "judge": judge_fields}


def read_scores(
    kit: Adapter,
    file: Path,
    datasets: Sequence[Dataset],
    trials: Mapping[str, Trial] | None = None,
) -> tuple[str, dict[str, KitScore]]:
    """Read a ``result.json``: the kit with its version, and each dataset's score.

    Args:
        kit: the kit.
        file: what it wrote.
        datasets: that it scored.
        trials: what is known of the totals of datasets that were tried.

    Raises:
        UserError: the kit's total and its own per-question results disagree.
    """
    results = json.loads(file.read_text(encoding="utf-8"))
    scores = {}
    for dataset in datasets:
        result = results["datasets"][dataset.name]
        outcomes = [
            Outcome(
                question["question_id"],
                question["outcome"],
                question["extracted"],
                question["judged"],
                question.get("stratum", ""),
                tuple(Choice(**choice) for choice in question.get("unread", ())),
            )
            for question in result["questions"]
        ]
        score = summed_up(outcomes, float(result["seconds"]))
        total = None if score.missing else kit.total(dataset, result)
        scores[dataset.name] = with_total(dataset, score, total, (trials or {}).get(dataset.name))
    return results["kit"], scores
