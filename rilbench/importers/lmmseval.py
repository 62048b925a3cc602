"""lmms-eval's result folders, as version 0.7.3 writes them with ``--output_path``.

``OUT/MODEL/DATE_results.json`` has each task's total, ``DATE_samples_TASK.jsonl`` beside it (with
``--log_samples``) a line for each question: ``doc_id``, ``input``, ``target``, ``resps`` where they
differ from ``filtered_resps``, and under the metric's name what the task made of it. That is a
number, or an object that says it in the task's own way; where it does not (MMBench's rotations) the
total is imported alone.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rilbench.evaluate.prompts import Question as Asked
from rilbench.evaluate.suite import LMMSEVAL, Dataset, Suite
from rilbench.importers.types import (
    UNKNOWN,
    DatasetResult,
    Found,
    ModelResult,
    Question,
    UnreadableError,
    settled,
)

_RESULTS = re.compile(r"(?P<date>.+)_results\.json")
_SAMPLES = re.compile(r".+_samples_.+\.jsonl")
_READ = ("extraction", "parsed_pred", "pred_parsed", "pred")
"""What the tasks call the answer that they read from a text."""
_STRATA = {"mmstar": "l2_category"}
"""Where the kit takes the mean of the groups' means."""
_DRAWS = ("mmmu_val", "mmmu_pro_standard", "mmmu_pro_vision")
"""Where the kit draws an option at random when it reads none."""
_MILLION = 1_000_000


@dataclass(frozen=True)
class _Run:
    """One ``DATE_results.json``."""

    file: Path
    date: str
    values: Mapping[str, Any]

    @property
    def model(self) -> str:
        """As the kit was told, else as the folder is called."""
        return str(self.values.get("model_name") or self.file.parent.name)

    @property
    def version(self) -> str:
        """The kit's commit; an installed one does not say its version."""
        named = str(self.values.get("lmms_eval_version") or self.values.get("git_hash") or "")
        return UNKNOWN if UNKNOWN in named or not named else named

    def samples(self, task: str) -> Path:
        """Where the task's questions stand, if it has them."""
        return self.file.with_name(f"{self.date}_samples_{task}.jsonl")

    def subtasks(self, dataset: Dataset) -> list[str]:
        """The tasks that the dataset is divided into, or itself."""
        named = self.values.get("group_subtasks")
        parts = named.get(dataset.name) if isinstance(named, dict) else None
        return [str(part) for part in parts] if dataset.parts > 1 and parts else [dataset.name]


def read(files: Iterable[Path], suite: Suite, found: Found) -> set[Path]:
    """Read the kit's files into ``found``; return which of them are the kit's.

    Of a task that was run several times the newest counts.
    """
    known: set[Path] = set()
    models: dict[tuple[Path, str], list[_Run]] = {}
    for file in files:
        if _SAMPLES.fullmatch(file.name):
            known.add(file)
        elif name := _RESULTS.fullmatch(file.name):
            known.add(file)
            try:
                run = _Run(file, name["date"], _results(file))
            except UnreadableError as error:
                found.skip(file, str(error))
                continue
            models.setdefault((file.parent, run.model), []).append(run)
    for (home, model), runs in models.items():
        result = _model(home, model, runs, suite, found)
        if result is not None:
            found.models.append(result)
    return known


