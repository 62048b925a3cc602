"""lmms-eval's result folders, as version 0.7.3 writes them with ``--output_path``.

``OUT/MODEL/DATE_results.json`` has each task's total. ``DATE_samples_TASK.jsonl`` in the same
folder (written with ``--log_samples``) has one line per question: ``doc_id``, ``input``,
``target``, ``resps`` where they differ from ``filtered_resps``, and the task's verdict under the
metric's name: a number, or an object in the task's own form. Where the object gives no verdict
(MMBench's rotations), only the total is imported.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rilbench.evaluate.prompts import BenchmarkQuestion
from rilbench.evaluate.suite import LMMSEVAL, Dataset, Suite
from rilbench.importers.read_json import read_json, read_json_lines
from rilbench.importers.types import (
    UNKNOWN,
    DatasetResult,
    FolderResults,
    ImportedQuestion,
    ModelResult,
    UnreadableError,
    malformed_is_unreadable,
    settled,
)
from rilbench.ledger.builder import sha256
from rilbench.serving.reply import EMPTY

_RESULTS = re.compile(r"(?P<date>.+)_results\.json")
_SAMPLES = re.compile(r".+_samples_.+\.jsonl")
_EXTRACTED = ("extraction", "parsed_pred", "pred_parsed", "pred")
"""The tasks' names for the answer that they read from a response."""
_STRATA = {"mmstar": "l2_category"}
"""Tasks whose score is the mean of the groups' means, with the name of the group."""
_OLD_FILTERS = {"realworldqa": "exact_match,flexible-extract"}
"""Totals of tasks whose responses went through a filter up to version 0.7.1."""
_RANDOM = ("mmmu_val", "mmmu_pro_standard", "mmmu_pro_vision")
"""Tasks that choose an option at random when they read none."""
_OLD = "is of lmms-eval 0.1 or 0.2, whose layout is too old to be read; evaluate with 0.3 or newer"
_MILLION = 1_000_000
_MOST = 1_000 * _MILLION
"""More questions than any benchmark has."""


@dataclass(frozen=True)
class _Run:
    """One ``DATE_results.json``."""

    file: Path
    date: str
    values: Mapping[str, Any]

    @property
    def model(self) -> str:
        """The kit's name for the model, else the folder's name."""
        return str(self.values.get("model_name") or self.file.parent.name)

    @property
    def version(self) -> str:
        """The kit's commit; an installed kit does not say its version."""
        name = str(self.values.get("lmms_eval_version") or self.values.get("git_hash") or "")
        return UNKNOWN if UNKNOWN in name or not name else name

    @property
    def created(self) -> str | None:
        """When the kit wrote it, by the file's name (local time, which is not told)."""
        try:
            moment = datetime.datetime.strptime(self.date[-15:], "%Y%m%d_%H%M%S")
        except ValueError:
            return None
        return moment.replace(tzinfo=datetime.timezone.utc).isoformat()

    def samples(self, task: str) -> Path:
        """The file of a task's questions, which need not exist."""
        return self.file.with_name(f"{self.date}_samples_{task}.jsonl")

    def subtasks(self, dataset: Dataset) -> list[str]:
        """The tasks that the data set is divided into, or itself."""
        groups = self.values.get("group_subtasks")
        parts = groups.get(dataset.name) if isinstance(groups, dict) else None
        return [str(part) for part in parts] if dataset.parts > 1 and parts else [dataset.name]


_Line = tuple[str, dict[str, Any]]
"""A task and one line of its file of questions."""


def read(files: Iterable[Path], suite: Suite, results: FolderResults) -> set[Path]:
    """Read the kit's files into ``results``; return which of them are the kit's.

    If a task was run several times, the newest run counts.
    """
    known: set[Path] = set()
    models: dict[tuple[Path, str], list[_Run]] = {}
    for file in files:
        if _SAMPLES.fullmatch(file.name):
            known.add(file)
        elif name := _RESULTS.fullmatch(file.name):
            known.add(file)
            try:
                run = _Run(file, name["date"], _read_results(file))
            except UnreadableError as error:
                results.skip(file, str(error))
                continue
            models.setdefault((file.parent, run.model), []).append(run)
        elif _is_old(file):
            known.add(file)
            results.skip(file, _OLD)
    for (home, model), runs in models.items():
        result = _model(home, model, runs, suite, results)
        if result is not None:
            results.models.append(result)
    return known


def _is_old(file: Path) -> bool:
    """Whether it is ``results.json`` of the first versions, or ``TASK.json`` beside it."""
    if file.suffix != ".json" or not (file.parent / "results.json").is_file():
        return False
    try:
        values = read_json(file)
    except UnreadableError:
        return False
    if not isinstance(values, dict):
        return False
    return {"results", "versions"} <= values.keys() or {"model_configs", "logs"} <= values.keys()


