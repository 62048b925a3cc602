"""Measured rows: which evaluation, in which order, and the difference from which start."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from rilbench.table.compare import measured_rows, table_rows

from rilbench.columns import COLUMNS
from rilbench.ledger import Evaluation, Score
from rilbench.table.rows import TableRow

NANO = ["MMStar", "MMB", "ChartQA", "MM-Vet"]


def columns(suite: str) -> Sequence[str]:
    return NANO if suite == "nano" else COLUMNS


def evaluation(
    fingerprint: str, method: str, values: Mapping[str, float | None], second: int = 0, **more: Any
) -> Evaluation:
    scores = [
        Score(
            benchmark=name,
            value=value,
            kit="vlmevalkit",
            kit_version="0.0.20",
            dataset=name,
            metric="Overall",
            questions=10,
            answered=10,
            missing=0,
            data_sha256="d",
        )
        for name, value in values.items()
    ]
    labels = {"student": "nano", "teacher": "none", "suite": "nano", "path": "/m", **more}
    created = f"2026-01-02T03:04:{second:02}+00:00"
    return Evaluation(
        fingerprint=fingerprint, method=method, created=created, scores=tuple(scores), **labels
    )


BEFORE = {"MMStar": 40.0, "MMB": 50.0, "ChartQA": 60.0, "MM-Vet": 10.0}
AFTER = {"MMStar": 60.0, "MMB": 45.0, "ChartQA": 60.0, "MM-Vet": 95.0}
BASE = evaluation("b", "base", BEFORE)
RIL = evaluation("r", "RIL", AFTER, 1, teacher="both", start_fingerprint="b")


def names(rows: Sequence[TableRow]) -> list[tuple[str, str, str]]:
    return [(row.student, row.method, row.teacher) for row in rows]


def test_scores_average_and_difference() -> None:
    base, ril = measured_rows([RIL, BASE], columns)
    assert (base.source, base.suite, base.difference) == ("measured", "nano", None)
    assert list(base.scores) == list(COLUMNS)
    assert {name: value for name, value in base.scores.items() if value is not None} == BEFORE
    assert (base.average, ril.average) == (40.0, 65.0)
    assert ril.difference is not None
    assert {name: value for name, value in ril.difference.items() if value is not None} == {
        "MMStar": 20.0,
        "MMB": -5.0,
        "ChartQA": 0.0,
        "MM-Vet": 85.0,
        "average": 25.0,
    }
    assert ril.unlike == ()


def test_a_missing_score_leaves_no_average_and_no_difference() -> None:
    holed = evaluation("r", "RIL", {**AFTER, "MMB": None}, start_fingerprint="b")
    _, row = measured_rows([BASE, holed], columns)
    assert row.average is None
    assert row.difference is not None
    assert row.difference["MMB"] is None
    assert row.difference["average"] is None
    assert row.difference["MMStar"] == 20.0


def test_the_paper_suite_needs_all_14() -> None:
    full = evaluation("p", "base", dict.fromkeys(COLUMNS, 50.0), suite="paper")
    part = evaluation("q", "base", dict.fromkeys(COLUMNS[1:], 50.0), 1, suite="paper")
    assert [row.average for row in measured_rows([full, part], columns)] == [50.0, None]


def test_the_newest_evaluation_counts_on_both_sides() -> None:
    newer_base = evaluation("b", "base", {**BEFORE, "MMStar": 55.0}, 5)
    older_ril = evaluation("r", "RIL", {**AFTER, "MMStar": 0.0}, 0, teacher="both")
    for order in itertools.permutations([BASE, newer_base, RIL, older_ril]):
        rows = measured_rows(order, columns)
        assert [row.scores["MMStar"] for row in rows] == [55.0, 60.0]
        assert rows[1].difference is not None
        assert rows[1].difference["MMStar"] == 5.0


def test_a_start_in_another_suite_or_unknown_is_no_start() -> None:
    other = dataclasses.replace(BASE, suite="paper")
    for row in measured_rows([other, RIL], columns):
        assert row.difference is None


@pytest.mark.parametrize(
    "change", [{"judge": "another"}, {"data_sha256": "e"}, {"kit_version": "9"}, {"metric": "acc"}]
)
def test_scores_made_in_different_ways_are_not_compared(change: dict[str, str]) -> None:
    first, *others = RIL.scores
    changed = dataclasses.replace(first, **change)  # type: ignore[arg-type]
    _, row = measured_rows([BASE, dataclasses.replace(RIL, scores=(changed, *others))], columns)
    assert row.unlike == ("MMStar",)
    assert row.difference is not None
    assert row.difference["MMStar"] is None
    assert row.difference["average"] is None
    assert row.difference["MMB"] == -5.0
    assert row.average == 65.0


def test_the_order_is_stable() -> None:
    listed = [
        evaluation("1", "base", BEFORE, 9, student="a"),
        evaluation("2", "Dr.GRPO", BEFORE, 8, student="a"),
        evaluation("3", "RIL", BEFORE, 7, student="a", teacher="72b"),
        evaluation("4", "RIL", BEFORE, 3, student="a", teacher="both"),
        evaluation("5", "RIL", BEFORE, 6, student="a", teacher="both"),
        evaluation("6", "base", BEFORE, 0, student="b"),
    ]
    for order in itertools.permutations(listed):
        rows = measured_rows(order, columns)
        assert [row.evaluation for row in rows] == listed


def test_paper_rows_stand_first() -> None:
    rows = table_rows([RIL, BASE], columns)
    assert [row.source for row in rows] == ["paper"] * 30 + ["measured"] * 2
    assert len(table_rows([], columns)) == 30
