"""The queries behind the table and the comparison, answered from the ledger's indexes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from rilbench.ledger.database import Ledger
from rilbench.ledger.records import Sample

Tally = dict[str, dict[float, int]]
"""By stratum: how many questions had each outcome."""


@dataclass(frozen=True)
class Pair:
    """One question that two evaluations asked; scores from 0 to 1, None without a verdict."""

    benchmark: str
    question_id: str
    stratum: str
    first: float | None
    second: float | None


@dataclass(frozen=True)
class PaperScore:
    """One number of the paper; ``value`` is None where the paper has none."""

    file: str
    line: int
    source: str
    model: str
    method: str | None
    teacher: str | None
    ablation: str | None
    setting: str | None
    benchmark: str
    value: float | None


def tallies(ledger: Ledger, evaluations: Iterable[int]) -> dict[tuple[int, str], Tally]:
    """Count the outcomes of each evaluation and benchmark; those without a verdict do not count.

    Raises:
        UserError: see `Ledger`.
    """
    counts: dict[tuple[int, str], Tally] = {}
    # Put into the text, since there may be more numbers than SQLite takes as parameters.
    numbers = ", ".join(str(int(number)) for number in evaluations)
    query = (
        "SELECT evaluation_id, benchmark, stratum, score, count(*) FROM samples "
        f"WHERE evaluation_id IN ({numbers}) AND score IS NOT NULL GROUP BY 1, 2, 3, 4"
    )
    for evaluation, benchmark, stratum, score, count in ledger.rows(query):
        counts.setdefault((evaluation, benchmark), {}).setdefault(stratum, {})[score] = count
    return counts


def category_tallies(
    ledger: Ledger, evaluations: Iterable[int]
) -> dict[tuple[int, str, str], tuple[Tally, int]]:
    """Count the outcomes by evaluation, benchmark and category, and those without a verdict.

    Raises:
        UserError: see `Ledger`.
    """
    counts: dict[tuple[int, str, str], tuple[Tally, int]] = {}
    numbers = ", ".join(str(int(number)) for number in evaluations)
    query = (
        "SELECT evaluation_id, benchmark, category, stratum, score, count(*) FROM samples "
        f"WHERE evaluation_id IN ({numbers}) AND category IS NOT NULL GROUP BY 1, 2, 3, 4, 5"
    )
    for evaluation, benchmark, category, stratum, score, count in ledger.rows(query):
        key = (evaluation, benchmark, category)
        tally, missing = counts.get(key, ({}, 0))
        if score is None:
            missing += count
        else:
            tally.setdefault(stratum, {})[score] = count
        counts[key] = tally, missing
    return counts


def outcome_hashes(ledger: Ledger, evaluation: int) -> dict[str, str]:
    """Return the `outcomes_hash` of each benchmark of an evaluation, as it was recorded.

    Raises:
        UserError: see `Ledger`.
    """
    query = "SELECT benchmark, outcomes FROM scores WHERE evaluation_id = :evaluation"
    return dict(ledger.rows(query, {"evaluation": evaluation}))


def outcomes(
    ledger: Ledger, evaluation: int, benchmarks: Iterable[str]
) -> dict[str, dict[str, float]]:
    """Return scores of an evaluation by benchmark and question id; without those that have none.

    Raises:
        UserError: see `Ledger`.
    """
    query = (
        "SELECT question_id, score FROM samples WHERE evaluation_id = :evaluation "
        "AND benchmark = :benchmark AND score IS NOT NULL ORDER BY rowid"
    )
    return {
        name: dict(ledger.rows(query, {"evaluation": evaluation, "benchmark": name}))
        for name in benchmarks
    }


def pairs(ledger: Ledger, first: int, second: int) -> list[Pair]:
    """Return the questions that both evaluations asked, by benchmark and id.

    Raises:
        UserError: see `Ledger`.
    """
    return [Pair(*row[:5]) for row in _joined(ledger, first, second) if row[6] is not None]


def compared(
    ledger: Ledger, first: int, second: int
) -> tuple[list[Pair], tuple[list[Sample], list[Sample]]]:
    """Return the questions that both evaluations asked, and the samples that differ.

    Returns:
        The pairs; and each side's samples whose outcome differs or that the other side lacks.
        Samples that agree are not read: their outcomes are in an index, their texts are not.

    Raises:
        UserError: see `Ledger`.
    """
    joined = _joined(ledger, first, second)
    only_second = ledger.rows(
        "SELECT b.rowid FROM samples b WHERE b.evaluation_id = :second AND NOT EXISTS ("
        "SELECT 1 FROM samples a WHERE a.evaluation_id = :first "
        "AND a.benchmark = b.benchmark AND a.question_id = b.question_id)",
        {"first": first, "second": second},
    )
    differing = [row[5:] for row in joined if row[3] != row[4] or row[6] is None]
    left = [rowid for rowid, _ in differing]
    right = [rowid for _, rowid in differing if rowid is not None]
    right += [rowid for (rowid,) in only_second]
    both = [Pair(*row[:5]) for row in joined if row[6] is not None]
    return both, (_samples(ledger, left), _samples(ledger, right))


def _joined(ledger: Ledger, first: int, second: int) -> list[Any]:
    """Return the fields of `Pair` with both row ids; the second's are None where it is missing."""
    return ledger.rows(
        "SELECT a.benchmark, a.question_id, a.stratum, a.score, b.score, a.rowid, b.rowid "
        "FROM samples a LEFT JOIN samples b ON b.evaluation_id = :second "
        "AND b.benchmark = a.benchmark AND b.question_id = a.question_id "
        "WHERE a.evaluation_id = :first ORDER BY a.benchmark, a.question_id",
        {"first": first, "second": second},
    )


def _samples(ledger: Ledger, rowids: list[int]) -> list[Sample]:
    """Return the samples with these row ids, in the order in which they were recorded."""
    return ledger.samples_where(f"rowid IN ({', '.join(map(str, rowids))})")


def find_sample(ledger: Ledger, evaluation: int, benchmark: str, question_id: str) -> Sample | None:
    """Return an evaluation's sample of one question; None if it was not asked.

    Raises:
        UserError: see `Ledger`.
    """
    query = (
        "SELECT rowid FROM samples WHERE evaluation_id = :evaluation "
        "AND benchmark = :benchmark AND question_id = :question"
    )
    values = {"evaluation": evaluation, "benchmark": benchmark, "question": question_id}
    found = _samples(ledger, [rowid for (rowid,) in ledger.rows(query, values)])
    return found[0] if found else None


def question_ids(ledger: Ledger, evaluation: int) -> dict[str, list[str]]:
    """Return the questions of an evaluation, by benchmark.

    Raises:
        UserError: see `Ledger`.
    """
    query = "SELECT benchmark, question_id FROM samples WHERE evaluation_id = :evaluation"
    found: dict[str, list[str]] = {}
    for benchmark, question in ledger.rows(query, {"evaluation": evaluation}):
        found.setdefault(benchmark, []).append(question)
    return found


def paper_scores(ledger: Ledger, file: str) -> list[PaperScore]:
    """Return the numbers of one of the paper's files, in its order.

    Raises:
        UserError: see `Ledger`.
    """
    names = ", ".join(PaperScore.__dataclass_fields__)
    query = f"SELECT {names} FROM paper_scores WHERE file = :file ORDER BY line, rowid"
    return [PaperScore(*row) for row in ledger.rows(query, {"file": file})]
