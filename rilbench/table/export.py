"""Scores and samples as CSV or Parquet files, for other programs."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rilbench.errors import UserError
from rilbench.ledger import Evaluation, Ledger, Sample, Score
from rilbench.paths import whole_file
from rilbench.printable import no_formula
from rilbench.table.build import choose_benchmarks
from rilbench.table.types import in_order

TABLES = {"scores": Score, "samples": Sample}
_MODEL = ("student", "method", "teacher", "seed", "run", "fingerprint")
_EVALUATION = ("suite", "created")
_BATCH = 5_000
_Write = Callable[[Sequence[Sequence[Any]]], None]


def export(
    ledger: Ledger,
    table: str,
    out: Path,
    evaluations: Sequence[Evaluation],
    benchmarks: Sequence[str] = (),
) -> int:
    """Write one row per score or sample, with its model's labels; return the number of rows.

    The file appears whole or not at all. In CSV, a text that a spreadsheet would take for a formula
    begins with an apostrophe, and control characters are spaces; Parquet has the texts as they are.

    Args:
        ledger: holds the evaluations.
        table: one of `TABLES`.
        out: the file; its ending, .csv or .parquet, says the format.
        evaluations: those to write.
        benchmarks: only these; all if empty.

    Raises:
        UserError: an unknown table, ending or benchmark, the file cannot be written, or see
            `Ledger`.
    """
    if table not in TABLES:
        raise UserError(f"there is no table {table!r} to export; take {' or '.join(TABLES)}")
    if out.suffix not in _WRITERS:
        raise UserError(f"{out} is no format; end its name in {' or '.join(_WRITERS)}")
    known = in_order(score.benchmark for e in evaluations for score in e.scores)
    chosen = choose_benchmarks(benchmarks, known)
    own = [field.name for field in dataclasses.fields(TABLES[table])]
    own += ["comparability"] if table == "scores" else []
    query = (
        f"SELECT e.id, {', '.join(f'm.{name}' for name in _MODEL)}, "
        f"{', '.join(f'e.{name}' for name in _EVALUATION)}, {', '.join(f't.{n}' for n in own)} "
        f"FROM {table} t JOIN evaluations e ON e.id = t.evaluation_id "
        "JOIN models m ON m.id = e.model_id WHERE e.id = :number ORDER BY t.rowid"
    )
    types = {
        name: kind
        for source in ("models", "evaluations", table)
        for _, name, kind, *_ in ledger.rows(f"PRAGMA table_info({source})")
    }
    columns = {name: types[name] for name in (*_MODEL, *_EVALUATION, *own)}
    columns = {"evaluation_id": "INTEGER", **columns}
    benchmark = list(columns).index("benchmark")
    count = 0
    try:
        with whole_file(out) as part, _WRITERS[out.suffix](part, columns) as write:
            for evaluation in evaluations:
                rows = ledger.rows(query, {"number": evaluation.id})
                rows = [row for row in rows if not chosen or row[benchmark] in chosen]
                for start in range(0, len(rows), _BATCH):
                    write(rows[start : start + _BATCH])
                count += len(rows)
    except OSError as error:
        raise UserError(
            f"{out} cannot be written ({error.strerror}); give another --out"
        ) from error
    return count


@contextlib.contextmanager
def _csv(path: Path, columns: dict[str, str]) -> Iterator[_Write]:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)

        def write(rows: Sequence[Sequence[Any]]) -> None:
            writer.writerows(
                [
                    no_formula(cell, keep_lines=True) if isinstance(cell, str) else cell
                    for cell in row
                ]
                for row in rows
            )

        yield write


@contextlib.contextmanager
def _parquet(path: Path, columns: dict[str, str]) -> Iterator[_Write]:
    import pyarrow
    import pyarrow.parquet

    kinds = {"TEXT": pyarrow.string(), "INTEGER": pyarrow.int64(), "REAL": pyarrow.float64()}
    schema = pyarrow.schema([(name, kinds[kind]) for name, kind in columns.items()])
    with pyarrow.parquet.ParquetWriter(path, schema, compression="zstd") as writer:

        def write(rows: Sequence[Sequence[Any]]) -> None:
            values = zip(*rows, strict=True)
            arrays = [pyarrow.array(v, t) for v, t in zip(values, schema.types, strict=True)]
            writer.write_batch(pyarrow.record_batch(arrays, schema=schema))

        yield write


_WRITERS = {".csv": _csv, ".parquet": _parquet}
