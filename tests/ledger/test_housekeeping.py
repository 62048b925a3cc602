"""Care for a ledger, through its commands: each does what it should, and says what it did."""

import sqlite3
from pathlib import Path

import pytest
from report_place import evaluation, outcomes, run
from typer.testing import CliRunner

from rilbench.cli import app
from rilbench.errors import UserError, UserNotice
from rilbench.ledger import Ledger, database
from rilbench.ledger.housekeeping import back_up, verify
from rilbench.ledger.recovery import recover
from rilbench.table.question_diff import find_evaluation

ROOT = Path(__file__).parents[2]


@pytest.fixture
def db(tmp_path: Path) -> Path:
    path = tmp_path / "l.db"
    with Ledger(path) as ledger:
        ledger.record(evaluation(outcomes({"a": 1.0, "b": 0.0})))
        ledger.record(evaluation(outcomes({"a": 1.0, "b": 1.0}), fingerprint="trained"))
        ledger.record(evaluation(outcomes({"a": 0.0, "b": None}), fingerprint="trained"))
    return path


def _run(*arguments: object, db: Path, text: str = "") -> str:
    done = CliRunner().invoke(app, ["ledger", *map(str, arguments), "--db", str(db)], input=text)
    if isinstance(done.exception, UserError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def _sql(db: Path, statement: str) -> list[tuple[object, ...]]:
    with sqlite3.connect(db) as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        *before, last = statement.split("; ")
        for each in before:
            connection.execute(each)
        rows = connection.execute(last).fetchall()
    connection.close()
    return rows


def test_a_backup_is_one_state_of_a_ledger_that_is_written_to(db: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy.db"
    with Ledger(db) as writer, writer.one_transaction():
        writer.record(evaluation(outcomes({"a": 1.0, "b": 0.0})))
        assert "3 evaluations" in _run("backup", target, db=db)
    with Ledger.open_read(target) as copy:
        assert len(copy.evaluations()) == 3
        assert verify(copy).wrong == ()
    with pytest.raises(UserError, match=r"copy\.db exists; use --overwrite"):
        _run("backup", target, db=db)
    assert "4 evaluations" in _run("backup", target, "--overwrite", db=db)
    with pytest.raises(UserError, match="exists; give another file"):
        _run("backup", db, "--overwrite", db=db)
    with pytest.raises(UserError, match="cannot be written"):
        _run("backup", tmp_path / "none" / "x.db", db=db)
    with pytest.raises(UserError, match="is a folder; give a file"):
        _run("backup", tmp_path, "--overwrite", db=db)
    assert not [*tmp_path.glob(".*")]


def test_a_sound_ledger_is_verified(db: Path) -> None:
    assert "is sound: 6 scores agree with their answers\n" in _run("verify", db=db)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            "UPDATE scores SET value = 51 WHERE evaluation_id = 1 AND benchmark = 'MMStar'",
            "evaluation 1, MMStar: is 51.00, but its answers give",
        ),
        ("UPDATE scores SET missing = 1 WHERE evaluation_id = 3", "evaluation 3, MMStar: counts 1"),
        ("UPDATE scores SET judge = 'x' WHERE evaluation_id = 2", "does not follow from its prov"),
        ("DELETE FROM samples WHERE evaluation_id = 2", "evaluation 2, MMStar: 0 of its"),
        ("UPDATE samples SET score = 1 - score WHERE evaluation_id = 1", "not those that were rec"),
        ("DELETE FROM scores WHERE evaluation_id = 2", "answers without a score"),
        ("DELETE FROM models", "names a row of models that does not exist"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(db: Path, change: str, said: str) -> None:
    _sql(db, change)
    done = CliRunner().invoke(app, ["ledger", "verify", "--db", str(db)])
    assert isinstance(done.exception, UserError)
    assert "is not sound" in str(done.exception)
    assert any(said in line for line in done.output.splitlines()), done.output


def test_what_is_forgotten_is_gone_and_its_number_stays_unused(db: Path) -> None:
    with pytest.raises(UserError, match="use --yes"):
        _run("forget", 3, db=db)
    with pytest.raises(UserError, match="no evaluation 9; rilbench show"):
        _run("forget", 3, 9, "--yes", db=db)
    before = db.stat().st_size
    said = _run("forget", 3, "--yes", db=db)
    assert "evaluation 3: nano base none" in said
    assert "removed: 0 models, 1 evaluations, 2 scores, 6 answers" in said
    assert "removed: 1 models, 1 evaluations" in _run("forget", 2, "--yes", db=db)
    assert db.stat().st_size <= before
    assert "is sound: 2 scores" in _run("verify", db=db)
    with Ledger(db) as ledger:
        assert ledger.record(evaluation(outcomes({"a": 1.0, "b": 0.0}))) == 4


def test_another_ledger_is_merged_once(db: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    _run("backup", other, db=db)
    with Ledger(other) as ledger:
        ledger.record(evaluation(outcomes({"a": 1.0, "b": 0.0}), fingerprint="new", tags=("mine",)))
    said = _run("merge", other, db=db)
    assert "1 evaluations with 6 answers and 0 runs are new; 3 evaluations were there" in said
    assert "0 evaluations with 0 answers" in _run("merge", other, db=db)
    with Ledger.open_read(db) as ours, Ledger.open_read(other) as theirs:
        assert ours.evaluations() == theirs.evaluations()
        assert ours.samples(4) == theirs.samples(4)
    with pytest.raises(UserError, match="is this ledger"):
        _run("merge", db, db=db)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "does not exist; give a ledger"),
        ("", "is empty; give a ledger"),
        ("PRAGMA user_version = 0; VACUUM", "is empty; give a ledger"),
        ("CREATE TABLE bookmarks (url)", "is another program's database"),
    ],
)
@pytest.mark.parametrize("command", ["merge", "verify", "backup", "forget 1 --yes", "tag 1 x"])
def test_what_is_no_ledger_is_refused(
    db: Path, tmp_path: Path, content: str | None, said: str, command: str
) -> None:
    other = tmp_path / "other.db"
    if content is not None:
        with sqlite3.connect(other) as connection:
            connection.executescript(content)
        connection.close()
    before = [*tmp_path.iterdir()], other.exists() and other.read_bytes()
    name, *arguments = command.split()
    if name == "merge":
        assert said in _refused("ledger", name, other, db=db)
    else:
        copy = [tmp_path / "copy.db"] if name == "backup" else arguments
        assert said in _refused("ledger", name, *copy, db=other)
    assert ([*tmp_path.iterdir()], other.exists() and other.read_bytes()) == before


