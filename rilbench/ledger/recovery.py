"""What a damaged ledger still holds, in a new file: ``python -m rilbench.ledger.recovery OLD NEW``.

Not the ``.recover`` of the sqlite3 program: Debian's is built without it, says "SQL logic error"
and leaves a ledger without rows.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rilbench.errors import UserError
from rilbench.ledger.schema import version

_END = 1 << 40
"""No rowid is as large."""


def recover(damaged: Path, saved: Path) -> tuple[dict[str, int], list[int]]:
    """Copy every row that can be read, and whose evaluation can be, into a new file.

    Returns:
        The rows saved by table, and the evaluations with fewer answers than their scores count.

    Raises:
        UserError: there is no such ledger, the new file exists already, or not even the list of
            tables can be read.
    """
    if not damaged.is_file():
        raise UserError(f"{damaged} does not exist; give the damaged ledger")
    if saved.exists():
        raise UserError(f"{saved} exists; give the name of a new file")
    with tempfile.TemporaryDirectory() as folder, _open(damaged, Path(folder)) as old:
        try:
            number = version(old)
            schema = old.execute("SELECT type, name, sql FROM sqlite_master ORDER BY rowid")
            parts = [row for row in schema.fetchall() if row[2] is not None]
        except (sqlite3.DatabaseError, UserError) as error:
            raise UserError(f"{damaged} cannot be recovered ({error}); use a backup") from error
        owner = old.execute("PRAGMA application_id").fetchone()[0]
        with contextlib.closing(sqlite3.connect(saved)) as new, new:
            for *_, statement in parts:
                new.execute(statement)
            for kind, name, _ in parts:
                if kind == "table":
                    _copy(old, new, name)
            counts = _drop_orphans(new, [name for kind, name, _ in parts if kind == "table"])
            new.execute(f"PRAGMA application_id = {owner}")
            new.execute(f"PRAGMA user_version = {number}")
            return counts, _short(new)


@contextlib.contextmanager
def _open(damaged: Path, folder: Path) -> Iterator[sqlite3.Connection]:
    """Open for reading; SQLite refuses a file that was cut short, so a copy is filled up."""
    with damaged.open("rb") as stream:
        header = stream.read(32)
    size, pages = int.from_bytes(header[16:18], "big"), int.from_bytes(header[28:32], "big")
    if damaged.stat().st_size < size * pages:
        damaged = Path(shutil.copyfile(damaged, folder / "whole.db"))
        os.truncate(damaged, size * pages)
    uri = f"{damaged.absolute().as_uri()}?mode=ro"
    with contextlib.closing(sqlite3.connect(uri, uri=True)) as old:
        yield old


def _copy(old: sqlite3.Connection, new: sqlite3.Connection, table: str) -> None:
    """Insert what can be read; a row that breaks the table's own rules is damage too."""
    for row in _rows(old, table):
        places = ", ".join("?" * len(row))
        new.execute(f"INSERT OR IGNORE INTO {table} VALUES ({places})", row)


def _rows(old: sqlite3.Connection, table: str) -> Iterator[tuple[Any, ...]]:
    """Return the readable rows in the order of their numbers, over every gap between them."""
    begin = 0
    while begin < _END:
        query = f"SELECT rowid, * FROM {table} NOT INDEXED WHERE rowid >= ? ORDER BY rowid"
        try:
            for number, *row in old.execute(query, [begin]):
                yield tuple(row)
                begin = number + 1
            return
        except sqlite3.DatabaseError:
            begin = _after_gap(old, query, begin)


def _after_gap(old: sqlite3.Connection, query: str, begin: int) -> int:
    """Return the first number after ``begin`` from which on a row, or the end, can be read."""

    def readable(number: int) -> bool:
        try:
            old.execute(query, [number]).fetchone()
        except sqlite3.DatabaseError:
            return False
        return True

    unread, gap = begin, 1
    # Ever longer steps, but short beside the gap: few whole pages between two gaps are missed.
    while begin + gap < _END and not readable(begin + gap):
        unread, gap = begin + gap, gap + 1 + gap // 16
    found = begin + gap
    while found - unread > 1:
        middle = (unread + found) // 2
        if readable(middle):
            found = middle
        else:
            unread = middle
    return found


def _drop_orphans(new: sqlite3.Connection, tables: list[str]) -> dict[str, int]:
    """Delete rows whose evaluation or model is lost; return how many are left, by table."""
    while lost := new.execute("PRAGMA foreign_key_check").fetchall():
        for table, number, *_ in lost:
            new.execute(f"DELETE FROM {table} WHERE rowid = ?", [number])
    return {name: new.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in tables}


def _short(new: sqlite3.Connection) -> list[int]:
    found = new.execute(
        "SELECT e.id FROM evaluations e "
        "WHERE (SELECT sum(answered) FROM scores WHERE evaluation_id = e.id) > "
        "(SELECT count(*) FROM samples WHERE evaluation_id = e.id)"
    )
    return [number for (number,) in found]


def main() -> None:
    """Recover as the command line says."""
    if len(sys.argv) != 3:
        raise SystemExit("usage: python -m rilbench.ledger.recovery OLD NEW")
    try:
        counts, short = recover(Path(sys.argv[1]), Path(sys.argv[2]))
    except UserError as error:
        raise SystemExit(f"rilbench: {error}") from error
    for table, count in counts.items():
        sys.stdout.write(f"{count} {table}\n")
    if short:
        numbers = ", ".join(map(str, short))
        sys.stdout.write(f"answers were lost of evaluations {numbers}; their scores are kept\n")


if __name__ == "__main__":
    main()
