"""What a damaged ledger still holds, in a new ledger.

Every row that can be read is kept. Scores and answers whose evaluation is lost get a placeholder
of the same number; rows that are no record of any table go to the table ``lost_and_found``.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rilbench.errors import UserError
from rilbench.ledger.database import Ledger
from rilbench.ledger.pages import PageFile, Row, Value
from rilbench.ledger.records import LOST
from rilbench.ledger.rows import DamagedRowError, require_readable

_TABLES = ("runs", "models", "evaluations", "tags", "scores", "samples")
_PAPER = "paper_scores"
"""A table whose rows a new ledger has already; so have those whose names begin with sqlite_."""
_TYPES: Mapping[str, tuple[type, ...]] = {
    "TEXT": (str,),
    "INTEGER": (int,),
    "REAL": (float, int),
}
_TOO_LARGE = 2**31
"""Such numbers of models and evaluations are damage; SQLite could not count on from them."""
_SCHEMA = ("type", "name", "tbl_name", "rootpage", "sql")
_SHORT = """
    SELECT s.evaluation_id, s.benchmark, s.questions, count(a.question_id) AS kept
    FROM scores s JOIN evaluations e ON e.id = s.evaluation_id
    LEFT JOIN samples a ON a.evaluation_id = s.evaluation_id AND a.benchmark = s.benchmark
    GROUP BY 1, 2 HAVING kept < s.questions
        AND (kept > 0 OR json_extract(e.settings, '$.imported') IS NULL)
"""
_UNSCORED = """
    SELECT id FROM evaluations WHERE id NOT IN (SELECT evaluation_id FROM scores) ORDER BY id
"""


@dataclass(frozen=True)
class Recovered:
    """What was saved and what was lost.

    Attributes:
        rows: those saved, by table.
        pages: the pages that the damaged file should have.
        unreadable_pages: those that are missing or destroyed.
        unreadable_rows: destroyed rows of pages that can be read.
        placeholders: evaluations that are lost, but whose scores or answers are kept.
        nameless: evaluations that are kept, but whose models are lost.
        short: evaluation, benchmark, questions and answers of scores that lost answers.
        unscored: evaluations of which no score is left.
        unplaced: rows that are no record of any table, kept in ``lost_and_found``.
        left_out: tables of the user's that could not be made again.
    """

    rows: Mapping[str, int]
    pages: int
    unreadable_pages: int
    unreadable_rows: int
    placeholders: tuple[int, ...]
    nameless: tuple[int, ...]
    short: tuple[tuple[int, str, int, int], ...]
    unscored: tuple[int, ...]
    unplaced: int
    left_out: tuple[str, ...]

    @property
    def is_lossy(self) -> bool:
        """Whether anything was lost."""
        counts = (self.unreadable_pages, self.unreadable_rows, self.unplaced)
        rows = (self.placeholders, self.nameless, self.short, self.unscored, self.left_out)
        return any(counts) or any(rows)

    def lines(self) -> Iterator[str]:
        """Yield what to tell."""
        saved = ", ".join(f"{count} {name}" for name, count in self.rows.items())
        yield f"saved: {saved}"
        if self.unreadable_pages:
            yield f"lost: {self.unreadable_pages} of {self.pages} pages, with rows or indexes"
        if self.unreadable_rows:
            yield f"lost: {self.unreadable_rows} rows of pages that can be read"
        if self.placeholders:
            numbers = ", ".join(map(str, self.placeholders))
            yield f"lost: what evaluations {numbers} were of; placeholders keep their rows"
        if self.nameless:
            numbers = ", ".join(map(str, self.nameless))
            yield f"lost: the models of evaluations {numbers}, which are kept without labels"
        if self.short:
            missing = sum(questions - kept for _, _, questions, kept in self.short)
            numbers = ", ".join(map(str, sorted({number for number, *_ in self.short})))
            yield f"lost: {missing} answers of evaluations {numbers}"
        if self.unscored:
            yield f"lost: all scores of evaluations {', '.join(map(str, self.unscored))}"
        if self.unplaced:
            yield f"{self.unplaced} rows that are damaged or of no table are in lost_and_found"
        for name in self.left_out:
            yield f"lost: table {name}, which cannot be made again"


def recover(damaged: Path, new: Path) -> Recovered:
    """Write what can be read of a damaged ledger to a new one. The damaged file is not changed.

    Raises:
        UserError: the damaged file does not exist or holds no row of a ledger, or the new one
            exists or cannot be written.
    """
    if not damaged.is_file() or not damaged.stat().st_size:
        raise UserError(f"{damaged} is no file with content; give the damaged ledger")
    if new.exists():
        raise UserError(f"{new} exists; give the name of a new file")
    if not new.absolute().parent.is_dir():
        raise UserError(f"{new} is in a folder that does not exist; make the folder")
    try:
        with (
            tempfile.TemporaryDirectory(dir=new.absolute().parent) as folder,
            PageFile(_with_log(damaged, Path(folder))) as pages,
            Ledger(new) as ledger,
        ):
            ledger.execute("PRAGMA foreign_keys = OFF")  # Until the placeholders are there.
            with ledger.one_transaction():
                found = _copy(pages, ledger)
        if not any(found.rows.values()):
            raise UserError(f"{damaged} holds no row of a ledger; restore a backup")
    except BaseException:
        for ending in ("", "-wal", "-shm"):
            Path(f"{new}{ending}").unlink(missing_ok=True)
        raise
    return found


def _with_log(damaged: Path, folder: Path) -> Path:
    """Return the file, or a copy with what its write-ahead log holds, as far as SQLite reads it."""
    log = Path(f"{damaged}-wal")
    if not log.exists() or not log.stat().st_size:
        return damaged
    copy = Path(shutil.copyfile(damaged, folder / "copy.db"))
    shutil.copyfile(log, folder / "copy.db-wal")
    with contextlib.closing(sqlite3.connect(copy)) as old, contextlib.suppress(sqlite3.Error):
        old.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return copy


class _Column(NamedTuple):
    """A column as `PRAGMA table_info` gives it; the key is the one that is the row's number."""

    name: str
    kind: str
    needed: bool
    is_key: bool

    def takes(self, value: Value) -> bool:
        """Return whether a value is of the column's type."""
        if value is None:
            return not self.needed
        return isinstance(value, _TYPES.get(self.kind.upper(), (object,)))