@pytest.mark.parametrize(
    ("change", "lacking"),
    [
        ("DROP TABLE samples", "table samples"),
        ("ALTER TABLE scores DROP COLUMN asked", "column scores.asked"),
        ("ALTER TABLE tags RENAME TO mine", "table tags"),
    ],
)
def test_a_ledger_that_lacks_a_table_is_refused_and_can_be_recovered(
    db: Path, tmp_path: Path, change: str, lacking: str
) -> None:
    """A row that is written to such a file would go into a table without constraints."""
    _sql(db, f"DROP VIEW answers; DROP VIEW changes; DROP VIEW results; {change}")
    for command in (["import", ROOT / "results" / "nano"], ["show"], ["ledger", "verify"]):
        said = _refused(*command, db=db)
        assert f"is damaged (it lacks {lacking}); rilbench ledger recover {db} NEW.db" in said
    recover(db, tmp_path / "new.db")
    with Ledger(tmp_path / "new.db") as ledger:
        assert [e.id for e in ledger.evaluations()] == [3, 2, 1]
        assert {s.asked for e in ledger.evaluations() for s in e.scores} == {""}


def test_imports_of_two_machines_are_of_one_model_only_if_their_files_say_so(
    tmp_path: Path,
) -> None:
    def imported(model: str, *files: str) -> dict[str, object]:
        entries = [{"file": name, "sha256": name} for name in files]
        return {"imported": {"model": model, "files": entries}}

    cases = {"here": ("f1", "f2"), "same": ("f1",), "namesake": ("f9",)}
    for name, files in cases.items():
        with Ledger(tmp_path / f"{name}.db") as ledger:
            settings = imported("Qwen", *files)
            samples = outcomes({"a": 1.0, "b": 0.0})
            ledger.record(evaluation(samples, fingerprint=name, settings=settings))
    for name in ("same", "namesake"):
        _run("merge", tmp_path / f"{name}.db", db=tmp_path / "here.db")
    with Ledger.open_read(tmp_path / "here.db") as ledger:
        found = [e.fingerprint for e in ledger.evaluations()]
    assert found == ["namesake", "here", "here"]


