"""Opening, writing and reading the ledger, through sqlite-utils."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sqlite3
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from rilbench.errors import UserError, UserNotice
from rilbench.ledger.records import Evaluation, Run, Sample, Score
from rilbench.ledger.schema import is_current, migrate, version
from rilbench.paths import may_write

_PATIENCE = 60.0  # seconds that a writer waits for another
_SECRETS = ("api_key", "key", "token", "password", "secret", "authorization")
_MODEL = (
    *("fingerprint", "student", "method", "teacher", "run", "start_fingerprint"),
    *("recipe_fingerprint", "family", "seed"),
)
_NETWORK = ("nfs", "cifs", "smb", "9p", "fuse.sshfs", "lustre", "gpfs", "beegfs", "ceph", "afs")
"""File systems on which SQLite's locks and write-ahead log are not to be trusted."""

_JSON = ("figures", "curves")
"""Columns of a run that hold JSON."""
_NOT_FIELDS = ("evaluation_id", "comparability")

_Record = TypeVar("_Record", Score, Sample)


def default_db(option: Path | None = None) -> Path:
    """Return the ledger's path: the option, else ``$RILBENCH_DB``, else ``rilbench.db`` here."""
    return option or Path(os.environ.get("RILBENCH_DB") or "rilbench.db")


