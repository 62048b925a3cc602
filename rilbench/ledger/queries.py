"""What the table and the comparison ask of the ledger, answered from its indexes."""

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
    """Count the outcomes of each evaluation and benchmark, those without a verdict left out.

    Raises:
        UserError: see `Ledger`.
    """
    found: dict[tuple[int, str], Tally] = {}
    # Strings of digits only: numbers of ours, and more than SQLite takes as parameters.
    wanted = ", ".join(str(int(number)) for number in evaluations)
    query = (
        "SELECT evaluation_id, benchmark, stratum, score, count(*) FROM samples "
        f"WHERE evaluation_id IN ({wanted}) AND score IS NOT NULL GROUP BY 1, 2, 3, 4"
    )
    for evaluation, benchmark, stratum, score, count in ledger.rows(query):
        found.setdefault((evaluation, benchmark), {}).setdefault(stratum, {})[score] = count
    return found


def pairs(ledger: Ledger, first: int, second: int) -> list[Pair]:
    """Return the questions that both evaluations asked, by benchmark and name.

    Raises:
        UserError: see `Ledger`.
    """
    return [Pair(*row[:5]) for row in _joined(ledger, first, second) if row[6] is not None]


def compared(
    ledger: Ledger, first: int, second: int
) -> tuple[list[Pair], tuple[list[Sample], list[Sample]]]:
    """Return the questions that both evaluations asked, and what differs between the two.

    Returns:
        The pairs; and each side's samples whose outcome differs, or that the other side has not.
        Of the answers that agree nothing but the outcome is read.

    Raises:
        UserError: see `Ledger`.
    """
    rows = _joined(ledger, first, second)
    both = [Pair(*row[:5]) for row in rows if row[6] is not None]
    apart = [row[5:] for row in rows if row[3] != row[4] or row[6] is None]
    alone = (
        "SELECT b.rowid FROM samples b WHERE b.evaluation_id = :second AND NOT EXISTS ("
        "SELECT 1 FROM samples a WHERE a.evaluation_id = :first "
        "AND a.benchmark = b.benchmark AND a.question_id = b.question_id)"
    )
    others = [number for (number,) in ledger.rows(alone, {"first": first, "second": second})]
    left = [number for number, _ in apart]
    right = [number for _, number in apart if number is not None] + others
    return both, (_numbered(ledger, left), _numbered(ledger, right))


def _joined(ledger: Ledger, first: int, second: int) -> list[Any]:
    """Both outcomes of the first's questions with both rows' numbers, None where one is missing."""
    query = (
        "SELECT a.benchmark, a.question_id, a.stratum, a.score, b.score, a.rowid, b.rowid "
        "FROM samples a LEFT JOIN samples b ON b.evaluation_id = :second "
        "AND b.benchmark = a.benchmark AND b.question_id = a.question_id "
        "WHERE a.evaluation_id = :first ORDER BY a.benchmark, a.question_id"
    )
    return ledger.rows(query, {"first": first, "second": second})


def _numbered(ledger: Ledger, numbers: list[int]) -> list[Sample]:
    """The samples with these row numbers, as they were recorded."""
    fields = tuple(Sample.__dataclass_fields__)
    wanted = ", ".join(map(str, numbers))
    query = f"SELECT {', '.join(fields)} FROM samples WHERE rowid IN ({wanted}) ORDER BY rowid"
    return [Sample(**dict(zip(fields, row, strict=True))) for row in ledger.rows(query)]


def paper_scores(ledger: Ledger, file: str) -> list[PaperScore]:
    """Return the numbers of one of the paper's files, in its order."""
    names = ", ".join(PaperScore.__dataclass_fields__)
    query = f"SELECT {names} FROM paper_scores WHERE file = :file ORDER BY line, rowid"
    return [PaperScore(*row) for row in ledger.rows(query, {"file": file})]
