"""Migrations: recorded where they are made, never applied to a stranger's file."""

import dataclasses
import sqlite3
from pathlib import Path

import pytest

from rilbench.errors import UserError
from rilbench.ledger import Ledger, Sample, Score, schema
from rilbench.ledger.paper import MAIN
from rilbench.ledger.queries import paper_scores, tallies


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


def test_a_ledger_of_the_first_version_is_read_and_brought_up_to_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "old.db"
    score = Score(
        benchmark="MMStar",
        value=50.0,
        kit="vlmevalkit",
        kit_version="0.0.20",
        dataset="MMStar",
        metric="Overall",
        questions=2,
        answered=2,
        missing=0,
        data_sha256="0" * 64,
    )
    with monkeypatch.context() as first:
        first.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[:1])
        connection = sqlite3.connect(path)
        _migrate(connection)
        connection.executescript(
            "INSERT INTO models VALUES (1, 'f', 'p', 'nano', 'base', 'none', NULL, NULL);"
            "INSERT INTO evaluations VALUES (1, 1, 'nano', '2026-01-01T00:00:00+00:00', NULL, 0,"
            " '{}');"
            "INSERT INTO scores VALUES (1, 'MMStar', 50, 'vlmevalkit', '0.0.20', 'MMStar',"
            f" 'Overall', NULL, 2, 2, 0, '{'0' * 64}');"
            "INSERT INTO samples VALUES (1, 'MMStar', '0', 'h', 'B', 1, 'B', NULL, 1, 0.1, 'stop');"
        )
        connection.close()
    with Ledger.open_read(path) as ledger:  # As it is: a reader changes nothing.
        (found,) = ledger.evaluations()
        assert found.scores == (score,)
        assert ledger.samples(1)[0].extracted is None
    with Ledger(path) as ledger:
        (found,) = ledger.evaluations()
        assert found.scores == (score,)
        assert (found.scores[0].data_state, found.scores[0].partial) == ("unknown", False)
        assert ledger.samples(1)[0].extracted is None


def _ledger_of_the_fourth_version(path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Score, ...]:
    scores = tuple(
        Score(
            benchmark=name,
            value=50.0,
            kit="vlmevalkit",
            kit_version="0.0.20",
            dataset=name,
            metric="Overall",
            questions=2,
            answered=2,
            missing=0,
            data_sha256="0" * 64,
            asked="a",
        )
        for name in ("MMStar", "MM-Vet")
    )
    names = [field.name for field in dataclasses.fields(Score)]
    with monkeypatch.context() as fourth:
        fourth.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[:4])
        connection = sqlite3.connect(path)
        _migrate(connection)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(
            "INSERT INTO models VALUES (1, 'f', 'p', 'nano', 'ril', 'both', 'r', 'e');"
            "INSERT INTO evaluations VALUES (1, 1, 'nano', '2026-01-01T00:00:00+00:00', NULL, 0,"
            " '{}');"
            "INSERT INTO runs VALUES ('/r', 'r', 'x', 'y', 'nano', 'ril', 'both', 'finished',"
            " '2026-01-01T00:00:00+00:00', NULL);"
        )
        for score in scores:
            values = dataclasses.asdict(score)
            connection.execute(
                f"INSERT INTO scores (evaluation_id, {', '.join(names)}) "
                f"VALUES (1, {', '.join(f':{name}' for name in names)})",
                values,
            )
            connection.executemany(
                "INSERT INTO samples (evaluation_id, benchmark, question_id, prompt_hash, response,"
                " score, stem) VALUES (1, ?, ?, 'h', 'B', ?, 'q')",
                [(score.benchmark, str(i), float(i)) for i in range(2)],
            )
        connection.commit()
        connection.close()
    return scores


def _check_brought_up_to_date(ledger: Ledger, scores: tuple[Score, ...]) -> None:
    (found,) = ledger.evaluations()
    assert found.scores == scores
    assert (found.family, found.seed, found.recipe_fingerprint) == (None, None, None)
    (run,) = ledger.runs()
    assert (run.family, run.seed, run.figures, run.curves) == (None, None, {}, {})
    samples = [
        Sample(
            benchmark=score.benchmark,
            question_id=str(i),
            prompt_hash="h",
            response="B",
            score=float(i),
            stem="q",
            stratum="",
        )
        for score in scores
        for i in range(2)
    ]
    assert ledger.samples(1) == samples
    counted = {(1, score.benchmark): {"": {0.0: 1, 1.0: 1}} for score in scores}
    assert tallies(ledger, [1]) == counted
    keys = ledger.rows("SELECT benchmark, comparability FROM results ORDER BY benchmark DESC")
    assert keys == [(score.benchmark, score.comparability) for score in scores]
    assert paper_scores(ledger, MAIN)


def test_a_ledger_of_the_fourth_version_in_a_read_only_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "shipped"
    folder.mkdir()
    path = folder / "old.db"
    scores = _ledger_of_the_fourth_version(path, monkeypatch)
    before = path.read_bytes()
    path.chmod(0o444)
    folder.chmod(0o555)
    try:
        with Ledger.open_read(path) as ledger:
            _check_brought_up_to_date(ledger, scores)
        assert [file.name for file in folder.iterdir()] == ["old.db"]
        assert path.read_bytes() == before
    finally:
        folder.chmod(0o755)
    path.chmod(0o644)
    for _ in range(2):
        with Ledger(path) as ledger:
            _check_brought_up_to_date(ledger, scores)
            assert schema.is_current(ledger._connection)
