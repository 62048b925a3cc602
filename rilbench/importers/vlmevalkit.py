"""VLMEvalKit's result folders, as ms-vlmeval 0.0.20 and its predecessors write them.

Of a model and a dataset there are, in ``WORK/MODEL`` or in a folder for each run within it, named
``T20260131-120000`` or ``T20260131_G1a2b3c4d`` after the time and the kit's commit:

=====================================  =============================================================
``MODEL_DATASET.xlsx``                 the answers
``MODEL_DATASET_acc.csv``              the score, of choices and ChartQA
``MODEL_DATASET_JUDGE_result.xlsx``    choices: each question's ``hit``, and in ``log`` why
``MODEL_DATASET_results.xlsx``         ChartQA: each question's ``eval_match``
``MODEL_DATASET_JUDGE.xlsx``           MathVista and MM-Vet: what the judge said of each question
``MODEL_DATASET_JUDGE_score.csv``      their score
=====================================  =============================================================

Tables may be ``tsv`` or ``json`` instead. A file is named after the judge that was to be asked:
also where it could not be, and the kit's own rules decided. Who did stands in the questions' logs.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rilbench.evaluate.suite import VLMEVALKIT, Dataset, Suite
from rilbench.importers.read_tables import is_table
from rilbench.importers.types import UNKNOWN, DatasetResult, Found, ModelResult, UnreadableError
from rilbench.importers.vlmevalkit_scores import Files, read_dataset

_RUN = re.compile(r"T\d{8}(-\d{6}|_G(?P<commit>[0-9a-fA-F]+))")
"""How the kit calls a run's folder."""
_OTHER_DATA = ("NO_MASK", "V11", "Hard", "COT", "KO", "TR", "MINI", "circular")
"""With one of these after it, a dataset's name is that of another dataset."""
_STATUS = "status.json"
_CALLED = {"openai": "chatgpt-0125", "gpt4": "gpt-4-0125"}
"""Judges that the kit has short names for."""


@dataclass(frozen=True)
class FileName:
    """What a file's name says: whose it is, of which dataset, and what is in it.

    ``kind`` is "answers", "total", "questions" (then with the judge, empty for ChartQA), or
    "other", a file that the kit writes but that says nothing more.
    """

    model: str
    dataset: Dataset
    kind: str
    judge: str = ""


def parse_name(file: Path, suite: Suite) -> FileName | None:
    """Read a file's name; None where it is not one of the kit's for the suite's datasets."""
    stem = file.stem
    for dataset in sorted(suite.datasets, key=lambda each: -len(each.name)):
        mark = f"_{dataset.name}"
        place = stem.rfind(mark)
        rest = stem[place + len(mark) :]
        if place <= 0 or (rest and not rest.startswith("_")) or rest[1:].startswith(_OTHER_DATA):
            continue
        kind = _kind(rest, dataset)
        return None if kind is None else FileName(stem[:place], dataset, *kind)
    return None


def _kind(rest: str, dataset: Dataset) -> tuple[str, str] | None:
    if not rest:
        return "answers", ""
    graded = dataset.judged
    if rest.endswith("_score_fine") or rest in ("_acc_all", "_cotpost") or "_vanilla_" in rest:
        return "other", ""
    if graded and rest.endswith("_score"):
        return "total", _called(rest.removesuffix("_score"))
    if graded:
        return "questions", _called(rest)
    if rest == "_acc":
        return "total", ""
    if rest == "_results" and dataset.judging == "none":
        return "questions", ""
    if rest.endswith("_result") and dataset.judging != "none":
        return "questions", _called(rest.removesuffix("_result"))
    return None


def _called(rest: str) -> str:
    return _CALLED.get(rest[1:], rest[1:])


