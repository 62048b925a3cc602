"""What a damaged ledger still holds is saved; what is lost is counted."""

import random
import sqlite3
from pathlib import Path

import pytest
from report_place import sample, score
from typer.testing import CliRunner

from rilbench.cli import app
from rilbench.errors import UserError
from rilbench.evaluate.suite import suite_columns
from rilbench.ledger import Evaluation, Ledger, Run
from rilbench.ledger.housekeeping import unreadable
from rilbench.ledger.recovery import Recovered, recover
from rilbench.table.build import Choice, build_table
from rilbench.table.inspect_ledger import everything, in_full, overview

PAGE = 4096
EVALUATIONS, QUESTIONS = 12, 40


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A ledger whose answers are from a word to several pages long, with a table of the user's."""
    path = tmp_path_factory.mktemp("whole") / "l.db"
    dice = random.Random(0)
    with Ledger(path) as ledger:
        for number in range(EVALUATIONS):
            samples = [
                sample("MMStar", str(q), response="é" * int(5000 ** dice.random()), score=q % 2)
                for q in range(QUESTIONS)
            ]
            ledger.record(
                Evaluation(
                    path=f"/models/{number}",
                    fingerprint=f"model{number}",
                    student="nano",
                    method="base",
                    teacher="none",
                    suite="nano",
                    created="2026-01-02T03:04:05+00:00",
                    scores=(score("MMStar", samples),),
                    samples=tuple(samples),
                    settings={"kept": 1},
                    tags=("mine",),
                )
            )
        ledger.record_run(RUN)
    with sqlite3.connect(path) as connection:
        connection.execute("ALTER TABLE scores ADD COLUMN remark TEXT")
        connection.execute("UPDATE scores SET remark = 'kept' WHERE evaluation_id = 1")
        connection.execute("CREATE TABLE notes (number INTEGER, text TEXT)")
        connection.execute("INSERT INTO notes VALUES (1, 'mine')")
    connection.close()
    return path.read_bytes()


RUN = Run(
    name="r",
    path="/r",
    recipe_fingerprint="x",
    recipe_yaml="y",
    student="nano",
    method="ril",
    teacher="both",
    status="finished",
    created="2026-01-02T03:04:05+00:00",
)


def _rows(path: Path, query: str) -> list[tuple[object, ...]]:
    with sqlite3.connect(path) as connection:
        rows = connection.execute(query).fetchall()
    connection.close()
    return rows


def _recovered(content: bytes, folder: Path) -> tuple[Recovered, Path]:
    (folder / "damaged.db").write_bytes(content)
    found = recover(folder / "damaged.db", folder / "new.db")
    assert (folder / "damaged.db").read_bytes() == content
    return found, folder / "new.db"


def _root(content: bytes, name: str, folder: Path) -> int:
    (folder / "look.db").write_bytes(content)
    query = f"SELECT rootpage FROM sqlite_master WHERE name = '{name}'"
    return int(str(_rows(folder / "look.db", query)[0][0]))


def test_a_whole_ledger_is_recovered_whole(whole: bytes, tmp_path: Path) -> None:
    """SQLite itself agrees with every row that was read."""
    found, new = _recovered(whole, tmp_path)
    assert not found.is_lossy, found
    assert found.rows["samples"] == EVALUATIONS * QUESTIONS
    for name in ("runs", "models", "evaluations", "tags", "scores", "samples", "notes"):
        query = f"SELECT rowid, * FROM {name} ORDER BY rowid"
        assert _rows(new, query) == _rows(tmp_path / "damaged.db", query), name
    done = CliRunner().invoke(app, ["ledger", "verify", "--db", str(new)])
    assert "is sound" in done.output, done.output


