"""The ledger's tables, and the check that a file has them."""

from __future__ import annotations

import contextlib
import functools
import sqlite3

from rilbench.errors import UserError
from rilbench.ledger.paper import insert_paper_scores

APPLICATION_ID = 0x52494C42
"""Marks an SQLite file as a ledger ("RILB")."""
VERSION = 9
"""The schema's version, raised when a table changes; a file of another version is refused."""

_STATEMENTS = (
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
        finished TEXT,
        family TEXT,
        seed INTEGER,
        metrics TEXT NOT NULL,
        curves TEXT NOT NULL
    )
    """,
    # One row per content and labels: the same weights may have two names.
    """
    CREATE TABLE models (
        id INTEGER PRIMARY KEY,
        fingerprint TEXT NOT NULL,
        student TEXT NOT NULL,
        method TEXT NOT NULL,
        teacher TEXT NOT NULL,
        run TEXT,
        start_fingerprint TEXT,
        recipe_fingerprint TEXT,
        family TEXT,
        seed INTEGER
    )
    """,
    # AUTOINCREMENT: the number of an evaluation that was forgotten never becomes another's.
    """
    CREATE TABLE evaluations (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        model_id INTEGER NOT NULL REFERENCES models (id),
        path TEXT NOT NULL,
        suite TEXT NOT NULL,
        created TEXT NOT NULL,
        "commit" TEXT,
        dirty INTEGER NOT NULL CHECK (dirty IN (0, 1)),
        settings TEXT NOT NULL
    )
    """,
    """
    CREATE TABLE tags (
        evaluation_id INTEGER NOT NULL REFERENCES evaluations (id) ON DELETE CASCADE,
        tag TEXT NOT NULL,
        PRIMARY KEY (evaluation_id, tag)
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
        truncated INTEGER NOT NULL,
        data_state TEXT NOT NULL,
        sampled INTEGER,
        asked TEXT NOT NULL,
        comparability TEXT NOT NULL,
        outcomes TEXT NOT NULL,
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
        extracted TEXT,
        stem TEXT,
        stratum TEXT NOT NULL,
        category TEXT,
        PRIMARY KEY (evaluation_id, benchmark, question_id)
    )
    """,
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
    "CREATE INDEX models_by_fingerprint ON models (fingerprint)",
    "CREATE INDEX evaluations_by_model ON evaluations (model_id, suite)",
    # Counts of outcomes are read from this index alone: intervals need no response's text.
    "CREATE INDEX samples_by_outcome "
    "ON samples (evaluation_id, benchmark, stratum, score, category)",
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
    """
    CREATE VIEW answers AS
    SELECT r.evaluation_id, r.student, r.method, r.teacher, r.seed, r.suite, r.kit, a.benchmark,
        a.question_id, a.category, a.stem AS question, a.gold, a.response, a.extracted, a.score,
        a.judge, a.tokens, a.finish_reason
    FROM samples a JOIN results r ON r.evaluation_id = a.evaluation_id
        AND r.benchmark = a.benchmark
    """,
    # Each trained model beside the model that its training started from, question by question,
    # where their scores may be compared. CROSS JOIN: SQLite would read every sample there is first.
    """
    CREATE VIEW changes AS
    SELECT sa.evaluation_id, sb.evaluation_id AS start_evaluation_id, m.student, m.method,
        m.teacher, m.seed, m.run, ea.suite, sa.kit, a.benchmark, a.question_id,
        a.category, a.stem AS question, a.gold, b.score AS score_before, a.score AS score_after,
        b.response AS response_before, a.response AS response_after
    FROM models m
    JOIN models start ON start.fingerprint = m.start_fingerprint
    JOIN evaluations ea ON ea.model_id = m.id
    JOIN evaluations eb ON eb.model_id = start.id AND eb.suite = ea.suite
    JOIN scores sa ON sa.evaluation_id = ea.id
    JOIN scores sb ON sb.evaluation_id = eb.id AND sb.benchmark = sa.benchmark
        AND sb.comparability = sa.comparability
    CROSS JOIN samples a ON a.evaluation_id = sa.evaluation_id AND a.benchmark = sa.benchmark
    CROSS JOIN samples b ON b.evaluation_id = sb.evaluation_id AND b.benchmark = a.benchmark
        AND b.question_id = a.question_id
    """,
)


def is_ready(connection: sqlite3.Connection) -> bool:
    """Tell whether the file has the ledger's tables; False for an empty file.

    Raises:
        UserError: the file is another program's, or a ledger of another version.
    """
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    application = int(connection.execute("PRAGMA application_id").fetchone()[0])
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if application != APPLICATION_ID and (version or application or tables):
        raise UserError("is another program's database; give another --db")
    if version not in (0, VERSION):
        raise UserError(
            f"is a ledger of schema {version}, but this rilbench reads schema {VERSION}; use the "
            "rilbench that wrote it, or give another --db and record the results again"
        )
    return version == VERSION


def missing_parts(connection: sqlite3.Connection) -> list[str]:
    """Return the tables and columns that a ledger should have and this one lacks."""
    have = _columns(connection)
    tables = {table for table, _ in have}
    names = (
        f"column {table}.{column}" if table in tables else f"table {table}"
        for table, column in _own_columns()
        if (table, column) not in have
    )
    return list(dict.fromkeys(names))


@functools.cache
def _own_columns() -> dict[tuple[str, str], None]:
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        for statement in _STATEMENTS:
            connection.execute(statement)
        return _columns(connection)


def _columns(connection: sqlite3.Connection) -> dict[tuple[str, str], None]:
    """Return the file's tables with their columns, in order."""
    query = (
        "SELECT t.name, c.name FROM sqlite_master t JOIN pragma_table_info(t.name) c "
        "WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite_%'"
    )
    return dict.fromkeys(connection.execute(query).fetchall())


def create(connection: sqlite3.Connection) -> None:
    """Create the tables and the paper's scores in an empty file; do nothing in a ledger.

    The version is written in the caller's transaction, so a kill leaves no half of a schema.
    """
    assert connection.in_transaction
    if is_ready(connection):
        return
    for statement in _STATEMENTS:
        connection.execute(statement)
    insert_paper_scores(connection)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {VERSION}")