class Ledger:
    """One SQLite file, made and brought up to date when it is opened.

    Write-ahead log, ``synchronous=FULL``, foreign keys; several processes may write, each waits
    for the others. Use as a context manager, or call :meth:`close`.

    Raises:
        UserError: (from the constructor and every method) the folder is missing, the file or
            folder is read-only, the file is no SQLite database, another program's or a newer
            rilbench's, or another writer holds it for a minute.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._errors(), self._opening():
            _require_writable(path)
            _warn_of_network(path)
            self._open("rwc")
            self._enable_wal()
            with self._writing():
                migrate(self._connection)

    @classmethod
    def open_read(cls, path: Path) -> Ledger:
        """Open for reading. Where there is no file the ledger is empty, and none is made.

        Raises:
            UserError: as for the constructor, but for what concerns writing.
        """
        ledger = cls.__new__(cls)
        ledger.path = path
        with ledger._errors(), ledger._opening():
            if path.is_dir():
                raise UserError("is a folder; give a file")
            if path.exists():
                # A write-ahead log needs files beside it. In a folder where none can be made and
                # none is left over, nobody writes: the file may be read as it is.
                alone = not may_write(path.parent) and not Path(f"{path}-wal").exists()
                ledger._open("ro&immutable=1" if alone else "ro")
                if is_current(ledger._connection):
                    return ledger
                if version(ledger._connection):
                    ledger._read_older()
                    return ledger
                ledger.close()
            ledger._open("memory")
            with ledger._writing():
                migrate(ledger._connection)
        return ledger

    def _read_older(self) -> None:
        """Go on with a copy in memory that is brought up to date; the file stays as it is."""
        older = self._connection
        self._open("memory")
        with contextlib.closing(older):
            older.backup(self._connection)
        with self._writing():
            migrate(self._connection)

    def record(self, evaluation: Evaluation) -> int:
        """Write an evaluation with its scores and samples, all or nothing; return its id."""
        settings = json.dumps(_without_secrets(evaluation.settings), allow_nan=False)
        with self._errors(), self._writing():
            row = {
                "model_id": self._model(evaluation),
                "suite": evaluation.suite,
                "created": evaluation.created,
                "commit": evaluation.commit,
                "dirty": int(evaluation.dirty),
                "settings": settings,
            }
            number = int(self._db["evaluations"].insert(row).last_pk)
            own = {"evaluation_id": number}
            scores = evaluation.scores
            self._db["scores"].insert_all(
                {**own, **vars(each), "comparability": each.comparability} for each in scores
            )
            self._db["samples"].insert_all({**own, **vars(each)} for each in evaluation.samples)
        return number

    def record_run(self, run: Run) -> None:
        """Write a training run, or bring the row of its path up to date."""
        row = dataclasses.asdict(run)
        for name in _JSON:
            row[name] = json.dumps(_without_secrets(row[name]), allow_nan=False)
        with self._errors(), self._writing():
            self._db["runs"].upsert(row, pk="path")

    def evaluations(self, suite: str | None = None) -> list[Evaluation]:
        """Return the evaluations with their scores, but without samples, last recorded first.

        Args:
            suite: only this suite's; None for all.
        """
        query = (
            f"SELECT e.*, m.path, {', '.join(f'm.{name}' for name in _MODEL)} "
            "FROM evaluations e JOIN models m ON m.id = e.model_id "
            "WHERE :suite IS NULL OR e.suite = :suite ORDER BY e.id DESC"
        )
        found = []
        with self._errors(), self._reading():
            for row in self._records(query, {"suite": suite}):
                del row["model_id"]
                row["dirty"] = bool(row["dirty"])
                row["settings"] = json.loads(row["settings"])
                row["scores"] = tuple(self._rows("scores", Score, row["id"]))
                found.append(Evaluation(**row))
        return found

    def samples(self, evaluation_id: int) -> list[Sample]:
        """Return an evaluation's answers in the order in which they were recorded.

        Raises:
            UserError: there is no such evaluation.
        """
        with self._errors(), self._reading():
            wanted = {"id": evaluation_id}
            if not self._records("SELECT id FROM evaluations WHERE id = :id", wanted):
                raise UserError(f"has no evaluation {evaluation_id}; give another number")
            return self._rows("samples", Sample, evaluation_id)

    def runs(self) -> list[Run]:
        """Return the training runs, oldest first."""
        with self._errors():
            rows = self._records("SELECT * FROM runs ORDER BY created, path")
        return [Run(**row | {name: json.loads(row[name]) for name in _JSON}) for row in rows]

    def rows(self, query: str, parameters: Mapping[str, Any] | None = None) -> list[Any]:
        """Return a query's rows as tuples; see `rilbench.ledger.queries` for what is asked."""
        with self._errors(), self._reading():
            return self._connection.execute(query, parameters or {}).fetchall()

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _model(self, evaluation: Evaluation) -> int:
        """Return the id of the evaluated model's row, made when it is new."""
        labels = {name: getattr(evaluation, name) for name in _MODEL}
        where = " AND ".join(f"{name} IS :{name}" for name in _MODEL)
        for row in self._records(f"SELECT id FROM models WHERE {where}", labels):
            number = int(row["id"])
            self._db["models"].update(number, {"path": evaluation.path})
            return number
        return int(self._db["models"].insert({**labels, "path": evaluation.path}).last_pk)

    def _rows(self, table: str, kind: type[_Record], evaluation_id: int) -> list[_Record]:
        query = f"SELECT * FROM {table} WHERE evaluation_id = :id ORDER BY rowid"
        rows = self._records(query, {"id": evaluation_id})
        return [
            kind(**{name: value for name, value in row.items() if name not in _NOT_FIELDS})
            for row in rows
        ]

    def _records(
        self, query: str, parameters: Mapping[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        cursor = self._connection.execute(query, parameters or {})
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor]

    @property
    def _db(self) -> Any:
        """The same connection for writing rows as they are."""
        # Not above: sqlite-utils imports pandas where it finds it; a reader need not wait for it.
        from sqlite_utils import Database

        return Database(self._connection, execute_plugins=False)

    def _open(self, mode: str) -> None:
        place = "file::memory:" if mode == "memory" else self.path.absolute().as_uri()
        self._connection = sqlite3.connect(f"{place}?mode={mode}", uri=True, timeout=_PATIENCE)
        self._connection.execute("PRAGMA foreign_keys = ON")
        self._connection.execute("PRAGMA synchronous = FULL")

    def _enable_wal(self) -> None:
        """Turn the write-ahead log on; SQLite does not wait by itself when two do so at once."""
        deadline = time.monotonic() + _PATIENCE
        version(self._connection)  # Before the file is touched: is it ours?
        while not self._wal_is_on(must=time.monotonic() > deadline):
            time.sleep(0.05)

    def _wal_is_on(self, must: bool) -> bool:
        """Try to turn the write-ahead log on; False if another connection is in the way."""
        try:
            self._connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if must or "locked" not in str(error):
                raise
            return False
        return True

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Hold a write transaction, taken at once so that it can wait for its turn."""
        self._connection.execute("BEGIN IMMEDIATE")
        with self._ending():
            yield

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """Hold a read transaction: several queries see one state."""
        self._connection.execute("BEGIN")
        with self._ending():
            yield

    @contextlib.contextmanager
    def _ending(self) -> Iterator[None]:
        try:
            yield
            self._connection.commit()
        except BaseException:
            self._connection.rollback()
            raise

    @contextlib.contextmanager
    def _opening(self) -> Iterator[None]:
        """Close what was opened if opening fails half-way."""
        try:
            yield
        except BaseException:
            if hasattr(self, "_connection"):
                self.close()
            raise

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Say in one line, with the path, what SQLite or a check has found wrong."""
        try:
            yield
        except UserError as error:
            raise UserError(f"{self.path} {error}") from error
        except sqlite3.IntegrityError:
            raise  # A mistake of ours, such as one benchmark twice.
        except sqlite3.DatabaseError as error:
            raise UserError(f"{self.path} {_explain(str(error))}") from error
        except OSError as error:
            why = error.strerror or str(error)
            raise UserError(f"{self.path} cannot be used ({why}); give another --db") from error


def _explain(message: str) -> str:
    """Put SQLite's message into words that name the remedy."""
    if "readonly" in message:
        return "is read-only; make it writable or give another --db"
    # Bytes that are no text: the message goes on with them, so it is not repeated.
    if "malformed" in message or "Could not decode" in message:
        why = "database disk image is malformed" if "malformed" in message else "garbled text"
        return (
            f"is damaged ({why}); keep a copy, and save what can be read with: "
            "python -m rilbench.ledger.recovery OLD NEW"
        )
    if "not a database" in message:
        return f"is not an SQLite database ({message}); give another --db"
    if "locked" in message:
        return "is held by another program; wait for it to finish and try again"
    if "unable to open" in message:
        return "cannot be opened; make its folder writable or give another --db"
    if "full" in message:
        return "cannot grow, the disk is full; make room and try again"
    return f"cannot be used ({message}); give another --db"


def _require_writable(path: Path) -> None:
    """Raise a UserError (to follow the path) if the ledger cannot be written there."""
    if not path.parent.is_dir():
        raise UserError("is in a folder that does not exist; make the folder or give another --db")
    if path.is_dir():
        raise UserError("is a folder; give a file")
    if path.exists() and not may_write(path):
        raise UserError("is read-only; make it writable or give another --db")
    if not may_write(path.parent):
        raise UserError("is in a read-only folder; make it writable or give another --db")


def _warn_of_network(path: Path) -> None:
    """Warn where several machines may have the file, since SQLite's locks do not reach so far."""
    kind = file_system(path)
    if kind.startswith(_NETWORK):
        warnings.warn(
            f"{path} is on a network file system ({kind}): use it from one machine at a time, "
            "or give a --db on a local disk",
            UserNotice,
            stacklevel=3,
        )


def file_system(path: Path) -> str:
    """Return the type of the file system that holds a path, such as "ext4"; "" if unknown."""
    import psutil

    there = path.absolute().resolve()
    mounts = {part.mountpoint: part.fstype for part in psutil.disk_partitions(all=True)}
    holding = [each for each in map(str, (there, *there.parents)) if each in mounts]
    return mounts[holding[0]] if holding else ""


def _without_secrets(value: Any) -> Any:
    """Return JSON values without the entries whose names say that they are secret."""
    if isinstance(value, Mapping):
        return {
            name: _without_secrets(each)
            for name, each in value.items()
            if not str(name).lower().endswith(_SECRETS)
        }
    if isinstance(value, (list, tuple)):
        return [_without_secrets(each) for each in value]
    return value
