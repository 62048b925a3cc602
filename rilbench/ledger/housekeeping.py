"""Care for a ledger: back up, verify, forget, merge, tag."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rilbench.errors import UserError
from rilbench.ledger.database import Ledger
from rilbench.ledger.identity import identified, identity
from rilbench.ledger.queries import outcome_hashes, outcomes, tallies
from rilbench.ledger.records import Evaluation, Score, outcomes_hash

_CLOSE = 0.006
"""Points by which a score may differ from its samples' mean: some toolkits round to two digits."""
_SAMPLED = """
    SELECT evaluation_id, benchmark, count(*), sum(score IS NULL), sum(finish_reason = 'length')
    FROM samples WHERE evaluation_id IN ({}) GROUP BY 1, 2
"""
_KEYS = """
    SELECT evaluation_id, benchmark, comparability FROM scores WHERE evaluation_id IN ({})
"""
_LONE = """
    SELECT evaluation_id, benchmark, count(*) FROM samples a
    WHERE evaluation_id IN ({}) AND NOT EXISTS (
        SELECT 1 FROM scores s
        WHERE s.evaluation_id = a.evaluation_id AND s.benchmark = a.benchmark
    ) GROUP BY 1, 2
"""


def back_up(ledger: Ledger, target: Path, *, overwrite: bool = False) -> int:
    """Copy the ledger by SQLite's online backup; return the number of evaluations in the copy.

    Writers need not stop. The copy is one state of the ledger, and appears whole or not at all.
    That every record can be read is checked in the copy.

    Raises:
        UserError: the target is a folder, exists and is not to be overwritten, is the ledger
            itself or cannot be written; or the ledger is damaged.
    """
    if target.is_dir():
        raise UserError(f"{target} is a folder; give a file")
    if target.exists() and (not overwrite or target.samefile(ledger.path)):
        remedy = "give another file" if target.samefile(ledger.path) else "use --overwrite"
        raise UserError(f"{target} exists; {remedy}")
    part = target.with_name(f".{target.name}.part")
    try:
        part.unlink(missing_ok=True)
        with contextlib.closing(sqlite3.connect(part)) as copy:
            ledger.copy_to(copy)
            # One file, which a read-only disk can hold too.
            copy.execute("PRAGMA journal_mode = DELETE")
            found = copy.execute("PRAGMA quick_check(1)").fetchone()[0]
            if found != "ok":
                raise UserError(f"{ledger.path} is damaged; {ledger.remedy}")
            count = int(copy.execute("SELECT count(*) FROM evaluations").fetchone()[0])
        with Ledger.open_read(part) as whole:
            damaged = [line for lines in unreadable(whole).values() for line in lines]
        if damaged:
            more = f", and {len(damaged) - 1} more" if len(damaged) > 1 else ""
            raise UserError(
                f"{ledger.path} is damaged ({damaged[0]}{more}) and not copied; "
                f"rilbench ledger verify --db {ledger.path} lists it, with the remedy"
            )
        part.replace(target)
    except (OSError, sqlite3.OperationalError) as error:
        raise UserError(f"{target} cannot be written ({error}); give another file") from error
    finally:
        part.unlink(missing_ok=True)
    return count


def unreadable(ledger: Ledger) -> dict[int | str, list[str]]:
    """Return the damaged records, which SQLite's own checks do not see.

    Returns:
        What is wrong, a line each, by the evaluation's number or the run's path.

    Raises:
        UserError: the file cannot be read at all; see `Ledger`.
    """
    whole, damaged = ledger.read_evaluations()
    wrong: dict[int | str, list[str]] = {
        path: [f"run {path}: {why}"] for path, why in ledger.read_runs()[1].items()
    }
    for number in sorted([*damaged, *(e.id or 0 for e in whole)]):
        lines = [damaged[number]] if number in damaged else []
        if lines := [*lines, *ledger.damaged_samples(number)]:
            wrong[number] = [f"evaluation {number}, {line}" for line in lines]
    return wrong


