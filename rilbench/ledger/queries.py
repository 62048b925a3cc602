"""What the table and the comparison ask of the ledger, answered from its indexes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

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
    """Return the questions that both evaluations asked, in the first one's order of names.

    Raises:
        UserError: see `Ledger`.
    """
    query = (
        "SELECT a.benchmark, a.question_id, a.stratum, a.score, b.score "
        "FROM samples a JOIN samples b ON b.evaluation_id = :second "
        "AND b.benchmark = a.benchmark AND b.question_id = a.question_id "
        "WHERE a.evaluation_id = :first ORDER BY a.benchmark, a.question_id"
    )
    return [Pair(*row) for row in ledger.rows(query, {"first": first, "second": second})]


def changed(ledger: Ledger, first: int, second: int) -> tuple[list[Sample], list[Sample]]:
    """Return both evaluations' samples whose outcome differs, or that only one of them has.

    Raises:
        UserError: see `Ledger`.
    """
    names = ", ".join(f"a.{field}" for field in Sample.__dataclass_fields__)
    query = (
        f"SELECT {names} FROM samples a LEFT JOIN samples b ON b.evaluation_id = :other "
        "AND b.benchmark = a.benchmark AND b.question_id = a.question_id "
        "WHERE a.evaluation_id = :own "
        "AND (b.evaluation_id IS NULL OR a.score IS NOT b.score) ORDER BY a.rowid"
    )
    sides = ({"own": first, "other": second}, {"own": second, "other": first})
    fields = tuple(Sample.__dataclass_fields__)
    one, two = (
        [Sample(**dict(zip(fields, row, strict=True))) for row in ledger.rows(query, side)]
        for side in sides
    )
    return one, two


def paper_scores(ledger: Ledger, file: str) -> list[PaperScore]:
    """Return the numbers of one of the paper's files, in its order."""
    names = ", ".join(PaperScore.__dataclass_fields__)
    query = f"SELECT {names} FROM paper_scores WHERE file = :file ORDER BY line, rowid"
    return [PaperScore(*row) for row in ledger.rows(query, {"file": file})]
