"""What lmms-eval's own YAML files say about a task that is named as ``lmms-eval:TASK``."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from rilbench.errors import UserError
from rilbench.evaluate.suite import LMMSEVAL, Dataset, Suite

_NAME = re.compile(r"""^(task|group):[ \t]*["']?([^\s"'#]+)""", re.MULTILINE)
"""What a file defines: lmms-eval has one task or one group in each."""


_ANSWERS = "generate_until"
"""lmms-eval's word for a task whose output is a text."""


class _Loader(yaml.SafeLoader):
    """Reads the files without the functions that they name."""


_Loader.add_constructor("!function", lambda _, node: node.value)


def with_task_descriptions(suite: Suite, python: Path) -> Suite:
    """Return the suite with data folder and metric of each task of which they are not known.

    Args:
        suite: to be evaluated.
        python: lmms-eval's, which has the files beside it.

    Raises:
        UserError: there is no such task; it is a group; or its score cannot be read.
    """
    if suite.kit != LMMSEVAL or all(dataset.metric for dataset in suite.datasets):
        return suite
    files = _task_files(python)
    benchmarks = []
    for benchmark in suite.benchmarks:
        datasets = tuple(
            dataset if dataset.metric else _described(dataset, files)
            for dataset in benchmark.datasets
        )
        benchmarks.append(replace(benchmark, by_kit={**benchmark.by_kit, LMMSEVAL: datasets}))
    return replace(suite, benchmarks=tuple(benchmarks))


def _task_files(python: Path) -> dict[str, tuple[str, Path]]:
    """Return by name of a task or group which of both it is, and the file that defines it."""
    found = {}
    for folder in python.parent.parent.glob("lib/python*/site-packages/lmms_eval/tasks"):
        for file in folder.rglob("*.yaml"):
            named = dict(_NAME.findall(file.read_text(encoding="utf-8")))
            # A task's file may name its group; in a group's file "task" begins a list.
            kind = "task" if "task" in named else "group"
            if kind in named:
                found[named[kind]] = kind, file
    return found


def _described(dataset: Dataset, files: dict[str, tuple[str, Path]]) -> Dataset:
    name = dataset.name
    if name not in files:
        near = ", ".join(difflib.get_close_matches(name, files)) or "in its folder lmms_eval/tasks"
        raise UserError(f"lmms-eval has no task {name!r}; the nearest are {near}")
    kind, file = files[name]
    if kind == "group":
        tasks = ", ".join(_group_tasks(file)) or str(file)
        raise UserError(f"{name} is a group of lmms-eval's tasks; name one of them: {tasks}")
    task = _read(file)
    metric = (task.get("metric_list") or [None])[0] or {}
    key, output = str(metric.get("metric", "")), task.get("output_type", _ANSWERS)
    if not key or "submission" in key or output != _ANSWERS:
        raise UserError(
            f"lmms-eval computes no score of {name} from answers (its metric is {key or 'none'}, "
            f"its output {output}); evaluate another task"
        )
    if metric.get("higher_is_better") is False:
        raise UserError(
            f"{name}: lmms-eval's {key} is better when it is lower, and rilbench's scores are "
            "better when they are higher; name another metric of it in a TOML file"
        )
    filters = task.get("filter_list") or [{"name": "none"}]
    if filters[0]["name"] != "none":
        key = f"{key},{filters[0]['name']}"
    folder = "/".join(filter(None, (task.get("dataset_path"), task.get("dataset_name"))))
    return replace(dataset, metric=key, hub=folder)


def _read(file: Path) -> dict[str, Any]:
    """Read a file with those that it includes."""
    content: dict[str, Any] = yaml.load(file.read_text(encoding="utf-8"), _Loader)
    included = content.pop("include", [])
    whole: dict[str, Any] = {}
    for name in reversed([included] if isinstance(included, str) else included):
        whole |= _read(file.parent / name)
    return whole | content


def _group_tasks(file: Path) -> Iterator[str]:
    for task in _read(file).get("task") or []:
        yield task if isinstance(task, str) else str(task.get("task") or task.get("group"))