@dataclass(frozen=True)
class Verified:
    """What `verify` found.

    Attributes:
        wrong: one line each.
        damaged: numbers of evaluations that cannot be read.
        agree: scores that their samples confirm.
        unknown: scores without all their samples, which nothing can confirm.
    """

    wrong: tuple[str, ...]
    damaged: tuple[int, ...]
    agree: int
    unknown: int


def verify(ledger: Ledger) -> Verified:
    """Check the file, its references, each record, and each score with its samples.

    Raises:
        UserError: the file cannot be read at all; see `Ledger`.
    """
    broken = [f"file: {line}" for (line,) in ledger.rows("PRAGMA integrity_check") if line != "ok"]
    if broken:  # What a broken file's tables say is not to be relied on.
        return Verified(tuple(broken), (), 0, 0)
    wrong = [
        f"{table}, row {row}: names a row of {parent} that does not exist"
        for table, row, parent, _ in ledger.rows("PRAGMA foreign_key_check")
    ]
    damaged = unreadable(ledger)
    wrong += [line for lines in damaged.values() for line in lines]
    evaluations = [e for e in ledger.read_evaluations()[0] if e.id not in damaged]
    numbers = ", ".join(str(e.id) for e in evaluations)
    wrong += [
        f"evaluation {number}, {benchmark}: {count} answers without a score"
        for number, benchmark, count in ledger.rows(_LONE.format(numbers))
    ]
    keys = ledger.rows(_KEYS.format(numbers))
    recorded_keys = {(number, benchmark): key for number, benchmark, key in keys}
    found_counts = ledger.rows(_SAMPLED.format(numbers))
    sampled = {(number, name): counts for number, name, *counts in found_counts}
    means = _means(ledger, evaluations)
    agree = unknown = 0
    for e in reversed(evaluations):
        recorded = outcome_hashes(ledger, e.id or 0)
        scored = outcomes(ledger, e.id or 0, recorded)
        for score in e.scores:
            key = (e.id or 0, score.benchmark)
            counts = sampled.get(key, (0, 0, 0))
            mean = score.value if e.reading(score.benchmark).is_total else means.get(key)
            found = list(_disagreements(score, counts, mean))
            if score.comparability != recorded_keys[key]:
                found.append("its key does not follow from its provenance")
            now = scored[score.benchmark]
            if (outcomes_hash(now) if now else "") != recorded[score.benchmark]:
                found.append("its answers' scores are not those that were recorded")
            if counts[0] == score.questions:
                agree += not found
            elif "imported" in e.settings and counts[0] < score.questions:
                unknown += not found  # A toolkit's total, or a part of its data sets.
            else:
                found.append(f"{counts[0]} of its {score.questions} answers are in the ledger")
            wrong += [f"evaluation {e.id}, {score.benchmark}: {what}" for what in found]
    numbered = tuple(key for key in damaged if isinstance(key, int))
    return Verified(tuple(wrong), numbered, agree, unknown)


def _means(ledger: Ledger, evaluations: Sequence[Evaluation]) -> dict[tuple[int, str], float]:
    """Return the mean of the strata's means, in points, by evaluation and benchmark."""
    means = {}
    for key, tally in tallies(ledger, [e.id or 0 for e in evaluations]).items():
        strata = [
            math.fsum(value * count for value, count in counts.items()) / sum(counts.values())
            for counts in tally.values()
        ]
        means[key] = 100 * math.fsum(strata) / len(strata)
    return means


def _disagreements(score: Score, counts: Sequence[int], mean: float | None) -> Iterator[str]:
    """Yield what a score with all its samples says otherwise than they do."""
    number, missing, truncated = counts
    if number != score.questions:
        return
    if missing != score.missing:
        yield f"counts {score.missing} without a verdict, its answers {missing}"
    if (truncated or 0) != score.truncated:
        yield f"counts {score.truncated} cut at the length limit, its answers {truncated or 0}"
    if score.value is not None and mean is None:
        yield f"is {score.value:.2f}, but no answer has a verdict"
    elif score.value is not None and mean is not None and abs(score.value - mean) > _CLOSE:
        yield f"is {score.value:.2f}, but its answers give {mean:.2f}"


