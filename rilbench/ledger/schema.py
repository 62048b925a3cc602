"""The ledger's tables, and how an older file becomes a newer one."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from rilbench.errors import UserError
from rilbench.ledger.paper import fill_paper_scores
from rilbench.ledger.records import comparability

Step = str | Callable[[sqlite3.Connection], object]
"""A statement, or what no statement can do."""

APPLICATION_ID = 0x52494C42
"""Marks a SQLite file as a ledger ("RILB")."""

_FIRST = (
    """
    CREATE TABLE runs (
        path TEXT PRIMARY KEY,
        name TEXT NOT NULL,
        recipe_fingerprint TEXT NOT NULL,
        recipe_yaml TEXT NOT NULL,
        student TEXT NOT NULL,
        method TEXT NOT NULL,
        teacher TEXT NOT NULL,
        status TEXT NOT NULL,
        created TEXT NOT NULL,
        finished TEXT
    )
    """,
    # A model is a content under labels: the same weights may stand under two names.
    """
    CREATE TABLE models (
        id INTEGER PRIMARY KEY,
        fingerprint TEXT NOT NULL,
        path TEXT NOT NULL,
        student TEXT NOT NULL,
        method TEXT NOT NULL,
        teacher TEXT NOT NULL,
        run TEXT,
        start_fingerprint TEXT
    )
    """,
    """
    CREATE TABLE evaluations (
        id INTEGER PRIMARY KEY,
        model_id INTEGER NOT NULL REFERENCES models (id),
        suite TEXT NOT NULL,
        created TEXT NOT NULL,
        "commit" TEXT,
        dirty INTEGER NOT NULL CHECK (dirty IN (0, 1)),
        settings TEXT NOT NULL
    )
    """,
    """
    CREATE TABLE scores (
        evaluation_id INTEGER NOT NULL REFERENCES evaluations (id) ON DELETE CASCADE,
        benchmark TEXT NOT NULL,
        value REAL CHECK (value BETWEEN 0 AND 100),
        kit TEXT NOT NULL,
        kit_version TEXT NOT NULL,
        dataset TEXT NOT NULL,
        metric TEXT NOT NULL,
        judge TEXT,
        questions INTEGER NOT NULL,
        answered INTEGER NOT NULL,
        missing INTEGER NOT NULL,
        data_sha256 TEXT NOT NULL,
        PRIMARY KEY (evaluation_id, benchmark)
    )
    """,
    """
    CREATE TABLE samples (
        evaluation_id INTEGER NOT NULL REFERENCES evaluations (id) ON DELETE CASCADE,
        benchmark TEXT NOT NULL,
        question_id TEXT NOT NULL,
        prompt_hash TEXT NOT NULL,
        response TEXT NOT NULL,
        score REAL CHECK (score BETWEEN 0 AND 1),
        gold TEXT,
        judge TEXT,
        tokens INTEGER,
        seconds REAL,
        finish_reason TEXT,
        PRIMARY KEY (evaluation_id, benchmark, question_id)
    )
    """,
    "CREATE INDEX models_by_fingerprint ON models (fingerprint)",
    "CREATE INDEX evaluations_by_model ON evaluations (model_id, suite)",
)

_SECOND = (
    "ALTER TABLE scores ADD COLUMN truncated INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE scores ADD COLUMN data_state TEXT NOT NULL DEFAULT 'unknown'",
    "ALTER TABLE scores ADD COLUMN sampled INTEGER",
    "ALTER TABLE samples ADD COLUMN extracted TEXT",
)

_THIRD = ("ALTER TABLE samples ADD COLUMN stem TEXT",)

_FOURTH = ("ALTER TABLE scores ADD COLUMN asked TEXT NOT NULL DEFAULT ''",)


def note_comparability(connection: sqlite3.Connection) -> None:
    """Write each score's key, which SQL cannot compute."""
    story = "kit, kit_version, dataset, metric, judge, data_sha256, asked"
    rows = connection.execute(f"SELECT rowid, {story} FROM scores").fetchall()
    connection.executemany(
        "UPDATE scores SET comparability = ? WHERE rowid = ?",
        ((comparability(values), number) for number, *values in rows),
    )