@dataclass(frozen=True)
class _Table:
    """A table of the damaged file or of the new one."""

    name: str
    columns: tuple[_Column, ...]

    def fits(self, values: tuple[Value, ...]) -> bool:
        """Return whether the values, in which that of a key is empty, may be one of its rows."""
        return len(values) == len(self.columns) and all(
            value is None if column.is_key else column.takes(value)
            for value, column in zip(values, self.columns, strict=True)
        )

    def is_record(self, cells: Mapping[str, Value]) -> bool:
        """Return whether a row of a ledger's own table can be read as what it should be."""
        for column in self.columns:
            value = cells.get(column.name)
            if not column.takes(value):
                return False
            is_number = column.kind == "INTEGER" and column.name.endswith("id")
            if is_number and value not in range(1, _TOO_LARGE):
                return False
        try:
            require_readable(self.name, cells)
        except DamagedRowError:
            return False
        return True

    def named_as(self, own: _Table) -> _Table:
        """Return the table with the columns of our own as they are known.

        The statement that made it may be damaged: columns whose names are not known are then ours
        by their place, since a user's own are behind them.
        """
        known = {column.name: column for column in own.columns}
        columns = tuple(known.get(column.name, column) for column in self.columns)
        if known.keys() - {column.name for column in columns} and len(columns) >= len(known):
            columns = own.columns + columns[len(known) :]
        return _Table(self.name, columns)


