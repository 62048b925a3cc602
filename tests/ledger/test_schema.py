"""Migrations: recorded where they are made, never applied to a stranger's file."""

import sqlite3

import pytest

from rilbench.errors import UserError
from rilbench.ledger import schema


@pytest.fixture
def connection() -> sqlite3.Connection:
    return sqlite3.connect(":memory:")


def _migrate(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    schema.migrate(connection)
    connection.commit()


def test_the_version_is_recorded(connection: sqlite3.Connection) -> None:
    assert schema.version(connection) == 0
    _migrate(connection)
    assert schema.version(connection) == len(schema.MIGRATIONS)
    _migrate(connection)  # Nothing left to do.


def test_a_migration_that_fails_leaves_the_old_schema(
    connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    _migrate(connection)
    before = list(connection.iterdump())
    broken = ("ALTER TABLE runs ADD COLUMN extra TEXT", "CREATE nonsense")
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, broken))
    connection.execute("BEGIN IMMEDIATE")
    with pytest.raises(sqlite3.OperationalError):
        schema.migrate(connection)
    connection.rollback()
    assert list(connection.iterdump()) == before
    assert schema.version(connection) == len(schema.MIGRATIONS) - 1


def test_an_older_file_gets_only_what_it_lacks(
    connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    _migrate(connection)
    later = ("ALTER TABLE runs ADD COLUMN extra TEXT",)
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, later))
    _migrate(connection)
    assert schema.version(connection) == len(schema.MIGRATIONS)
    connection.execute("SELECT extra FROM runs")


def test_a_newer_file_is_refused(connection: sqlite3.Connection) -> None:
    _migrate(connection)
    connection.execute(f"PRAGMA user_version = {len(schema.MIGRATIONS) + 1}")
    with pytest.raises(UserError, match="newer rilbench"):
        schema.version(connection)


@pytest.mark.parametrize(
    "statement", ["CREATE TABLE runs (x)", "PRAGMA user_version = 1", "PRAGMA application_id = 7"]
)
def test_another_programs_file_is_refused(connection: sqlite3.Connection, statement: str) -> None:
    connection.execute(statement)
    with pytest.raises(UserError, match="another program"):
        schema.version(connection)
