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
from typing import Any

from rilbench.api_keys import without_query_values
from rilbench.errors import UserError, UserNotice
from rilbench.ledger.place import explain, require_writable, warn_of_network
from rilbench.ledger.records import Evaluation, Run, Sample, Score, outcomes_hash
from rilbench.ledger.rows import record_or_why
from rilbench.ledger.schema import create, is_ready, missing_parts
from rilbench.paths import may_write
from rilbench.scratch import is_locked

_PATIENCE = 60.0
"""Seconds that a writer waits for another."""
_CHECKED_PAGES = 20_000
"""Pages (80 MB) of which all are checked when a ledger is opened for writing, in 0.2 s. A ledger
of a million answers has 111,000, which take 1.1 s; its small tables take 2 ms.
"""
_SMALL_TABLES = ("runs", "models", "evaluations", "tags", "scores", "paper_scores")
_REPAIR = "rilbench ledger recover {path} NEW.db saves what can be read; or restore a backup"
_SECRETS = ("api_key", "key", "token", "password", "secret", "authorization")
"""Endings of names whose values are never recorded; nor are those in an address's query."""
_MODEL = (
    "fingerprint",
    "student",
    "method",
    "teacher",
    "run",
    "start_fingerprint",
    "recipe_fingerprint",
    "family",
    "seed",
)
"""Fields of an evaluation that identify its row in ``models``."""
_EVALUATION = ("id", "path", "suite", "created", '"commit"', "dirty", "settings")
"""Columns of ``evaluations`` beside the model's number."""
# Named one by one: users may add columns of their own to any table.
_SCORE, _SAMPLE, _RUN = (
    ", ".join(field.name for field in dataclasses.fields(kind)) for kind in (Score, Sample, Run)
)


DB_VARIABLE = "RILBENCH_DB"
"""Environment variable: the ledger's file."""


def default_db(option: Path | None = None) -> Path:
    """Return the ledger's path: the option, else ``$RILBENCH_DB``, else ``rilbench.db`` here."""
    return option or Path(os.environ.get(DB_VARIABLE) or "rilbench.db")


