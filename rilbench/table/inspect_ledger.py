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

from rilbench.benchmark_names import PAPER_14
from rilbench.errors import UserError
from rilbench.ledger import Evaluation, Ledger, Run
from rilbench.printable import printable, printable_json
from rilbench.table.footnotes import INCOMPLETE
from rilbench.table.formatting import grid
from rilbench.table.question_diff import find_evaluation
from rilbench.table.rounding import number
from rilbench.table.types import average, in_order

_HASH = re.compile(r"\b[0-9a-f]{64}\b")

Record = Run | Evaluation


def everything(ledger: Ledger) -> list[Record]:
    """Return every training run, then every evaluation, newest first."""
    return [*ledger.runs()[::-1], *ledger.evaluations()]


def overview(records: Sequence[Record], path: Path) -> Iterator[Table | Text]:
    """Yield the runs and the evaluations of the ledger at ``path`` as lists."""
    runs = [record for record in records if isinstance(record, Run)]
    evaluations = [record for record in records if isinstance(record, Evaluation)]
    if not records:
        yield Text(f"{printable(str(path))} is empty; rilbench train and rilbench eval write to it")
    if runs:
        yield Text("training runs", style="bold")
        yield _runs_table(runs)
    if runs and evaluations:
        yield Text()
    if evaluations:
        yield Text("evaluations", style="bold")
        yield _evaluations_table(evaluations)
        if any(score.benchmark not in PAPER_14 for e in evaluations for score in e.scores):
            yield Text("mean: over the paper's benchmarks that were scored", style="dim")


def _runs_table(runs: Sequence[Run]) -> Table:
    heads = ("run", "student", "method", "teacher", "seed", "status", "steps", "created", "path")
    table = grid(*heads, right=("seed", "steps"))
    for run in runs:
        steps = run.metrics.get("steps")
        _add_row(
            table,
            run.name,
            run.student,
            run.method,
            run.teacher,
            "" if run.seed is None else run.seed,
            run.status,
            "" if steps is None else steps,
            run.created[:16],
            run.path,
        )
    return table


def _evaluations_table(evaluations: Sequence[Evaluation]) -> Table:
    heads = ("#", "student", "method", "teacher", "suite", "kit", "scores", "mean", "created")
    table = grid(*heads, "path", right=("#", "scores", "mean"))
    for e in evaluations:
        scores = {score.benchmark: score.counted for score in e.scores}
        mean = average(scores, [name for name in scores if name in PAPER_14])
        labels = (e.id, e.student, e.method, e.teacher, e.suite, e.kit)
        place = f"[{', '.join(e.tags)}] {e.path}" if e.tags else e.path
        _add_row(table, *labels, len(scores), number(mean), e.created[:16], place)
    return table


def _add_row(table: Table, *cells: object) -> None:
    """Add a row of plain text: labels come from a model's folder and may hold anything."""
    table.add_row(*[Text(printable(str(cell))) for cell in cells])


def find(ledger: Ledger, name: str) -> Record:
    """Return a run by its name or path, else an evaluation as `find_evaluation` finds it.

    Raises:
        UserError: there is none, or several have this name.
    """
    runs = [run for run in ledger.runs() if name.rstrip("/") in (run.name, run.path)]
    if len(runs) > 1:
        paths = ", ".join(run.path for run in runs)
        raise UserError(f"{ledger.path} has several runs {name!r}: {paths}; give a path")
    return runs[0] if runs else find_evaluation(ledger, name)


def in_full(record: Record) -> Iterator[Table | Text]:
    """Yield everything about one record except samples, and only the end of curves."""
    hidden = ("recipe_yaml", "metrics", "curves", "scores", "samples", "settings")
    names = [field.name for field in dataclasses.fields(record) if field.name not in hidden]
    yield _facts({name: getattr(record, name) for name in names})
    if isinstance(record, Run):
        last = {name: values[-1] for name, values in record.curves.items() if values}
        for title, content in (("metrics", record.metrics), ("last step", last)):
            if content:
                yield Text(f"\n{title}", style="bold")
                yield _facts(content)
        yield Text("\nrecipe", style="bold")
        yield Text(printable(record.recipe_yaml.strip(), keep_lines=True))
        return
    yield Text("\nsettings", style="bold")
    yield _facts(record.settings)
    yield Text("\nscores", style="bold")
    numbers = ("score", "questions", "answered", "missing", "cut", "unread", "2nd reading")
    heads = ("benchmark", *numbers, "judge", "data set", "data", "kit", "key")
    table = grid(*heads, right=numbers)
    scores = {score.benchmark: score for score in record.scores}
    for score in (scores[name] for name in in_order(scores)):
        _add_row(
            table,
            score.benchmark,
            number(score.value) + (INCOMPLETE if score.is_incomplete else ""),
            score.questions,
            score.answered,
            score.missing,
            score.truncated,
            record.reading(score.benchmark).unread,
            number(record.reading(score.benchmark).second),
            score.judge or "",
            score.dataset,
            f"{score.data_state} {score.data_sha256[:8]}",
            f"{score.kit} {score.kit_version}",
            score.comparability,
        )
    yield table
    yield Text("key: equal for scores of a benchmark that may be compared", style="dim")
    if any(score.is_incomplete for score in record.scores):
        yield Text(
            f"{INCOMPLETE}: too few questions have a verdict; counts in no mean", style="dim"
        )
    if any(record.reading(name).unread for name in scores):
        unread = (
            "the kit's rules read no option, so that it counts as wrong; eval --judge MODEL@URL"
        )
        yield Text(f"unread: {unread} reads it. 2nd reading: a number of its own", style="dim")


def _facts(values: Mapping[str, Any]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in values.items():
        if value is not None and value != {} and value != ():
            table.add_row(Text(printable(name)), Text(printable(_fact(value))))
    return table


def _fact(value: Any) -> str:
    """Return a value on one line; hashes are shortened, since their beginning identifies them."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_fact(entry)}" for name, entry in value.items())
    if isinstance(value, float):
        value = float(f"{value:.6g}")
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return _HASH.sub(lambda match: match[0][:12], text)


def as_json(records: Sequence[Record]) -> str:
    """Return the records for a program, without the samples."""
    return printable_json([_record(record) for record in records])


def _record(record: Record) -> dict[str, Any]:
    values = {"kind": type(record).__name__.lower(), **dataclasses.asdict(record)}
    if isinstance(record, Evaluation):
        del values["samples"]
        for entry, score in zip(values["scores"], record.scores, strict=True):
            entry["comparability"] = score.comparability
    return values