def _read_results(file: Path) -> dict[str, Any]:
    values = read_json(file)
    if not isinstance(values, dict) or not isinstance(values.get("results"), dict):
        raise UnreadableError("has no results of lmms-eval")
    return values


def _model(
    home: Path, model: str, runs: Sequence[_Run], suite: Suite, results: FolderResults
) -> ModelResult | None:
    datasets: dict[str, DatasetResult] = {}
    notes = []
    newest_first = sorted(runs, key=lambda run: run.date, reverse=True)
    for dataset in suite.datasets:
        for run in newest_first:
            if dataset.name not in run.values["results"]:
                continue
            if dataset.name in datasets:
                notes.append(f"{dataset.name} of {run.file.name} is older and not imported")
                continue
            try:
                with malformed_is_unreadable():
                    datasets[dataset.name] = _dataset(dataset, run, results)
            except UnreadableError as error:
                results.skip(run.file, f"{dataset.name}: {error}")
    if not datasets:
        for run in runs:
            if not any(skipped.file == run.file for skipped in results.skipped):
                results.skip(run.file, f"has no task of the suite {suite.name}")
        return None
    used = {file for result in datasets.values() for file in result.files}
    created = max((run.created for run in runs if run.file in used and run.created), default=None)
    return ModelResult(LMMSEVAL, model, home, created, datasets, tuple(notes))


def _dataset(dataset: Dataset, run: _Run, results: FolderResults) -> DatasetResult:
    """Return a data set's score, with its questions when their mean is the score.

    Raises:
        UnreadableError: it has no score.
    """
    tasks = run.subtasks(dataset)
    metric = dataset.metric.partition(",")[0]
    lines = [
        (task, line)
        for task in tasks
        for line in _lines(run.samples(task), results)
        if metric in line  # SEED's videos lack the images' metric.
    ]
    notes, why = [], "as no file has its questions"
    if dataset.name in _RANDOM:
        notes.append(
            f"{dataset.name}: where the kit read no option it chose one at random; "
            "no file says where"
        )
    try:
        with malformed_is_unreadable():
            questions = [
                _question(dataset, task, line, line[metric], several=len(tasks) > 1)
                for task, line in lines
            ]
        if len({question.question_id for question in questions}) < len(questions):
            raise UnreadableError("as the file of its questions has one of them twice")
    except UnreadableError as error:
        questions, why = [], str(error)
    verdicts = [line[metric] for _, line in lines if isinstance(line[metric], dict)]
    judge = None
    if dataset.judging != "none":
        judges = {str(v["eval_model"]) for v in verdicts if v.get("eval_model")}
        judge = "+".join(sorted(judges)) or UNKNOWN
    result = DatasetResult(
        dataset=dataset,
        value=_total(dataset, run, [question.counted for question in questions]),
        questions=tuple(questions),
        count=len(questions) or _count(dataset, run, verdicts, len(lines)),
        judge=judge,
        kit_version=run.version,
        files=(run.file, *sorted({run.samples(task) for task, _ in lines})),
        asked=_asked(run, lines),
        notes=tuple(notes),
        metric=key if (key := _key(dataset, run)) in _OLD_FILTERS.values() else "",
    )
    return settled(result, why, judge)


def _lines(file: Path, results: FolderResults) -> list[dict[str, Any]]:
    """Return the questions of one task; none when there is no readable file."""
    if not file.is_file():
        return []
    try:
        lines = read_json_lines(file)
    except UnreadableError as error:
        results.skip(file, str(error))
        return []
    if not all(isinstance(line, dict) and "doc_id" in line for line in lines):
        results.skip(file, "has a line that is no question")
        return []
    return lines


def _key(dataset: Dataset, run: _Run) -> str:
    """Return the total's name: the metric with the filter of the responses, if there was one."""
    usual = dataset.metric if "," in dataset.metric else f"{dataset.metric},none"
    task, old = run.values["results"][dataset.name], _OLD_FILTERS.get(dataset.name)
    is_old = isinstance(task, dict) and usual not in task and old in task
    return old if old is not None and is_old else usual


def _total(dataset: Dataset, run: _Run, counted: Sequence[float]) -> float:
    """Return the kit's own number on the 0-100 scale."""
    task, key = run.values["results"][dataset.name], _key(dataset, run)
    if not isinstance(task, dict) or key not in task:
        raise UnreadableError(f"has no {key}")
    total = task[key]
    if total is None and counted and not any(counted):
        return 0.0  # MathVista's total is null when no answer is right.
    if isinstance(total, bool) or not isinstance(total, int | float):
        raise UnreadableError(f"{key} is {str(total)[:40]!r}, no number")
    scale = dataset.scale or 100
    if not 0 <= total <= scale:
        raise UnreadableError(f"{key} is {str(total)[:40]}, out of range")
    return float(total) * (100 / scale)