def chosen(ledger: Ledger, numbers: Sequence[int]) -> dict[int, Evaluation | str]:
    """Return the evaluations of these numbers; of a damaged one, what is wrong with it.

    Raises:
        UserError: there is no such evaluation, or see `Ledger`.
    """
    whole, damaged = ledger.read_evaluations()
    known: dict[int, Evaluation | str] = {**{e.id or 0: e for e in whole}, **damaged}
    if lacking := [str(number) for number in numbers if number not in known]:
        raise UserError(
            f"{ledger.path} has no evaluation {', '.join(lacking)}; rilbench show lists them"
        )
    return {number: known[number] for number in numbers}


def forget(ledger: Ledger, numbers: Iterable[int]) -> dict[str, int]:
    """Remove evaluations with their scores, answers and tags, and models that have none left.

    Their numbers are never given to others. The file shrinks. Damaged ones can be removed, too.

    Returns:
        How many rows were removed, by table.

    Raises:
        UserError: see `Ledger`.
    """
    listed = ", ".join(str(int(number)) for number in numbers)
    tables = ("models", "evaluations", "scores", "samples")

    def count() -> list[int]:
        return [int(ledger.rows(f"SELECT count(*) FROM {name}")[0][0]) for name in tables]

    with ledger.one_transaction():
        before = count()
        ledger.execute(f"DELETE FROM evaluations WHERE id IN ({listed})")
        ledger.execute("DELETE FROM models WHERE id NOT IN (SELECT model_id FROM evaluations)")
        removed = {n: a - b for n, a, b in zip(tables, before, count(), strict=True)}
    ledger.execute("VACUUM")
    return removed


@dataclass(frozen=True)
class Merged:
    """How much of another ledger was copied."""

    evaluations: int
    known: int
    answers: int
    runs: int


def merge(ledger: Ledger, other: Ledger) -> Merged:
    """Copy the evaluations and training runs of another ledger that this one lacks, or none.

    Which evaluations are the same says `rilbench.ledger.identity`. A run whose folder is in both
    ledgers stays as it is here.

    Raises:
        UserError: see `Ledger`.
    """
    theirs = other.evaluations()[::-1]
    new = answers = runs = 0
    with ledger.one_transaction():
        recorded = ledger.evaluations()
        known = {identity(e) for e in recorded}
        for found in theirs:
            if identity(found) in known:
                continue
            evaluation = found
            if "files" in found.settings.get("imported", {}):
                same_suite = [e for e in recorded if e.suite == found.suite]
                evaluation, _ = identified(found, same_suite, by_place=False)
            samples = tuple(other.samples(found.id or 0))
            ledger.record(dataclasses.replace(evaluation, samples=samples))
            known.add(identity(found))
            recorded.append(evaluation)
            new, answers = new + 1, answers + len(samples)
        here = {run.path for run in ledger.runs()}
        for run in other.runs():
            if run.path not in here:
                ledger.record_run(run)
                runs += 1
    return Merged(new, len(theirs) - new, answers, runs)


def tag(ledger: Ledger, numbers: Iterable[int], name: str, *, remove: bool) -> None:
    """Give evaluations a name, or take it from them.

    Raises:
        UserError: the name could be a number or has control characters; or see `Ledger`.
    """
    if not name.strip() or not name.isprintable() or name.isdecimal():
        raise UserError(f"{name!r} is no tag; give a plain name that is not a number")
    statement = (
        "DELETE FROM tags WHERE evaluation_id = :number AND tag = :name"
        if remove
        else "INSERT OR IGNORE INTO tags (evaluation_id, tag) VALUES (:number, :name)"
    )
    with ledger.one_transaction():
        for number in numbers:
            ledger.execute(statement, {"number": number, "name": name})
