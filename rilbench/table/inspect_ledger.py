"""What the ledger holds, as a list; and one run or evaluation in full."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from rilbench.benchmark_names import COLUMNS
from rilbench.errors import UserError
from rilbench.ledger import Evaluation, Ledger, Run
from rilbench.table.formatting import number, printable
from rilbench.table.question_diff import find_evaluation
from rilbench.table.types import average

_HASH = re.compile(r"\b[0-9a-f]{64}\b")


Record = Run | Evaluation


def everything(ledger: Ledger) -> list[Record]:
    """Every training run, then every evaluation, the newest first."""
    return [*ledger.runs()[::-1], *ledger.evaluations()]


def overview(found: Sequence[Record], path: Path) -> Iterator[Table | Text]:
    """Yield the runs and the evaluations of the ledger at ``path`` as lists."""
    runs = [each for each in found if isinstance(each, Run)]
    evaluations = [each for each in found if isinstance(each, Evaluation)]
    if not found:
        yield Text(f"{path} is empty; rilbench train and rilbench eval write to it")
    if runs:
        yield Text("training runs", style="bold")
        yield _runs_table(runs)
    if runs and evaluations:
        yield Text()
    if evaluations:
        yield Text("evaluations", style="bold")
        yield _evaluations_table(evaluations)


def _grid(*heads: str, right: Sequence[str] = ()) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for head in heads:
        table.add_column(head, justify="right" if head in right else "left", overflow="fold")
    return table


def _runs_table(runs: Sequence[Run]) -> Table:
    heads = ("run", "student", "method", "teacher", "seed", "status", "steps", "created", "path")
    table = _grid(*heads, right=("seed", "steps"))
    for run in runs:
        steps = run.figures.get("steps")
        cells = (
            *(run.name, run.student, run.method, run.teacher),
            *("" if run.seed is None else str(run.seed), run.status),
            *("" if steps is None else str(steps), run.created[:16], run.path),
        )
        table.add_row(*[Text(printable(cell)) for cell in cells])
    return table


def _evaluations_table(evaluations: Sequence[Evaluation]) -> Table:
    heads = ("#", "student", "method", "teacher", "suite", "kit", "scores", "mean", "created")
    table = _grid(*heads, "path", right=("#", "scores", "mean"))
    for each in evaluations:
        scores = {score.benchmark: score.value for score in each.scores}
        mean = average(scores, scores)
        cells = (
            *(str(each.id), each.student, each.method, each.teacher, each.suite, each.kit),
            *(str(len(scores)), number(mean), each.created[:16], each.path),
        )
        table.add_row(*[Text(printable(cell)) for cell in cells])
    return table


def find(ledger: Ledger, name: str) -> Record:
    """A run by its name or path, else an evaluation as `find_evaluation` finds it.

    Raises:
        UserError: there is none, or the name stands for several.
    """
    runs = [run for run in ledger.runs() if name.rstrip("/") in (run.name, run.path)]
    if len(runs) > 1:
        paths = ", ".join(run.path for run in runs)
        raise UserError(f"{ledger.path} has several runs {name!r}: {paths}; give a path")
    return runs[0] if runs else find_evaluation(ledger, name)


def in_full(found: Record) -> Iterator[Table | Text]:
    """Yield all that is known of one, answers and curves excepted."""
    if isinstance(found, Run):
        yield from _run_in_full(found)
    else:
        yield from _evaluation_in_full(found)


def _run_in_full(run: Run) -> Iterator[Table | Text]:
    hidden = ("recipe_yaml", "figures", "curves")
    facts = {f.name: getattr(run, f.name) for f in dataclasses.fields(run) if f.name not in hidden}
    yield _facts(facts)
    for title, content in (("figures", run.figures), ("last step", _last(run.curves))):
        if content:
            yield Text(f"\n{title}", style="bold")
            yield _facts(content)
    yield Text("\nrecipe", style="bold")
    yield Text(run.recipe_yaml.strip())


def _last(curves: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    return {name: values[-1] for name, values in curves.items() if values}


def _evaluation_in_full(each: Evaluation) -> Iterator[Table | Text]:
    hidden = ("scores", "samples", "settings")
    names = [field.name for field in dataclasses.fields(each) if field.name not in hidden]
    yield _facts({name: getattr(each, name) for name in names})
    yield Text("\nsettings", style="bold")
    yield _facts(each.settings)
    yield Text("\nscores", style="bold")
    heads = ("benchmark", "score", "questions", "answered", "missing", "cut", "judge", "data set")
    table = _grid(*heads, "data", "kit", "key", right=heads[1:6])
    order = {column: place for place, column in enumerate(COLUMNS)}
    for score in sorted(each.scores, key=lambda s: order.get(s.benchmark, len(order))):
        counts = (score.questions, score.answered, score.missing, score.truncated)
        cells = (
            *(score.benchmark, number(score.value), *map(str, counts), score.judge or ""),
            *(score.dataset, f"{score.data_state} {score.data_sha256[:8]}"),
            *(f"{score.kit} {score.kit_version}", score.comparability),
        )
        table.add_row(*[Text(printable(cell)) for cell in cells])
    yield table
    yield Text("key: equal for scores of a benchmark that may be compared", style="dim")


def _facts(values: Mapping[str, Any]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in values.items():
        if value is not None and value != {}:
            table.add_row(name, Text(printable(_fact(value))))
    return table


def _fact(value: Any) -> str:
    """A value in a line; of a whole hash the beginning is enough to tell it by."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_fact(each)}" for name, each in value.items())
    if isinstance(value, float):
        value = float(f"{value:.6g}")
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return _HASH.sub(lambda found: found[0][:12], text)


def as_json(found: Sequence[Record]) -> str:
    """The same for a program, without the answers."""
    return json.dumps([_record(each) for each in found], ensure_ascii=False, indent=2)


def _record(found: Record) -> dict[str, Any]:
    record = {"kind": type(found).__name__.lower(), **dataclasses.asdict(found)}
    if isinstance(found, Evaluation):
        del record["samples"]
        keys = {score.benchmark: score.comparability for score in found.scores}
        for score in record["scores"]:
            score["comparability"] = keys[score["benchmark"]]
    return record