def _results(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UnreadableError(f"is no JSON, or cut short ({str(error)[:100]})") from error
    if not isinstance(values, dict) or not isinstance(values.get("results"), dict):
        raise UnreadableError("has no results of lmms-eval")
    return values


def _model(
    home: Path, model: str, runs: Sequence[_Run], suite: Suite, found: Found
) -> ModelResult | None:
    datasets: dict[str, DatasetResult] = {}
    notes = []
    newest = sorted(runs, key=lambda run: run.date, reverse=True)
    for dataset in suite.datasets:
        for run in (each for each in newest if dataset.name in each.values["results"]):
            if dataset.name in datasets:
                notes.append(f"{dataset.name} of {run.file.name} is older and not imported")
                continue
            try:
                datasets[dataset.name] = _dataset(dataset, run, found)
            except UnreadableError as error:
                found.skip(run.file, f"{dataset.name}: {error}")
    if not datasets:
        for run in runs:
            if not any(each.file == run.file for each in found.skipped):
                found.skip(run.file, f"has no task of the suite {suite.name}")
        return None
    times = [file.stat().st_mtime for each in datasets.values() for file in each.files]
    created = datetime.datetime.fromtimestamp(max(times), datetime.timezone.utc).isoformat()
    return ModelResult(LMMSEVAL, model, home, created, datasets, tuple(notes))


def _dataset(dataset: Dataset, run: _Run, found: Found) -> DatasetResult:
    """A dataset's score, with its questions if they come to it.

    Raises:
        UnreadableError: it has no score.
    """
    lines = [
        (task, line)
        for task in run.subtasks(dataset)
        for line in _lines(run.samples(task), found)
        if _metric(dataset) in line  # SEED's videos lack the images' metric.
    ]
    notes, why = [], "as no file has its questions"
    if dataset.name in _DRAWS:
        notes.append(
            f"{dataset.name}: where the kit read no option it drew one; no file says where"
        )
    try:
        questions = [_question(dataset, run.subtasks(dataset), *each) for each in lines]
        _require_distinct(questions)
    except UnreadableError as error:
        questions, why = [], str(error)
    result = DatasetResult(
        dataset=dataset,
        value=_total(dataset, run, [each.counted for each in questions]),
        questions=tuple(questions),
        count=len(questions) or _count(dataset, run, lines),
        judge=_judge(dataset, lines),
        kit_version=run.version,
        files=(run.file, *sorted({run.samples(task) for task, _ in lines})),
        asked=_asked(run, lines),
        notes=tuple(notes),
    )
    return settled(result, why, result.judge)


def _lines(file: Path, found: Found) -> list[dict[str, Any]]:
    """The questions of one task; none where the file is not there or cannot be read."""
    if not file.is_file():
        return []
    lines: list[dict[str, Any]] = []
    try:
        with file.open(encoding="utf-8") as stream:
            lines = [json.loads(line) for line in stream if line.strip()]
    except (OSError, ValueError, RecursionError) as error:
        found.skip(file, f"is no JSON lines, or cut short ({str(error)[:100]})")
        return []
    if not all(isinstance(line, dict) and "doc_id" in line for line in lines):
        found.skip(file, "has a line that is no question")
        return []
    return lines


def _metric(dataset: Dataset) -> str:
    return dataset.metric.partition(",")[0]


def _total(dataset: Dataset, run: _Run, counted: Sequence[float]) -> float:
    key = dataset.metric if "," in dataset.metric else f"{dataset.metric},none"
    own = run.values["results"][dataset.name]
    if not isinstance(own, dict) or key not in own:
        raise UnreadableError(f"has no {key}")
    total = own[key]
    if total is None and counted and not any(counted):
        return 0.0  # MathVista's is nothing where no answer is right.
    if isinstance(total, bool) or not isinstance(total, int | float):
        raise UnreadableError(f"{key} is {str(total)[:40]!r}, no number")
    value = float(total) * (100 / dataset.scale)
    if not 0 <= value <= 100:
        raise UnreadableError(f"{key} is {total}, out of range")
    return value


def _question(
    dataset: Dataset, tasks: Sequence[str], task: str, line: Mapping[str, Any]
) -> Question:
    """One line of a task.

    Raises:
        UnreadableError: it does not say how much of the answer is right.
    """
    found = line[_metric(dataset)]
    told: Mapping[str, Any] = found if isinstance(found, dict) else {}
    filtered = line.get("filtered_resps", "")
    response = _plain(line.get("resps", filtered))
    counted = _share(dataset, found, told)
    lost = dataset.judged and (
        told.get("eval_model", "-") in ("", None) or (told.get("extraction") == "" and response)
    )
    name = str(line["doc_id"])
    part = task.removeprefix(f"{dataset.name}_")
    asked = str(line.get("input", ""))
    read = next((told[key] for key in _READ if key in told), filtered)
    return Question(
        question_id=f"{part}/{name}" if len(tasks) > 1 else name,
        score=None if lost else counted,
        counted=counted,
        response=response,
        gold=str(line.get("target", "")),
        judged=dataset.judged,
        extracted=_plain(read),
        stem=Asked(dataset.name, name, name, "", None, (), question=asked).stem or None,
        stratum=task if len(tasks) > 1 else str(told.get(_STRATA.get(dataset.name, ""), "")),
        prompt_hash=hashlib.sha256(asked.encode()).hexdigest()[:16] if asked else "",
    )


def _share(dataset: Dataset, found: Any, told: Mapping[str, Any]) -> float:
    """What the task made of an answer, 0 to 1."""
    for key in ("score", "true_false", "is_correct"):
        found = told.get(key, found)
    if isinstance(found, dict) and not dataset.circular and "answer" in told:
        read = told.get("parsed_pred", told.get("pred"))
        found = _plain(read) == _plain(told["answer"])
    if isinstance(found, bool | int | float) and math.isfinite(found) and 0 <= found <= 1:
        return float(found)
    raise UnreadableError("as the file of its questions does not say which are right")


def _require_distinct(questions: Sequence[Question]) -> None:
    if len({each.question_id for each in questions}) < len(questions):
        raise UnreadableError("as the file of its questions has one of them twice")


def _plain(value: Any) -> str:
    """A text, or the only one of a list."""
    while isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    return str(value)


def _judge(dataset: Dataset, lines: Sequence[tuple[str, Mapping[str, Any]]]) -> str | None:
    """Who decided, where the kit names it."""
    if dataset.judging == "none":
        return None
    metrics = [line[_metric(dataset)] for _, line in lines]
    named = {str(m["eval_model"]) for m in metrics if isinstance(m, dict) and m.get("eval_model")}
    return "+".join(sorted(named)) or UNKNOWN


def _count(dataset: Dataset, run: _Run, lines: Sequence[tuple[str, Mapping[str, Any]]]) -> int:
    """How many questions were scored, where they themselves cannot be read; 0 if unknown."""
    if dataset.circular:
        metrics = [m for _, line in lines if isinstance(m := line[_metric(dataset)], dict)]
        return len({m["index"] % _MILLION for m in metrics if isinstance(m.get("index"), int)})
    numbers = run.values.get("n-samples")
    if not isinstance(numbers, dict) or dataset.only is not None:
        return len(lines)
    counts = [numbers.get(task) for task in run.subtasks(dataset)]
    return sum(int(each["effective"]) for each in counts if isinstance(each, dict))


def _asked(run: _Run, lines: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """Hash of the prompts and of how answers were drawn, as far as the files say."""
    if not lines or not all("input" in line for _, line in lines):
        return UNKNOWN
    configs = run.values.get("configs")
    tasks = {task for task, _ in lines}
    how = {
        task: configs.get(task, {}).get("generation_kwargs") if isinstance(configs, dict) else None
        for task in sorted(tasks)
    }
    config = run.values.get("config")
    more = config.get("gen_kwargs") if isinstance(config, dict) else None
    asked = sorted([task, str(line["doc_id"]), str(line["input"])] for task, line in lines)
    return hashlib.sha256(json.dumps([how, more, asked]).encode()).hexdigest()[:16]