def _copy(pages: PageFile, ledger: Ledger) -> Recovered:
    """Copy all rows, inside the caller's transaction."""
    current = {name: _described(ledger, name) for name in (*_TABLES, _PAPER)}
    schema, roots, left_out = _schema(pages, ledger, current)
    place = {page: name for name, root in roots.items() for page in pages.tree(root)}
    for name in _TABLES:
        here = {column for column, *_ in current[name].columns}
        for column, *_ in schema[name].columns:
            if column not in here:  # One that the user added.
                ledger.execute(f"ALTER TABLE {_quoted(name)} ADD COLUMN {_quoted(column)}")
    before = {name: _count(ledger, name) for name in schema}
    unplaced = 0
    ledger.execute(
        "CREATE TABLE IF NOT EXISTS lost_and_found (page INTEGER, number INTEGER, content TEXT)"
    )
    for page in pages.leaves(place):
        for row in pages.rows(page):
            guess = _guess(row, schema)
            name = place.get(page) or guess or ""
            if _is_given(name, guess, row):
                continue
            # A destroyed page may lead to one of another table.
            names = [n for n in dict.fromkeys((name, guess)) if n in schema and n != _PAPER]
            if any(_insert(ledger, schema[n], current.get(n), row) for n in names):
                continue
            content = json.dumps(row[1], default=str)
            found = {"page": page, "number": row[0], "content": content}
            ledger.execute("INSERT INTO lost_and_found VALUES (:page, :number, :content)", found)
            unplaced += 1
    if not _count(ledger, "lost_and_found"):
        ledger.execute("DROP TABLE lost_and_found")
    placeholders = _placeholders(ledger)
    nameless = _nameless(ledger)
    return Recovered(
        rows={n: _count(ledger, n) - before[n] for n in schema if n != _PAPER},
        pages=pages.count,
        unreadable_pages=pages.unreadable_pages(),
        unreadable_rows=pages.unreadable_rows,
        placeholders=placeholders,
        nameless=tuple(number for number in nameless if number not in placeholders),
        short=tuple(row for row in ledger.rows(_SHORT) if row[0] not in placeholders),
        unscored=tuple(number for (number,) in ledger.rows(_UNSCORED)),
        unplaced=unplaced,
        left_out=left_out,
    )


def _schema(
    pages: PageFile, ledger: Ledger, current: Mapping[str, _Table]
) -> tuple[dict[str, _Table], dict[str, int], tuple[str, ...]]:
    """Return the damaged file's tables, their first pages, and the tables that cannot be made.

    As far as its list of tables can be read; a ledger's own tables are known without it. The
    user's tables are made in the new ledger.
    """
    schema, roots, left_out = dict(current), {"sqlite_schema": 1}, []
    listed = [row for page in pages.tree(1) for row in pages.rows(page) if _is_schema(row)]
    for _, (kind, name, _, root, sql) in listed:
        if kind != "table" or not isinstance(root, int) or not root:
            continue
        name = str(name)
        roots[name] = root
        if name.startswith("sqlite_"):
            continue
        table = _made_by(str(sql), name)
        if name in current:  # Known, even if the statement that made it is damaged.
            schema[name] = table.named_as(current[name]) if table else current[name]
            continue
        try:
            if table is not None:
                ledger.execute(str(sql))
        except UserError:
            table = None
        if table is None:
            del roots[name]
            left_out.append(name)
        else:
            schema[name] = table
    pages.unreadable_rows = 0  # These pages are read once more.
    return schema, roots, tuple(left_out)


def _made_by(sql: str, name: str) -> _Table | None:
    """Return the table of a statement; None if it cannot be executed or makes another one."""
    if not sql.upper().startswith("CREATE TABLE"):  # It is executed: nothing else.
        return None
    try:
        with contextlib.closing(sqlite3.connect(":memory:")) as scratch:
            scratch.execute(sql)
            table = _table(name, scratch.execute(f"PRAGMA table_info({_quoted(name)})"))
    except (sqlite3.Error, sqlite3.Warning, ValueError):
        return None
    return table if table.columns else None


def _is_schema(row: Row) -> bool:
    values = row[1]
    return len(values) == len(_SCHEMA) and values[0] in ("table", "index", "view", "trigger")