@pytest.mark.parametrize("share", [0.9, 0.6, 0.5, 0.02])
def test_of_a_cut_file_the_rest_is_kept(whole: bytes, tmp_path: Path, share: float) -> None:
    found, new = _recovered(whole[: int(share * len(whole))], tmp_path)
    assert found.is_lossy
    assert found.unreadable_pages == pytest.approx((1 - share) * len(whole) / PAGE, abs=2)
    kept = _rows(new, "SELECT count(*) FROM samples")[0][0]
    assert found.rows["samples"] == kept
    assert int(str(kept)) >= (share - 0.25) * EVALUATIONS * QUESTIONS
    # Each kept row is one of the whole file's.
    (tmp_path / "whole.db").write_bytes(whole)
    query = "SELECT rowid, * FROM samples ORDER BY rowid"
    assert set(_rows(new, query)) <= set(_rows(tmp_path / "whole.db", query))
    _is_usable(new)


def test_answers_without_their_evaluations_are_kept(whole: bytes, tmp_path: Path) -> None:
    content = bytearray(whole)
    for name in ("evaluations", "models", "scores"):
        page = _root(whole, name, tmp_path)
        content[(page - 1) * PAGE : page * PAGE] = bytes(PAGE)
    found, new = _recovered(bytes(content), tmp_path)
    assert found.rows["samples"] == EVALUATIONS * QUESTIONS
    assert found.unreadable_pages == 3
    assert found.placeholders == tuple(range(1, EVALUATIONS + 1))
    assert "lost: what evaluations 1, 2, 3" in "\n".join(found.lines())
    assert "lost: all scores of evaluations 1, 2, 3" in "\n".join(found.lines())
    with Ledger.open_read(new) as ledger:
        assert len({e.fingerprint for e in ledger.evaluations()}) == EVALUATIONS
        assert {e.tags for e in ledger.evaluations()} == {("mine",)}
    _is_usable(new)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("filling", ["noise", "zeros"])
