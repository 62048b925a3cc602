"""The paper's tables as rows of the ledger, from ``results/paper``."""

from __future__ import annotations

import csv
import sqlite3
from collections.abc import Iterator

from rilbench.benchmark_names import COLUMNS
from rilbench.resources import resource

MAIN, OPEN, LARGE, ABLATIONS = (
    "main_table",
    "other_open_models",
    "large_and_closed_models",
    "ablations",
)
"""The files: Tables 1 and 2, Table 3, Table 4, Table 5 with Figures 6 and 7."""

_NAMES = (
    *("file", "line", "source", "model", "method", "teacher", "ablation", "setting"),
    *("benchmark", "value"),
)


def fill_paper_scores(connection: sqlite3.Connection) -> None:
    """Write the paper's numbers as this version has them, inside the caller's transaction."""
    connection.execute("DELETE FROM paper_scores")
    places = ", ".join(f":{name}" for name in _NAMES)
    connection.executemany(f"INSERT INTO paper_scores VALUES ({places})", _rows())


def _rows() -> Iterator[dict[str, object]]:
    for file in (MAIN, OPEN, LARGE, ABLATIONS):
        with resource(f"results/paper/{file}.csv").open(encoding="utf-8", newline="") as stream:
            for number, line in enumerate(csv.DictReader(stream)):
                if file == ABLATIONS:
                    scores = {line["benchmark"]: line["score"]}
                else:
                    scores = {column: line[column] for column in COLUMNS}
                yield from (_row(file, number, line, *score) for score in scores.items())


def _row(
    file: str, number: int, line: dict[str, str], benchmark: str, value: str
) -> dict[str, object]:
    row: dict[str, object] = {name: line.get(name) for name in _NAMES}
    row |= {"file": file, "line": number, "benchmark": benchmark}
    row["model"] = line.get("model") or line["student"]
    row["source"] = line.get("source") or f"Table {line['ablation'].split()[0]}"
    row["value"] = float(value) if value else None
    return row