class Ledger:
    """One SQLite file, created when it does not exist.

    Write-ahead log, ``synchronous=FULL``, foreign keys. Several processes may write; each waits
    for the others. Use as a context manager, or call :meth:`close`.

    Raises:
        UserError: (from the constructor and every method) the folder does not exist, the file or
            folder is read-only, the file is not an SQLite database, belongs to another program or
            to another version of rilbench, or another writer holds it for a minute.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._errors(), self._closed_on_error():
            require_writable(path)
            warn_of_network(path)
            self._open("rwc")
            if self._is_ready():  # Before the file is touched: is it ours, and whole?
                self._refuse_damage()
            self._enable_wal()
            with self._writing():
                create(self._connection)

    @classmethod
    def open_read(cls, path: Path, *, required: bool = False) -> Ledger:
        """Open for reading. A file that does not exist is an empty ledger, and is not created.

        Args:
            path: the file.
            required: a file that does not exist, or is empty, is an error.

        Raises:
            UserError: as for the constructor, except for what concerns writing.
        """
        ledger = cls.__new__(cls)
        ledger.path = path
        with ledger._errors(), ledger._closed_on_error():
            if path.is_dir():
                raise UserError("is a folder; give a file")
            if path.exists():
                # A write-ahead log needs files in the same folder. If none can be made there and
                # none is left over, nobody writes: the file may be read as it is.
                alone = not may_write(path.parent) and not Path(f"{path}-wal").exists()
                ledger._open("ro&immutable=1" if alone else "ro")
                if ledger._is_ready():
                    return ledger
                ledger.close()
            if required:
                what = "is empty" if path.exists() else "does not exist"
                raise UserError(f"{what}; give a ledger, or restore a backup")
            ledger._open("memory")
            with ledger._writing():
                create(ledger._connection)
        return ledger

    @contextlib.contextmanager
    def one_transaction(self) -> Iterator[None]:
        """Hold the ledger: what is read and recorded in the body is seen and done as one.

        Nothing is recorded if the body raises.
        """
        with self._errors(), self._writing():
            yield

    def record(self, evaluation: Evaluation) -> int:
        """Write an evaluation with its scores and samples, all or nothing; return its id."""
        settings = json.dumps(_without_secrets(evaluation.settings), allow_nan=False)
        outcomes: dict[str, dict[str, float]] = {}
        for sample in evaluation.samples:
            if sample.score is not None:
                outcomes.setdefault(sample.benchmark, {})[sample.question_id] = sample.score
        hashes = {benchmark: outcomes_hash(found) for benchmark, found in outcomes.items()}
        with self._errors(), self._writing():
            row = {
                "model_id": self._model(evaluation),
                "path": evaluation.path,
                "suite": evaluation.suite,
                "created": evaluation.created,
                "commit": evaluation.commit,
                "dirty": int(evaluation.dirty),
                "settings": settings,
            }
            number = int(self._db["evaluations"].insert(row).last_pk)
            key = {"evaluation_id": number}
            self._db["scores"].insert_all(
                {
                    **key,
                    **vars(score),
                    "comparability": score.comparability,
                    "outcomes": hashes.get(score.benchmark, ""),
                }
                for score in evaluation.scores
            )
            self._db["samples"].insert_all({**key, **vars(sample)} for sample in evaluation.samples)
            self._db["tags"].insert_all({**key, "tag": tag} for tag in evaluation.tags)
        return number

    def record_run(self, run: Run) -> None:
        """Write a training run, or update the row of its path."""
        row = dataclasses.asdict(run)
        for name in ("metrics", "curves"):
            row[name] = json.dumps(_without_secrets(row[name]), allow_nan=False)
        row["recipe_yaml"] = without_query_values(run.recipe_yaml)
        with self._errors(), self._writing():
            self._db["runs"].upsert(row, pk="path")

    def evaluations(self, suite: str | None = None, *, strict: bool = False) -> list[Evaluation]:
        """Return the evaluations with their scores, but without samples, last recorded first.

        Damaged ones are left out with a `UserNotice`, which names them.

        Args:
            suite: only this suite's; None for all.
            strict: damaged ones are an error; for those to whom the newest one matters.

        Raises:
            UserError: (if strict) one is damaged.
        """
        found, damaged = self.read_evaluations(suite)
        if damaged:
            why = "; ".join(f"evaluation {number}, {wrong}" for number, wrong in damaged.items())
            remedy = (
                "restore a backup, or remove what is damaged: rilbench ledger forget "
                f"{' '.join(map(str, damaged))} --db {self.path}"
            )
            with self._errors():
                if strict:
                    raise UserError(f"is damaged ({why}); {remedy}")
            self._notice(f"left out what is damaged ({why}); {remedy}")
        return found

    def read_evaluations(self, suite: str | None = None) -> tuple[list[Evaluation], dict[int, str]]:
        """Return `evaluations`, and what is wrong with each damaged one, by its number."""
        # LEFT JOIN: an evaluation whose model is lost is damaged, and not left out silently.
        query = (
            f"SELECT {', '.join(f'e.{name}' for name in _EVALUATION)}, "
            f"{', '.join(f'm.{name}' for name in _MODEL)} FROM evaluations e "
            "LEFT JOIN models m ON m.id = e.model_id "
            "WHERE :suite IS NULL OR e.suite = :suite ORDER BY e.id DESC"
        )
        found, damaged = [], {}
        with self._errors(), self._reading():
            scores, wrong = self._scores()
            tags: dict[int, tuple[str, ...]] = {}
            for row in self._records("SELECT evaluation_id, tag FROM tags ORDER BY tag"):
                number, tag = row["evaluation_id"], row["tag"]
                tags[number] = (*tags.get(number, ()), tag)
                if not isinstance(tag, str):
                    wrong[number] = "a tag: garbled text"
            for row in self._records(query, {"suite": suite}):
                number = row["id"]
                parts = {"scores": tuple(scores.get(number, ())), "tags": tags.get(number, ())}
                read = record_or_why(Evaluation, row, **parts)
                if isinstance(read, str) or number in wrong:
                    damaged[number] = read if isinstance(read, str) else wrong[number]
                else:
                    found.append(read)
        return found, damaged

    def samples(self, evaluation_id: int) -> list[Sample]:
        """Return an evaluation's samples in the order in which they were recorded.

        Raises:
            UserError: there is no such evaluation, or a sample is damaged.
        """
        key = {"id": evaluation_id}
        with self._errors(), self._reading():
            if not self._records("SELECT id FROM evaluations WHERE id = :id", key):
                raise UserError(f"has no evaluation {evaluation_id}; give another number")
            return self.samples_where("evaluation_id = :id", key)

    def samples_where(
        self, condition: str, parameters: Mapping[str, Any] | None = None
    ) -> list[Sample]:
        """Return the samples of a condition in the order in which they were recorded.

        Raises:
            UserError: one is damaged.
        """
        found, damaged = self._read_samples(condition, parameters or {})
        with self._errors():
            if damaged:
                raise UserError(f"is damaged ({damaged[0]}); {self.remedy}")
        return found

    def damaged_samples(self, evaluation_id: int) -> list[str]:
        """Return what is wrong with an evaluation's samples, a line for each damaged one."""
        return self._read_samples("evaluation_id = :id", {"id": evaluation_id})[1]

    def runs(self) -> list[Run]:
        """Return the training runs, oldest first; damaged ones are left out with a `UserNotice`.

        A run that was killed could not say that it stopped: it is "stopped" if its folder is on
        this machine and no process has it locked.
        """
        found, damaged = self.read_runs()
        for path, why in damaged.items():
            self._notice(f"left out run {path}, which is damaged ({why}); {self.remedy}")
        return [
            dataclasses.replace(run, status="stopped")
            if run.status == "running" and _is_abandoned(Path(run.path))
            else run
            for run in found
        ]

    def read_runs(self) -> tuple[list[Run], dict[str, str]]:
        """Return the training runs as recorded, and what is wrong with damaged ones, by path."""
        found, damaged = [], {}
        with self._errors():
            for row in self._records(f"SELECT {_RUN} FROM runs ORDER BY created, path"):
                if isinstance(read := record_or_why(Run, row), str):
                    damaged[str(row["path"])] = read
                else:
                    found.append(read)
        return found, damaged

    def rows(self, query: str, parameters: Mapping[str, Any] | None = None) -> list[Any]:
        """Return a query's rows as tuples; `rilbench.ledger.queries` has the package's queries."""
        with self._errors(), self._reading():
            return self._connection.execute(query, parameters or {}).fetchall()

    def execute(self, statement: str, parameters: Mapping[str, Any] | None = None) -> None:
        """Execute one statement that changes the ledger, within `one_transaction`; or VACUUM."""
        with self._errors():
            self._connection.execute(statement, parameters or {})

    def copy_to(self, target: sqlite3.Connection) -> None:
        """Copy the whole file by SQLite's online backup."""
        with self._errors():
            self._connection.backup(target)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _model(self, evaluation: Evaluation) -> int:
        """Return the id of the evaluated model's row, which is inserted for a new model."""
        labels = {name: getattr(evaluation, name) for name in _MODEL}
        where = " AND ".join(f"{name} IS :{name}" for name in _MODEL)
        for row in self._records(f"SELECT id FROM models WHERE {where}", labels):
            return int(row["id"])
        return int(self._db["models"].insert(labels).last_pk)

    def _read_samples(
        self, condition: str, parameters: Mapping[str, Any]
    ) -> tuple[list[Sample], list[str]]:
        """Return the samples of a condition, and a line for each damaged one."""
        query = f"SELECT {_SAMPLE} FROM samples WHERE {condition} ORDER BY rowid"
        found, damaged = [], []
        with self._errors():
            for row in self._records(query, parameters):
                if isinstance(read := record_or_why(Sample, row), str):
                    damaged.append(f"answer {row['benchmark']}/{row['question_id']}: {read}")
                else:
                    found.append(read)
        return found, damaged

    def _scores(self) -> tuple[dict[int, list[Score]], dict[int, str]]:
        """Return the scores by evaluation, and what is wrong with evaluations' damaged ones."""
        found: dict[int, list[Score]] = {}
        damaged = {}
        query = (
            f"SELECT evaluation_id, comparability, outcomes, {_SCORE} FROM scores ORDER BY rowid"
        )
        for row in self._records(query):
            number = row.pop("evaluation_id")
            hashes = row.pop("comparability"), row.pop("outcomes")
            if isinstance(read := record_or_why(Score, row), str):
                damaged[number] = f"score {row['benchmark']}: {read}"
            elif not all(isinstance(each, str) for each in hashes):
                damaged[number] = f"score {row['benchmark']}: garbled text"
            else:
                found.setdefault(number, []).append(read)
        return found, damaged

    def _records(
        self, query: str, parameters: Mapping[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """Return a query's rows by the names of their columns. Text that is garbled is bytes."""
        try:
            cursor = self._connection.execute(query, parameters or {})
            rows = cursor.fetchall()
        except sqlite3.OperationalError as error:
            if "Could not decode" not in str(error):
                raise
            self._connection.text_factory = _text_or_bytes  # Slow, and needed by few.
            try:
                cursor = self._connection.execute(query, parameters or {})
                rows = cursor.fetchall()
            finally:
                self._connection.text_factory = str
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in rows]

    def _notice(self, message: str) -> None:
        # One place for all: Python shows a notice of a place once.
        warnings.warn(f"{self.path}: {message}", UserNotice, stacklevel=1)

    def _is_ready(self) -> bool:
        """Return `is_ready` of the file; raise a UserError if a table or column is missing.

        Rows that are written to such a file would go into tables without constraints.
        """
        if not is_ready(self._connection):
            return False
        if lacking := missing_parts(self._connection):
            raise UserError(f"is damaged (it lacks {', '.join(lacking)}); {self.remedy}")
        return True

    def _refuse_damage(self) -> None:
        """Raise a UserError if a look that takes no noticeable time finds damage.

        SQLite itself refuses a file that was cut. The pages of all tables are checked in a ledger
        of up to `_CHECKED_PAGES`, beyond that those of all tables but ``samples``.
        """
        pages = int(self._connection.execute("PRAGMA page_count").fetchone()[0])
        tables = [""] if pages <= _CHECKED_PAGES else [f"({name})" for name in _SMALL_TABLES]
        for table in tables:
            for (found,) in self._connection.execute(f"PRAGMA quick_check{table}"):
                if found != "ok":
                    raise sqlite3.DatabaseError(f"malformed: {found}")

    @property
    def remedy(self) -> str:
        """What to do when the file is damaged."""
        return _REPAIR.format(path=self.path)

    @property
    def _db(self) -> Any:
        """The same connection in sqlite-utils, for writing rows."""
        # Not at the top: sqlite-utils imports an installed pandas, which a reader need not await.
        from sqlite_utils import Database

        return Database(self._connection, execute_plugins=False)

    def _open(self, mode: str) -> None:
        place = "file::memory:" if mode == "memory" else self.path.absolute().as_uri()
        self._connection = sqlite3.connect(f"{place}?mode={mode}", uri=True, timeout=_PATIENCE)
        self._connection.execute("PRAGMA foreign_keys = ON")
        self._connection.execute("PRAGMA synchronous = FULL")

    def _enable_wal(self) -> None:
        """Turn the write-ahead log on; SQLite itself does not wait when two do so at once."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if time.monotonic() > deadline or "locked" not in str(error):
                    raise
            time.sleep(0.05)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Hold a write transaction, begun at once so that it can wait for other writers."""
        with self._transaction("BEGIN IMMEDIATE"):
            yield

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """Hold a read transaction: several queries see one state."""
        with self._transaction("BEGIN"):
            yield

    @contextlib.contextmanager
    def _transaction(self, begin: str) -> Iterator[None]:
        if self._connection.in_transaction:  # within `one_transaction`
            yield
            return
        self._connection.execute(begin)
        try:
            yield
            self._connection.commit()
        except BaseException:
            self._connection.rollback()
            raise

    @contextlib.contextmanager
    def _closed_on_error(self) -> Iterator[None]:
        """Close the connection if opening fails half-way."""
        try:
            yield
        except BaseException:
            if hasattr(self, "_connection"):
                self.close()
            raise

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn errors into a UserError of one line that begins with the path."""
        try:
            yield
        except UserError as error:
            if str(error).startswith(f"{self.path} "):  # within `one_transaction`
                raise
            raise UserError(f"{self.path} {error}") from error
        except sqlite3.IntegrityError:
            raise  # A bug of ours, such as one benchmark twice.
        except sqlite3.DatabaseError as error:
            message = explain(str(error), self.remedy)
            raise UserError(f"{self.path} {message}") from error
        except OSError as error:
            why = error.strerror or str(error)
            raise UserError(f"{self.path} cannot be used ({why}); give another --db") from error


def _text_or_bytes(content: bytes) -> str | bytes:
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content


def _is_abandoned(folder: Path) -> bool:
    """Return whether a run's folder is on this machine and no process has it locked."""
    return folder.is_absolute() and folder.is_dir() and not is_locked(folder / ".lock")


def _without_secrets(value: Any) -> Any:
    """Return JSON values without what may be secret, by names, and in addresses' queries."""
    if isinstance(value, Mapping):
        return {
            name: _without_secrets(entry)
            for name, entry in value.items()
            if not str(name).lower().endswith(_SECRETS)
        }
    if isinstance(value, (list, tuple)):
        return [_without_secrets(entry) for entry in value]
    return without_query_values(value) if isinstance(value, str) else value