def test_overwritten_pages_take_no_others_with_them(
    whole: bytes, tmp_path: Path, seed: int, filling: str
) -> None:
    dice = random.Random(seed)
    content = bytearray(whole)
    pages = dice.sample(range(1, len(whole) // PAGE + 1), 5)
    for page in (*pages, 1) if seed == 0 else pages:
        content[(page - 1) * PAGE : page * PAGE] = (
            dice.randbytes(PAGE) if filling == "noise" else bytes(PAGE)
        )
    found, new = _recovered(bytes(content), tmp_path)
    assert found.is_lossy
    assert found.rows["samples"] >= 0.5 * EVALUATIONS * QUESTIONS
    (tmp_path / "whole.db").write_bytes(whole)
    query = "SELECT evaluation_id, benchmark, question_id, score FROM samples"
    assert set(_rows(new, query)) <= set(_rows(tmp_path / "whole.db", query))
    _is_usable(new)


def _is_usable(path: Path) -> None:
    """SQLite finds the new ledger sound, and it can be shown, written and added to."""
    with Ledger(path) as ledger:
        assert ledger.rows("PRAGMA integrity_check") == [("ok",)]
        assert ledger.rows("PRAGMA foreign_key_check") == []
        assert unreadable(ledger) == {}
        list(overview(everything(ledger), path))
        for record in everything(ledger):
            list(in_full(record))
        build_table(ledger, Choice(), suite_columns)
        ledger.record_run(RUN)


@pytest.mark.parametrize("seed", range(24))
def test_what_bytes_are_overwritten_the_new_ledger_can_be_read(
    whole: bytes, tmp_path: Path, seed: int
) -> None:
    """Damaged values are in lost_and_found: SQLite itself takes any text as a number."""
    dice = random.Random(seed)
    content = bytearray(whole)
    first_pages = min(12, len(whole) // PAGE)  # The small tables.
    for _ in range(dice.choice([1, 5, 40])):
        page = dice.randrange(first_pages if dice.random() < 0.5 else len(whole) // PAGE)
        for _ in range(dice.choice([1, 10, 100])):
            content[page * PAGE + dice.randrange(PAGE)] = dice.randrange(256)
    _, new = _recovered(bytes(content), tmp_path)
    _is_usable(new)


def test_a_row_is_placed_by_its_values_where_a_page_leads_to_another_table(
    whole: bytes, tmp_path: Path
) -> None:
    """The list of tables says that SQLite's own counters are where the models begin."""
    content = bytearray(whole)
    name = b"tablesqlite_sequencesqlite_sequence"
    entry = content.index(name) + len(name)
    assert content[entry] == _root(whole, "sqlite_sequence", tmp_path)
    content[entry] = _root(whole, "models", tmp_path)
    found, new = _recovered(bytes(content), tmp_path)
    assert found.unplaced <= 1  # The counter.
    assert _rows(new, "SELECT id, student FROM models WHERE id = 2") == [(2, "nano")]
    _is_usable(new)


@pytest.mark.parametrize(
    ("change", "lost"),
    [
        ("""UPDATE evaluations SET settings = '{"kept": 1' WHERE id = 2""", True),
        ("UPDATE evaluations SET created = '2026-13-01' WHERE id = 2", True),
        ("UPDATE evaluations SET model_id = 'one' WHERE id = 2", True),
        ("UPDATE scores SET questions = 'many' WHERE evaluation_id = 2", False),
        ("UPDATE samples SET tokens = 'many' WHERE evaluation_id = 2 AND question_id = 1", False),
        ("UPDATE models SET seed = 'x' WHERE id = 2", False),
        ("UPDATE runs SET curves = '{'", False),
    ],
)
def test_a_damaged_value_is_left_out_and_said(
    whole: bytes, tmp_path: Path, change: str, lost: bool
) -> None:
    (tmp_path / "changed.db").write_bytes(whole)
    with sqlite3.connect(tmp_path / "changed.db") as connection:
        connection.execute(change)
    connection.close()
    found, new = _recovered((tmp_path / "changed.db").read_bytes(), tmp_path)
    assert found.unplaced == 1
    assert "1 rows that are damaged or of no table are in lost_and_found" in [*found.lines()]
    assert found.placeholders == ((2,) if lost else ())
    assert len(_rows(new, "SELECT content FROM lost_and_found")) == 1
    _is_usable(new)


def test_a_damaged_name_of_a_column_moves_no_values(whole: bytes, tmp_path: Path) -> None:
    damaged = whole.replace(b"benchmark TEXT NOT NULL", b"Benchmark TEXT NOT NULL")
    damaged = damaged.replace(b"question_id TEXT", b"questioo_id TEXT")
    found, new = _recovered(damaged, tmp_path)
    assert found.rows["samples"] == EVALUATIONS * QUESTIONS
    assert found.rows["scores"] == EVALUATIONS
    query = "SELECT DISTINCT benchmark FROM samples UNION SELECT benchmark FROM scores"
    assert _rows(new, query) == [("MMStar",)]
    assert _rows(new, "SELECT remark FROM scores WHERE evaluation_id = 1") == [("kept",)]
    _is_usable(new)


def test_what_only_the_log_has_is_recovered_too(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    with Ledger(path) as ledger:
        ledger.record_run(RUN)
        for ending in ("", "-wal"):
            (tmp_path / f"copy.db{ending}").write_bytes(Path(f"{path}{ending}").read_bytes())
    found = recover(tmp_path / "copy.db", tmp_path / "new.db")
    assert found.rows["runs"] == 1
    assert not found.is_lossy


def test_the_command_says_what_was_lost_and_fails(whole: bytes, tmp_path: Path) -> None:
    damaged, new = tmp_path / "damaged.db", tmp_path / "new.db"
    damaged.write_bytes(whole[: len(whole) // 2])
    done = CliRunner().invoke(app, ["ledger", "recover", str(damaged), str(new)])
    assert isinstance(done.exception, UserError)
    assert "has lost data; what could be read is in" in str(done.exception)
    assert "saved: 1 runs" in done.output or "saved: 0 runs" in done.output
    assert "pages, with rows or indexes" in done.output
    with pytest.raises(UserError, match=r"new\.db exists; give the name of a new file"):
        recover(damaged, new)


@pytest.mark.parametrize("content", [b"", b"benchmark,score\n" * 900, bytes(9000), b"SQLite"])
def test_a_file_without_rows_gives_no_ledger(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.db").write_bytes(content)
    with pytest.raises(UserError, match=r"no file with content|holds no row"):
        recover(tmp_path / "x.db", tmp_path / "new.db")
    assert [file.name for file in tmp_path.iterdir()] == ["x.db"]