def read(files: Iterable[Path], suite: Suite, found: Found) -> set[Path]:
    """Read the kit's files into ``found``; return which of them are the kit's.

    Of a dataset that was scored in several runs the newest counts.
    """
    kits = {
        file: name
        for file in files
        if is_table(file) and (name := parse_name(file, suite)) is not None
    }
    models: dict[tuple[Path, str], dict[Path, dict[Path, FileName]]] = {}
    for file, name in kits.items():
        home = file.parent.parent if _RUN.fullmatch(file.parent.name) else file.parent
        runs = models.setdefault((home, name.model), {})
        runs.setdefault(file.parent, {})[file] = name
    for (home, model), runs in models.items():
        result = _model(home, model, runs, suite, found)
        if result is not None:
            found.models.append(result)
    status = {file for file in files if file.name == _STATUS and _is_status(file)}
    return {*kits, *status}


def _model(
    home: Path,
    model: str,
    runs: Mapping[Path, Mapping[Path, FileName]],
    suite: Suite,
    found: Found,
) -> ModelResult | None:
    datasets: dict[str, DatasetResult] = {}
    notes: list[str] = []
    # The folder of the model has the newest, or links to it; then run by run.
    order = sorted(runs, key=lambda run: (run == home, run.name), reverse=True)
    for dataset in suite.datasets:
        read_from: Path | None = None
        for run in order:
            own = [(f, n) for f, n in runs[run].items() if n.dataset == dataset]
            if not own:
                continue
            if read_from is not None:
                if any(name.kind == "total" for _, name in own) and not _same(own, datasets):
                    notes.append(f"{dataset.name} of {run.name} is older and not imported")
                continue
            result = _dataset(dataset, run, own, found)
            if result is not None:
                datasets[dataset.name], read_from = result, run
    if not datasets:
        return None
    times = [file.stat().st_mtime for each in datasets.values() for file in each.files]
    created = datetime.datetime.fromtimestamp(max(times), datetime.timezone.utc).isoformat()
    return ModelResult(VLMEVALKIT, model, home, created, datasets, tuple(notes))


def _same(own: Sequence[tuple[Path, FileName]], datasets: Mapping[str, DatasetResult]) -> bool:
    """Whether the run's files are those that were read, which are then links to them."""
    read_files = {file.resolve() for each in datasets.values() for file in each.files}
    return all(file.resolve() in read_files for file, name in own if name.kind == "total")


def _dataset(
    dataset: Dataset, run: Path, own: Sequence[tuple[Path, FileName]], found: Found
) -> DatasetResult | None:
    """One dataset's result in one run's folder."""

    def of(kind: str) -> list[Path]:
        return sorted(file for file, name in own if name.kind == kind)

    answers, totals = (
        of("answers"),
        {file: name.judge for file, name in own if name.kind == "total"},
    )
    questions = {file: name.judge for file, name in own if name.kind == "questions"}
    if not totals:
        for file in sorted([*answers, *questions]):
            found.skip(file, "has no score beside it; let the kit finish its evaluation")
        return None
    # Of a judged dataset each judge has a total; the newest evaluation counts.
    total = max(totals, key=lambda file: (file.stat().st_mtime, file.name))
    for other in sorted(set(totals) - {total}):
        found.skip(other, f"is another judge's than that of {total.name}, which is newer")
    if dataset.judged:
        judge = totals[total]
        questions = {file: name for file, name in questions.items() if name == judge}
    files = Files(total, totals[total], tuple(answers), questions)
    try:
        return read_dataset(dataset, files, _version(total), found)
    except UnreadableError as error:
        found.skip(total, str(error))
        return None


def _version(file: Path) -> str:
    """The kit's commit, as the run's folder or its status names it."""
    run = file.resolve().parent
    named = _RUN.fullmatch(run.name)
    commit = named["commit"] if named else None
    if commit is None and _is_status(run / _STATUS):
        commit = json.loads((run / _STATUS).read_text(encoding="utf-8")).get("commit")
    return f"commit {commit}" if re.fullmatch(r"[0-9a-fA-F]{6,40}", str(commit)) else UNKNOWN


def _is_status(file: Path) -> bool:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(value, dict) and {"eval_id", "datasets"} <= value.keys()