def _question(
    dataset: Dataset, task: str, line: Mapping[str, Any], verdict: Any, *, several: bool
) -> ImportedQuestion:
    """Return one line of a task.

    Raises:
        UnreadableError: it does not say how much of the answer is right.
    """
    details: Mapping[str, Any] = verdict if isinstance(verdict, dict) else {}
    filtered = line.get("filtered_resps", "")
    response = _plain(line.get("resps", filtered))
    counted = _share(dataset, verdict, details)
    # A judge that failed left no name; one that extracted nothing from a response gave no verdict.
    lost = dataset.judged and (
        details.get("eval_model", "-") in ("", None)
        or (details.get("extraction") == "" and response)
    )
    name, prompt = str(line["doc_id"]), str(line.get("input", ""))
    extracted = next((details[key] for key in _EXTRACTED if key in details), filtered)
    asked = BenchmarkQuestion(dataset.name, name, name, "", None, (), question=prompt)
    return ImportedQuestion(
        question_id=f"{task.removeprefix(f'{dataset.name}_')}/{name}" if several else name,
        score=None if lost or not response.strip() else counted,
        counted=counted,
        response=response,
        gold=str(line.get("target", "")),
        judged=dataset.judged,
        extracted=_plain(extracted),
        stem=asked.stem or None,
        stratum=task if several else str(details.get(_STRATA.get(dataset.name, ""), "")),
        prompt_hash=sha256(prompt)[:16] if prompt else "",
        no_answer="" if response.strip() else EMPTY,
        category=task.removeprefix(f"{dataset.name}_") if several else _category(dataset, line),
    )


def _category(dataset: Dataset, line: Mapping[str, Any]) -> str | None:
    """Return a question's category, as far as its verdict has it; MMStar's is a metric's name."""
    metric = dataset.metric.partition(",")[0]
    details = line[metric] if isinstance(line[metric], dict) else {}
    if dataset.name in _STRATA:
        names = [name for name, value in line.items() if value == details and name != metric]
        return names[0] if details and names else None
    metadata = details.get("metadata")
    found = {**(metadata if isinstance(metadata, dict) else {}), **details}.get(dataset.category)
    return None if found is None else str(found)


def _share(dataset: Dataset, verdict: Any, details: Mapping[str, Any]) -> float:
    """Return the task's value for an answer, 0 to 1."""
    for key in ("score", "true_false", "is_correct"):
        verdict = details.get(key, verdict)
    if isinstance(verdict, dict) and not dataset.circular and "answer" in details:
        read = details.get("parsed_pred", details.get("pred"))
        verdict = _plain(read) == _plain(details["answer"])
    if isinstance(verdict, bool | int | float) and 0 <= verdict <= 1:
        return float(verdict)
    raise UnreadableError("as the file of its questions does not say which are right")


def _plain(value: Any) -> str:
    """Return a text, or the only text of a list."""
    while isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    return str(value)


def _count(dataset: Dataset, run: _Run, verdicts: Sequence[dict[str, Any]], lines: int) -> int:
    """Return how many questions were scored when they cannot be read; 0 if unknown.

    Raises:
        UnreadableError: the kit's count is none.
    """
    if dataset.circular:
        indices = [v["index"] for v in verdicts if isinstance(v.get("index"), int)]
        return len({index % _MILLION for index in indices})
    numbers = run.values.get("n-samples")
    if not isinstance(numbers, dict) or dataset.only is not None:
        return lines
    total = 0
    for task in run.subtasks(dataset):
        count = numbers.get(task, {"effective": 0})
        scored = count.get("effective") if isinstance(count, dict) else count
        if type(scored) is not int or not 0 <= scored <= _MOST:
            raise UnreadableError(f"n-samples has {str(scored)[:40]!r} where a count should be")
        total += scored
    return total


def _asked(run: _Run, lines: Sequence[_Line]) -> str:
    """Return a hash of the prompts and the generation settings, as far as the files say."""
    if not lines or not all("input" in line for _, line in lines):
        return UNKNOWN
    configs = run.values.get("configs")
    generation = {}
    for task in sorted({task for task, _ in lines}):
        own = configs.get(task, {}) if isinstance(configs, dict) else {}
        if not isinstance(own, dict):
            raise UnreadableError(f"configs has {str(own)[:40]!r} where settings should be")
        generation[task] = own.get("generation_kwargs")
    config = run.values.get("config")
    override = config.get("gen_kwargs") if isinstance(config, dict) else None
    prompts = sorted([task, str(line["doc_id"]), str(line["input"])] for task, line in lines)
    return sha256(json.dumps([generation, override, prompts]))[:16]