def test_a_tag_names_evaluations(db: Path) -> None:
    assert "evaluation 3 [final]" in _run("tag", 1, 3, "final", db=db)
    with Ledger.open_read(db) as ledger:
        assert [e.id for e in ledger.evaluations() if "final" in e.tags] == [3, 1]
        with pytest.raises(UserError, match="several models called 'final'"):
            find_evaluation(ledger, "final")
    _run("tag", 1, "final", "--remove", db=db)
    runner = CliRunner()
    with Ledger.open_read(db) as ledger:
        assert find_evaluation(ledger, "final").id == 3
    assert "tags" in runner.invoke(app, ["show", "final", "--db", str(db)]).output
    only = ["table", "--only", "measured", "--format", "json", "--db", str(db)]
    assert (
        '"evaluations": [\n      3\n    ]' in runner.invoke(app, [*only, "--tag", "final"]).output
    )
    refused = runner.invoke(app, [*only, "--tag", "none"])
    assert "no evaluation has the tag 'none'; known: final" in str(refused.exception)
    for name in ("12", " ", "a\x1b"):
        with pytest.raises(UserError, match="is no tag"):
            _run("tag", 1, name, db=db)


@pytest.mark.parametrize("limit", [database._CHECKED_PAGES, 0])
def test_a_damaged_ledger_is_not_written_to(
    db: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    """With few pages all are checked; with many, all but those of the answers."""
    monkeypatch.setattr(database, "_CHECKED_PAGES", limit)
    page = _sql(db, "SELECT rootpage FROM sqlite_master WHERE name = 'evaluations'")[0][0]
    content = bytearray(db.read_bytes())
    start = (int(str(page)) - 1) * 4096
    content[start + 8 : start + 4096] = b"\xff" * 4088
    db.write_bytes(content)
    with pytest.raises(UserError, match=r"is damaged .*; rilbench ledger recover .* NEW.db saves"):
        Ledger(db)
    assert db.read_bytes() == content
    with Ledger.open_read(db) as ledger, pytest.raises(UserError, match="is damaged"):
        back_up(ledger, db.with_name("copy.db"))
    assert not db.with_name("copy.db").exists()


DAMAGE = {
    "settings": "UPDATE evaluations SET settings = '{\"a\": 1' WHERE id = 3",
    "a setting": 'UPDATE evaluations SET settings = \'{"reading": {"x": {"y": 1}}}\' WHERE id = 3',
    "garbled text": "UPDATE evaluations SET path = CAST(x'2fff' AS TEXT) WHERE id = 3",
    "time": "UPDATE evaluations SET created = 'now' WHERE id = 3",
    "count": "UPDATE scores SET missing = 99 WHERE evaluation_id = 3",
    "type": "UPDATE scores SET questions = 'ten' WHERE evaluation_id = 3",
    "hash": "UPDATE scores SET comparability = CAST(x'ff' AS TEXT) WHERE evaluation_id = 3",
    "tag": "INSERT INTO tags VALUES (3, CAST(x'ff' AS TEXT))",
    "model": "UPDATE evaluations SET model_id = 99 WHERE id = 3",
}


@pytest.fixture(params=DAMAGE)
def damaged(db: Path, request: pytest.FixtureRequest) -> Path:
    """A ledger whose evaluation 3 is damaged where SQLite's own check sees nothing."""
    _sql(db, DAMAGE[request.param])
    return db


def _refused(*arguments: object, db: Path) -> str:
    done = CliRunner().invoke(app, [*map(str, arguments), "--db", str(db)])
    assert isinstance(done.exception, UserError), done.output
    assert "\n" not in str(done.exception)
    return f"{done.output}{done.exception}"


def test_readers_go_on_without_a_damaged_evaluation(damaged: Path, tmp_path: Path) -> None:
    remedy = f"rilbench ledger forget 3 --db {damaged}"
    for command in (
        ["show"],
        ["show", "2"],
        ["table"],
        ["compare", "1", "2"],
        ["export", "scores", "--out", str(tmp_path / "scores.csv")],
        ["report", "1", "-o", str(tmp_path / "r.html")],
    ):
        with pytest.warns(UserNotice, match=r"left out what is damaged \(evaluation 3, .*forget 3"):
            done = CliRunner().invoke(app, [*command, "--db", str(damaged)])
        assert done.exit_code == 0, done.output
    # The newest evaluation counts there, and it may be the damaged one.
    baseline = ("--update", "--reason", "x", "--baseline", tmp_path / "b.json")
    assert remedy in _refused("check", *baseline, db=damaged)


def test_care_for_a_ledger_with_a_damaged_evaluation(damaged: Path, tmp_path: Path) -> None:
    said = _refused("ledger", "verify", db=damaged)
    assert any(line.startswith("evaluation 3, ") for line in said.splitlines()) or "row" in said
    assert f"rilbench ledger forget 3 --db {damaged}" in said
    said = _refused("ledger", "backup", tmp_path / "copy.db", db=damaged)
    assert "evaluation 3, " in said
    assert "not copied; rilbench ledger verify" in said
    assert not [*tmp_path.glob("*copy.db*")]
    assert "evaluation 3: damaged (" in _run("forget", 3, "--yes", db=damaged)
    assert "is sound: 4 scores" in _run("verify", db=damaged)
    assert "2 evaluations" in _run("backup", tmp_path / "copy.db", db=damaged)


def test_a_damaged_evaluation_is_not_recovered_as_if_it_were_whole(
    damaged: Path, tmp_path: Path
) -> None:
    with sqlite3.connect(damaged) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    found = recover(damaged, tmp_path / "new.db")
    with Ledger.open_read(tmp_path / "new.db") as ledger:
        assert [e.id for e in ledger.evaluations()] == [3, 2, 1]
        whole = {line for line in verify(ledger).wrong if not line.startswith("evaluation 3")}
    assert whole == set()
    assert found.is_lossy


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("UPDATE samples SET tokens = 'many' WHERE evaluation_id = 3", "evaluation 3, answer MMS"),
        ("UPDATE samples SET gold = CAST(x'ff' AS TEXT) WHERE evaluation_id = 3", "garbled text"),
    ],
)
def test_damaged_answers_are_found(db: Path, tmp_path: Path, change: str, said: str) -> None:
    _sql(db, change)
    assert said in _refused("ledger", "verify", db=db)
    assert "not copied" in _refused("ledger", "backup", tmp_path / "copy.db", db=db)
    with Ledger.open_read(db) as ledger, pytest.raises(UserError, match=r"NEW\.db saves what can"):
        ledger.samples(3)
    _run("forget", 3, "--yes", db=db)
    assert "is sound" in _run("verify", db=db)


def test_a_damaged_run_is_left_out_and_named(db: Path, tmp_path: Path) -> None:
    with Ledger(db) as ledger:
        ledger.record_run(run(tmp_path / "first"))
        ledger.record_run(run(tmp_path / "second"))
    _sql(db, "UPDATE runs SET metrics = '{' WHERE path LIKE '%first'")
    with pytest.warns(UserNotice, match=r"left out run .*first, which is damaged .* NEW\.db saves"):
        done = CliRunner().invoke(app, ["show", "--db", str(db)])
    assert "second" in done.output
    assert "run " in _refused("ledger", "verify", db=db)
    assert recover(db, tmp_path / "new.db").rows["runs"] == 1
    with Ledger.open_read(tmp_path / "new.db") as ledger:
        assert [found.name for found in ledger.runs()] == ["second"]