_FIFTH: tuple[Step, ...] = (
    # The recipe that a model was trained by; seeds of one recipe share its family.
    "ALTER TABLE models ADD COLUMN recipe_fingerprint TEXT",
    "ALTER TABLE models ADD COLUMN family TEXT",
    "ALTER TABLE models ADD COLUMN seed INTEGER",
    "ALTER TABLE runs ADD COLUMN family TEXT",
    "ALTER TABLE runs ADD COLUMN seed INTEGER",
    "ALTER TABLE runs ADD COLUMN figures TEXT NOT NULL DEFAULT '{}'",
    "ALTER TABLE runs ADD COLUMN curves TEXT NOT NULL DEFAULT '{}'",
    "ALTER TABLE samples ADD COLUMN stratum TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE scores ADD COLUMN comparability TEXT NOT NULL DEFAULT ''",
    note_comparability,
    # Counts of outcomes are read from this index alone: intervals need no answer's text.
    "CREATE INDEX samples_by_outcome ON samples (evaluation_id, benchmark, stratum, score)",
    """
    CREATE TABLE paper_scores (
        file TEXT NOT NULL,
        line INTEGER NOT NULL,
        source TEXT NOT NULL,
        model TEXT NOT NULL,
        method TEXT,
        teacher TEXT,
        ablation TEXT,
        setting TEXT,
        benchmark TEXT NOT NULL,
        value REAL CHECK (value BETWEEN 0 AND 100),
        PRIMARY KEY (file, line, benchmark)
    )
    """,
    fill_paper_scores,
    """
    CREATE VIEW verdicts AS
    SELECT evaluation_id, benchmark, question_id, judge, score AS verdict
    FROM samples WHERE judge IS NOT NULL
    """,
    """
    CREATE VIEW results AS
    SELECT e.id AS evaluation_id, m.student, m.method, m.teacher, m.seed, m.run, m.fingerprint,
        e.suite, e.created, s.benchmark, s.value, s.questions, s.missing, s.kit, s.kit_version,
        s.dataset, s.judge, s.comparability
    FROM scores s JOIN evaluations e ON e.id = s.evaluation_id JOIN models m ON m.id = e.model_id
    """,
)

MIGRATIONS: tuple[tuple[Step, ...], ...] = (_FIRST, _SECOND, _THIRD, _FOURTH, _FIFTH)
"""Steps that lead from version n to n + 1. Append only: files in the field have run these."""


def version(connection: sqlite3.Connection) -> int:
    """Return the file's schema version; 0 is an empty file.

    Raises:
        UserError: the file is a newer rilbench's or another program's.
    """
    found = int(connection.execute("PRAGMA user_version").fetchone()[0])
    owner = int(connection.execute("PRAGMA application_id").fetchone()[0])
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if owner != APPLICATION_ID and (found or owner or tables):
        raise UserError("is another program's database; give another --db")
    if found > len(MIGRATIONS):
        raise UserError(
            f"was written by a newer rilbench (schema {found}, this one knows {len(MIGRATIONS)}); "
            "update rilbench or give another --db"
        )
    return found


def is_current(connection: sqlite3.Connection) -> bool:
    """Tell whether the file has this version's schema; raises as `version` does."""
    return version(connection) == len(MIGRATIONS)


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the file to the newest schema, inside the caller's transaction.

    The version is recorded in the same transaction, so a kill leaves the old schema or the new.
    """
    assert connection.in_transaction
    found = version(connection)
    for steps in MIGRATIONS[found:]:
        for step in steps:
            if isinstance(step, str):
                connection.execute(step)
            else:
                step(connection)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
