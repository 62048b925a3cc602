"""The paper's tables as rows of the ledger, from ``results/paper``."""

from __future__ import annotations

import csv
import sqlite3

from rilbench.benchmark_names import PAPER_14
from rilbench.resources import resource

# The files: Tables 1 and 2, Table 3, Table 4, and Table 5 with Figures 6 and 7.
MAIN = "main_table"
OPEN = "other_open_models"
LARGE = "large_and_closed_models"
ABLATIONS = "ablations"


def insert_paper_scores(connection: sqlite3.Connection) -> None:
    """Insert the paper's numbers, inside the caller's transaction."""
    for file in (MAIN, OPEN, LARGE, ABLATIONS):
        with resource(f"results/paper/{file}.csv").open(encoding="utf-8", newline="") as stream:
            for number, line in enumerate(csv.DictReader(stream)):
                if file == ABLATIONS:
                    scores = {line["benchmark"]: line["score"]}
                else:
                    scores = {name: line[name] for name in PAPER_14 if name in line}
                facts = {
                    "file": file,
                    "line": number,
                    "source": line.get("source") or f"Table {line['ablation'].split()[0]}",
                    "model": line.get("model") or line["student"],
                    **{n: line.get(n) for n in ("method", "teacher", "ablation", "setting")},
                }
                connection.executemany(
                    "INSERT INTO paper_scores VALUES (:file, :line, :source, :model, :method, "
                    ":teacher, :ablation, :setting, :benchmark, :value)",
                    (
                        {**facts, "benchmark": name, "value": float(value) if value else None}
                        for name, value in scores.items()
                    ),
                )
