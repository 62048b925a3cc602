"""The schema is created once, whole, and never in a file of another program or version."""

import csv
import sqlite3
from pathlib import Path

import pytest

from rilbench.errors import UserError
from rilbench.ledger import Ledger, schema
from rilbench.ledger import paper as paper_tables
from rilbench.ledger.paper import MAIN
from rilbench.ledger.queries import paper_scores


@pytest.fixture
def connection() -> sqlite3.Connection:
    return sqlite3.connect(":memory:")


def _create(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    schema.create(connection)
    connection.commit()


def test_the_schema_is_created_once(connection: sqlite3.Connection) -> None:
    assert not schema.is_ready(connection)
    _create(connection)
    assert schema.is_ready(connection)
    before = list(connection.iterdump())
    _create(connection)
    assert list(connection.iterdump()) == before


def test_a_failure_leaves_no_half_of_a_schema(
    connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "_STATEMENTS", (*schema._STATEMENTS, "CREATE nonsense"))
    connection.execute("BEGIN IMMEDIATE")
    with pytest.raises(sqlite3.OperationalError):
        schema.create(connection)
    connection.rollback()
    assert not schema.is_ready(connection)
    assert connection.execute("SELECT * FROM sqlite_master").fetchall() == []


@pytest.mark.parametrize("version", [1, schema.VERSION - 1, schema.VERSION + 1])
def test_a_ledger_of_another_version_is_refused(
    connection: sqlite3.Connection, version: int
) -> None:
    _create(connection)
    connection.execute(f"PRAGMA user_version = {version}")
    with pytest.raises(UserError, match=rf"schema {version}, .* give another --db and record"):
        schema.is_ready(connection)


@pytest.mark.parametrize(
    "statement", ["CREATE TABLE runs (x)", "PRAGMA user_version = 1", "PRAGMA application_id = 7"]
)
def test_another_programs_file_is_refused(connection: sqlite3.Connection, statement: str) -> None:
    connection.execute(statement)
    with pytest.raises(UserError, match="another program"):
        schema.is_ready(connection)


def test_a_benchmark_that_the_papers_files_lack_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paper_tables, "PAPER_14", ("AI2D", "OCRBench"))
    with Ledger(tmp_path / "l.db") as ledger:
        assert {score.benchmark for score in paper_scores(ledger, MAIN)} == {"AI2D"}


def test_the_papers_numbers_are_in_every_new_ledger(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l.db") as ledger:
        scores = paper_scores(ledger, MAIN)
    with paper_tables.resource(f"results/paper/{MAIN}.csv").open(encoding="utf-8") as stream:
        lines = list(csv.DictReader(stream))
    assert len(scores) == 14 * len(lines)
    assert all(float(lines[score.line][score.benchmark]) == score.value for score in scores)