def _is_given(name: str, guess: str | None, row: Row) -> bool:
    """Return whether a new ledger has a row of this table already."""
    if name.startswith("sqlite_") or not name:
        return _is_schema(row) or (bool(name) and guess not in (*_TABLES, _PAPER))
    return name == _PAPER == guess


def _guess(row: Row, schema: Mapping[str, _Table]) -> str | None:
    """Return the table of a row on a page that no table's tree leads to any more."""
    return next((name for name, table in schema.items() if table.fits(row[1])), None)


def _insert(ledger: Ledger, table: _Table, current: _Table | None, row: Row) -> bool:
    """Insert a row under its number; return False if the table's rules refuse it."""
    number, values = row
    names = [name for name, *_ in table.columns]
    if len(values) > len(names):
        return False
    cells: dict[str, Value] = dict(zip(names, values, strict=False))
    for name, _, _, is_key in table.columns:
        if is_key:
            cells[name] = number
    for name, kind, needed, is_key in current.columns if current else ():
        if needed and not is_key and name not in cells:
            cells[name] = "" if kind == "TEXT" else 0  # A column that the old file's version lacks.
    if not any(is_key for *_, is_key in table.columns):
        cells["rowid"] = number  # Rows keep their order.
    if current is not None and not current.is_record(cells):
        return False
    columns = ", ".join(map(_quoted, cells))
    places = ", ".join(f":c{i}" for i in range(len(cells)))
    statement = f"INSERT INTO {_quoted(table.name)} ({columns}) VALUES ({places})"
    try:
        ledger.execute(statement, {f"c{i}": value for i, value in enumerate(cells.values())})
    except sqlite3.IntegrityError:
        return False
    return True


def _placeholders(ledger: Ledger) -> tuple[int, ...]:
    """Make evaluations for rows whose own are lost; return their numbers."""
    owned = " UNION ".join(f"SELECT evaluation_id FROM {n}" for n in ("scores", "samples", "tags"))
    missing = f"SELECT * FROM ({owned}) WHERE evaluation_id NOT IN (SELECT id FROM evaluations)"
    evaluations = tuple(int(number) for (number,) in ledger.rows(f"{missing} ORDER BY 1"))
    # Each has a model of its own, so that no two lost ones share a row of the table.
    last = (
        ledger.rows(
            "SELECT max(m) FROM (SELECT max(id) m FROM models UNION SELECT "
            "max(model_id) FROM evaluations)"
        )[0][0]
        or 0
    )
    for offset, number in enumerate(evaluations, 1):
        ledger.execute(
            "INSERT INTO evaluations (id, model_id, path, suite, created, dirty, settings) VALUES "
            "(:number, :model, :lost, :lost, '1970-01-01T00:00:00+00:00', 0, '{}')",
            {"number": number, "model": last + offset, "lost": LOST},
        )
    return evaluations


def _nameless(ledger: Ledger) -> tuple[int, ...]:
    """Make models for evaluations whose own are lost; return the evaluations' numbers."""
    lost = ledger.rows(
        "SELECT id, model_id FROM evaluations WHERE model_id NOT IN (SELECT id FROM models) "
        "ORDER BY id"
    )
    for model in {model for _, model in lost}:
        ledger.execute(
            "INSERT INTO models (id, fingerprint, student, method, teacher) VALUES "
            "(:model, :fingerprint, :lost, :lost, :lost)",
            {"model": model, "fingerprint": f"{LOST}-{model}", "lost": LOST},
        )
    return tuple(number for number, _ in lost)


def _described(ledger: Ledger, name: str) -> _Table:
    return _table(name, ledger.rows(f"PRAGMA table_info({_quoted(name)})"))


def _table(name: str, described: Iterable[Any]) -> _Table:
    rows = list(described)
    keys = sum(bool(row[5]) for row in rows)
    return _Table(
        name,
        tuple(
            _Column(
                row[1], row[2], bool(row[3]), keys == 1 and bool(row[5]) and row[2] == "INTEGER"
            )
            for row in rows
        ),
    )


def _count(ledger: Ledger, name: str) -> int:
    return int(ledger.rows(f"SELECT count(*) FROM {_quoted(name)}")[0][0])


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
