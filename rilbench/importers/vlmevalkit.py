"""VLMEvalKit's result folders, as ms-vlmeval 0.0.20 and its predecessors write them.

The files of a model and a data set are in ``WORK/MODEL``, or there in one folder per run, named
``T20260131-120000`` or ``T20260131_G1a2b3c4d`` after the time and the kit's commit:

=====================================  =============================================================
``MODEL_DATASET.xlsx``                 the answers
``MODEL_DATASET_acc.csv``              the score, of choices and ChartQA
``MODEL_DATASET_JUDGE_result.xlsx``    choices: each question's ``hit``, and in ``log`` why
``MODEL_DATASET_results.xlsx``         ChartQA: each question's ``eval_match``
``MODEL_DATASET_JUDGE.xlsx``           MathVista and MM-Vet: the judge's reply to each question
``MODEL_DATASET_JUDGE_score.csv``      their score
=====================================  =============================================================

Tables may be ``tsv`` or ``json`` instead. A file is named after the configured judge, even when
that judge failed and the kit's own rules decided. The questions' logs say who decided.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rilbench.evaluate.suite import VLMEVALKIT, Dataset, Suite
from rilbench.importers.read_json import read_json
from rilbench.importers.read_tables import is_table
from rilbench.importers.types import (
    UNKNOWN,
    DatasetResult,
    FolderResults,
    ModelResult,
    UnreadableError,
    malformed_is_unreadable,
)
from rilbench.importers.vlmevalkit_scores import DatasetFiles, read_dataset
from rilbench.printable import valid_text

_RUN = re.compile(r"T(?P<day>\d{8})(-(?P<time>\d{6})|_G(?P<commit>[0-9a-fA-F]+))")
"""The kit's name for a run's folder."""
_OTHER_DATA = ("NO_MASK", "V11", "Hard", "COT", "KO", "TR", "MINI", "circular")
"""After a data set's name, one of these makes it the name of another data set."""
_STATUS = "status.json"
_SHORT_NAMES = {"openai": "chatgpt-0125", "gpt4": "gpt-4-0125"}
"""Judges that the kit has short names for."""


@dataclass(frozen=True)
class FileName:
    """A file's model, data set and content, read from its name.

    ``kind`` is "answers", "total", "questions" (with the judge, which is empty for ChartQA), or
    "other", a file of the kit that says nothing more.
    """

    model: str
    dataset: Dataset
    kind: str
    judge: str = ""


def parse_name(file: Path, suite: Suite) -> FileName | None:
    """Read a file's name; None where it is not one of the kit's for the suite's data sets."""
    stem = file.stem
    # The longest name first, since one data set's name may be the beginning of another's.
    for dataset in sorted(suite.datasets, key=lambda dataset: -len(dataset.name)):
        mark = f"_{dataset.name}"
        place = stem.rfind(mark)
        rest = stem[place + len(mark) :]
        if place <= 0 or (rest and not rest.startswith("_")) or rest[1:].startswith(_OTHER_DATA):
            continue
        kind = _kind(rest, dataset)
        return None if kind is None else FileName(stem[:place], dataset, *kind)
    return None


def _kind(rest: str, dataset: Dataset) -> tuple[str, str] | None:
    """Return kind and judge from the end of a file's name."""

    def judge(name: str) -> str:
        return _SHORT_NAMES.get(name[1:], valid_text(name[1:]))

    if not rest:
        return "answers", ""
    if rest.endswith("_score_fine") or rest in ("_acc_all", "_cotpost") or "_vanilla_" in rest:
        return "other", ""
    if dataset.judged and rest.endswith("_score"):
        return "total", judge(rest.removesuffix("_score"))
    if dataset.judged:
        return "questions", judge(rest)
    if rest == "_acc":
        return "total", ""
    if rest == "_results" and dataset.judging == "none":
        return "questions", ""
    if rest.endswith("_result") and dataset.judging != "none":
        return "questions", judge(rest.removesuffix("_result"))
    return None


def read(files: Iterable[Path], suite: Suite, results: FolderResults) -> set[Path]:
    """Read the kit's files into ``results``; return which of them are the kit's.

    If a data set was scored in several runs, the newest counts.
    """
    names = {
        file: name
        for file in files
        if is_table(file) and (name := parse_name(file, suite)) is not None
    }
    # By the model's folder and name: the files of each run.
    models: dict[tuple[Path, str], dict[Path, dict[Path, FileName]]] = {}
    for file, name in names.items():
        home = file.parent.parent if _RUN.fullmatch(file.parent.name) else file.parent
        runs = models.setdefault((home, name.model), {})
        runs.setdefault(file.parent, {})[file] = name
    for (home, model), runs in models.items():
        result = _model(home, model, runs, suite, results)
        if result is not None:
            results.models.append(result)
    status = {file for file in files if file.name == _STATUS and _is_status(file)}
    return {*names, *status}


def _model(
    home: Path,
    model: str,
    runs: Mapping[Path, Mapping[Path, FileName]],
    suite: Suite,
    results: FolderResults,
) -> ModelResult | None:
    datasets: dict[str, DatasetResult] = {}
    notes: list[str] = []
    # The model's folder has the newest files, or links to them; then the runs, newest first.
    order = sorted(runs, key=lambda run: (run == home, run.name), reverse=True)
    for dataset in suite.datasets:
        for run in order:
            files = {file: name for file, name in runs[run].items() if name.dataset == dataset}
            if dataset.name in datasets:
                read_files = {file.resolve() for d in datasets.values() for file in d.files}
                totals = [file for file, name in files.items() if name.kind == "total"]
                # A total that was read already is a link to the newer one.
                if any(file.resolve() not in read_files for file in totals):
                    notes.append(f"{dataset.name} of {run.name} is older and not imported")
            elif files and (result := _dataset(dataset, files, results)) is not None:
                datasets[dataset.name] = result
    if not datasets:
        return None
    folders = {file.resolve().parent.name for d in datasets.values() for file in d.files}
    created = max(filter(None, map(_created, folders)), default=None)
    return ModelResult(VLMEVALKIT, model, home, created, datasets, tuple(notes))


def _created(folder: str) -> str | None:
    """When a run started, by its folder's name; the kit writes local time, which is not told."""
    if (run := _RUN.fullmatch(folder)) is None:
        return None
    try:
        moment = datetime.datetime.strptime(run["day"] + (run["time"] or "000000"), "%Y%m%d%H%M%S")
    except ValueError:  # no day of a calendar
        return None
    return moment.replace(tzinfo=datetime.timezone.utc).isoformat()


def _dataset(
    dataset: Dataset, files: Mapping[Path, FileName], results: FolderResults
) -> DatasetResult | None:
    """Return a data set's result in one run's folder; None, with a reason, without a total."""

    def of(kind: str) -> dict[Path, str]:
        return {file: name.judge for file, name in sorted(files.items()) if name.kind == kind}

    answers, totals, questions = of("answers"), of("total"), of("questions")
    if not totals:
        for file in sorted([*answers, *questions]):
            results.skip(file, "has no score beside it; let the kit finish its evaluation")
        return None
    # A judged data set has one total per judge; the newest evaluation counts.
    total = max(totals, key=lambda file: (file.stat().st_mtime, file.name))
    for other in sorted(set(totals) - {total}):
        results.skip(other, f"is another judge's than that of {total.name}, which is newer")
    if dataset.judged:
        questions = {file: judge for file, judge in questions.items() if judge == totals[total]}
    chosen = DatasetFiles(total, totals[total], tuple(answers), questions)
    try:
        with malformed_is_unreadable():
            return read_dataset(dataset, chosen, _version(total), results)
    except UnreadableError as error:
        results.skip(total, str(error))
        return None


def _version(file: Path) -> str:
    """Return the kit's commit, from the name of the run's folder or from its status file."""
    run = file.resolve().parent
    name = _RUN.fullmatch(run.name)
    commit = name["commit"] if name else None
    if commit is None and _is_status(run / _STATUS):
        commit = read_json(run / _STATUS).get("commit")
    return f"commit {commit}" if re.fullmatch(r"[0-9a-fA-F]{6,40}", str(commit)) else UNKNOWN


def _is_status(file: Path) -> bool:
    try:
        value = read_json(file)
    except UnreadableError:
        return False
    return isinstance(value, dict) and {"eval_id", "datasets"} <= value.keys()
