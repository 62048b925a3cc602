"""Measured rows: which evaluation, in which order, and the difference from which start."""

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pytest

from rilbench.benchmark_names import PAPER_14
from rilbench.ledger import Evaluation, Score
from rilbench.table import formatting
from rilbench.table import measured_rows as measured
from rilbench.table.footnotes import notes
from rilbench.table.measured_rows import Settings, SuiteColumns
from rilbench.table.paper_rows import PaperCells
from rilbench.table.types import TableRow

NANO = ["MMStar", "MMB", "ChartQA", "MM-Vet"]


def columns(suite: str) -> Sequence[str]:
    return NANO if suite == "nano" else PAPER_14


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


def measured_rows(
    evaluations: Iterable[Evaluation], suite_columns: SuiteColumns, **more: Any
) -> list[TableRow]:
    return measured.measured_rows(evaluations, Settings(suite_columns, **more))


def names(rows: Sequence[TableRow]) -> list[tuple[str, str, str]]:
    return [(row.student, row.method, row.teacher) for row in rows]


def test_scores_average_and_difference() -> None:
    base, ril = measured_rows([RIL, BASE], columns)
    assert (base.source, base.suite, base.difference) == ("measured", "nano", None)
    assert list(base.scores) == list(PAPER_14)
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
    full = evaluation("p", "base", dict.fromkeys(PAPER_14, 50.0), suite="paper")
    part = evaluation("q", "base", dict.fromkeys(PAPER_14[1:], 50.0), 1, suite="paper")
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
def test_scores_of_different_provenance_are_not_compared(change: dict[str, str]) -> None:
    first, *others = RIL.scores
    changed = dataclasses.replace(first, **change)  # type: ignore[arg-type]
    _, row = measured_rows([BASE, dataclasses.replace(RIL, scores=(changed, *others))], columns)
    assert row.unlike == ("MMStar",)
    assert row.difference is not None
    assert row.difference["MMStar"] is None
    assert row.difference["average"] is None
    assert row.difference["MMB"] == -5.0
    # A kit's other version is another way of making the row; another metric is its benchmark's.
    assert row.average == (None if "kit_version" in change else 65.0)


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


def seed(number: int, value: float, **more: Any) -> Evaluation:
    scores = {**AFTER, "MMStar": value}
    labels = {"teacher": "both", "start_fingerprint": "b", "family": "f", "seed": number}
    return evaluation(f"s{number}", "RIL", scores, number, **{**labels, **more})


def test_seeds_of_a_recipe_are_one_row_with_their_mean_and_spread() -> None:
    two = measured_rows([BASE, seed(1, 60.0), seed(2, 62.0)], columns)[1]
    assert (two.seeds, two.scores["MMStar"], two.average) == (2, 61.0, 65.25)
    assert two.cells["MMStar"].runs is None
    three = measured_rows([BASE, seed(1, 60.0), seed(2, 62.0), seed(3, 64.0)], columns)[1]
    assert three.seeds == 3
    runs = three.cells["MMStar"].runs
    assert runs is not None
    # Student's t for two degrees of freedom: 4.303 * 2 * sqrt(1 + 1 / 3).
    assert (runs.mean, runs.high - runs.mean) == (62.0, pytest.approx(9.936, abs=1e-3))
    assert {each.fingerprint for each in three.evaluations} == {"s1", "s2", "s3"}
    assert three.difference is not None
    assert three.difference["MMStar"] == 22.0


def test_each_seed_may_have_its_row_and_another_recipe_has_its_own() -> None:
    seeds = [seed(n, 60.0) for n in (1, 2)]
    assert len(measured_rows(seeds, columns, each_seed=True)) == 2
    assert len(measured_rows([*seeds, seed(3, 1.0, family="g")], columns)) == 2


def test_of_two_runs_with_one_seed_the_newer_counts() -> None:
    again = dataclasses.replace(seed(1, 10.0), fingerprint="again", created=seed(9, 0.0).created)
    (row,) = measured_rows([seed(1, 60.0), again], columns)
    assert (row.seeds, row.scores["MMStar"]) == (1, 10.0)


def test_a_seed_that_lacks_a_score_leaves_the_mean_out() -> None:
    (row,) = measured_rows([seed(1, 60.0), seed(2, None)], columns)  # type: ignore[arg-type]
    assert row.scores["MMStar"] is None
    assert row.average is None


def test_columns_evaluated_on_another_day_fill_the_row() -> None:
    first = evaluation("r", "RIL", {"MMStar": 1.0, "MMB": 2.0}, 1)
    later = evaluation("r", "RIL", {"MMB": 5.0, "ChartQA": 3.0, "MM-Vet": 4.0}, 2)
    (row,) = measured_rows([first, later], columns)
    assert [row.scores[name] for name in NANO] == [1.0, 5.0, 3.0, 4.0]
    assert row.average == 3.25
    assert [row.cells[name].origins[0].evaluation for name in NANO] == [first, later, later, later]
    assert row.mixed == ()


def test_a_quick_look_hides_no_whole_score() -> None:
    (score, *_) = RIL.scores
    quick = dataclasses.replace(score, value=0.0, sampled=5)
    later = dataclasses.replace(RIL, scores=(quick,), created="2026-02-01T00:00:00+00:00")
    (row,) = measured_rows([RIL, later], columns)
    assert row.scores["MMStar"] == 60.0


def test_no_average_is_formed_of_scores_of_different_provenance() -> None:
    first, *others = RIL.scores
    changed = dataclasses.replace(first, kit_version="9")
    odd = dataclasses.replace(RIL, scores=(changed, *others))
    (row,) = measured_rows([odd], columns)
    assert (row.average, row.mixed) == (None, ("MMStar",))
    assert row.cells["MMStar"].odd == ("kit version",)
    (forced,) = measured_rows([odd], columns, force=True)
    assert (forced.average, forced.mixed) == (65.0, ())


def test_a_cell_that_differs_from_its_column_is_marked() -> None:
    third = dataclasses.replace(BASE, fingerprint="c", method="GRPO")
    first, *others = RIL.scores
    changed = dataclasses.replace(first, data_sha256="e", judge="j")
    odd = dataclasses.replace(RIL, scores=(changed, *others))
    rows = measured_rows([BASE, third, odd], columns)
    assert [row.cells["MMStar"].odd for row in rows] == [(), (), ("judge", "data")]
    # Another kit's rows are not of the same column.
    kit = tuple(dataclasses.replace(s, kit="lmms-eval") for s in RIL.scores)
    rows = measured_rows([BASE, dataclasses.replace(RIL, scores=kit)], columns)
    assert all(cell.odd == () for row in rows for cell in row.cells.values())


def paper_cells(value: float) -> PaperCells:
    scores = dict.fromkeys(PAPER_14, value)
    return PaperCells([TableRow("paper", "A-1", "RIL", "both", "paper", scores, value)])


@pytest.mark.parametrize(
    ("values", "paper", "reproduced"),
    [
        ((60.0, 62.0), 61.0, None),
        ((60.0, 62.0, 64.0), 70.0, True),
        ((60.0, 62.0, 64.0), 73.0, False),
    ],
)
def test_reproduced_is_what_another_seed_might_give(
    values: Sequence[float], paper: float, reproduced: bool | None
) -> None:
    labels = {"student": "a-1-Instruct", "suite": "paper"}
    several = [of_data("published", seed(n, v, **labels)) for n, v in enumerate(values)]
    (row,) = measured_rows(several, columns, paper=paper_cells(paper))
    cell = row.cells["MMStar"]
    assert cell.difference == pytest.approx(sum(values) / len(values) - paper)
    assert cell.reproduced is reproduced


def test_a_benchmark_may_have_a_name_like_a_categorys() -> None:
    (row,) = measured_rows([evaluation("m", "base", {"Mine: hard": 40.0})], columns)
    assert row.scores["Mine: hard"] == 40.0


def of_data(state: str, e: Evaluation, sampled: int | None = None) -> Evaluation:
    scores = [dataclasses.replace(s, data_state=state, sampled=sampled) for s in e.scores]
    return dataclasses.replace(e, scores=tuple(scores))


def test_nothing_is_reproduced_on_unknown_data_and_a_sample_is_not_compared() -> None:
    several = [
        seed(n, value, student="a-1-Instruct", suite="paper")
        for n, value in enumerate((60.0, 62.0, 64.0))
    ]
    paper = paper_cells(62.0)
    (row,) = measured_rows([of_data("unverified", e) for e in several], columns, paper=paper)
    cell = row.cells["MMStar"]
    assert (cell.difference, cell.reproduced) == (0.0, None)
    few = [of_data("published", e, sampled=50) for e in several]
    (row,) = measured_rows(few, columns, paper=paper)
    cell = row.cells["MMStar"]
    assert (cell.value, cell.paper, cell.difference, cell.reproduced) == (62.0, None, None, None)


def test_seeds_that_were_made_differently_are_not_averaged() -> None:
    *others, last = [seed(n, 60.0) for n in range(3)]
    first, *scores = last.scores
    changed = dataclasses.replace(first, data_sha256="another", metric="Other", value=100.0)
    odd = dataclasses.replace(last, scores=(changed, *scores))
    (row,) = measured_rows([*others, odd], columns)
    cell = row.cells[first.benchmark]
    assert (cell.value, row.average, row.mixed) == (None, None, (first.benchmark,))
    assert set(cell.odd) == {"metric", "data"}
    assert all(row.scores[score.benchmark] == score.value for score in scores)
    (forced,) = measured_rows([*others, odd], columns, force=True)
    assert forced.scores[first.benchmark] == pytest.approx(220 / 3)


def test_synthetic_stand_ins_are_not_compared_with_the_paper() -> None:
    (row,) = measured_rows([seed(1, 60.0, student="a-1")], columns, paper=paper_cells(60.0))
    assert row.cells["MMStar"].paper is None


def test_intervals_over_questions_come_from_the_counts_of_outcomes() -> None:
    numbered = dataclasses.replace(BASE, id=1)
    tallies = {(1, name): {"": {1.0: 40, 0.0: 60}} for name in NANO}
    (row,) = measured_rows([numbered], columns, tallies=tallies)
    interval = row.cells["MMStar"].questions
    assert interval is not None
    # 1.96 * sqrt(0.4 * 0.6 / 100) = 9.6 points; of the mean of four half of that.
    assert (interval.high - interval.low) / 2 == pytest.approx(9.6, abs=0.5)
    mean = row.cells["average"].questions
    assert mean is not None
    assert (mean.high - mean.low) / 2 == pytest.approx(4.8, abs=0.3)
    (without,) = measured_rows([numbered], columns, tallies={(1, "MMStar"): tallies[1, "MMB"]})
    assert without.cells["average"].questions is None


def test_the_average_may_be_over_other_columns() -> None:
    (row,) = measured_rows([RIL], columns, over=("MMStar", "MMB"))
    assert row.average == 52.5


def test_a_score_on_too_few_questions_is_marked_and_counts_in_no_mean() -> None:
    def with_missing(e: Evaluation, missing: int) -> Evaluation:
        first = dataclasses.replace(e.scores[0], missing=missing, questions=100)
        return dataclasses.replace(e, scores=(first, *e.scores[1:]))

    for missing, counts in ((5, True), (6, False)):
        base, ril = measured_rows([BASE, with_missing(RIL, missing)], columns)
        assert ril.cells["MMStar"].incomplete is not counts
        assert ril.scores["MMStar"] == 60.0, "it is shown"
        assert (ril.average is not None) is counts
        assert ril.difference is not None
        assert (ril.difference["MMStar"] is not None) is counts
        assert base.average == 40.0
        lines = dict(formatting.lines(ril, NANO))
        assert lines[""][0] == ("60.0" if counts else "60.0‡")
        assert any(note.startswith("‡: less than 95%") for note in notes([ril])) is not counts
    (_, forced) = measured_rows([BASE, with_missing(RIL, 50)], columns, force=True)
    assert forced.average == 65.0


def test_what_could_not_be_read_is_said_below_the_table() -> None:
    reading = {"unread": 4, "second": 70.0, "second_unread": 1, "second_name": "plain forms 1"}
    no_answer = {"no_answer": {"empty": 2, "cut": 1}, "reasoning": 3}
    settings = {"reading": {"MMStar": reading, "MMB": no_answer}}
    (row,) = measured_rows([dataclasses.replace(BASE, settings=settings)], columns)
    said = "\n".join(notes([row]))
    assert (
        "could not read, counted as wrong (eval --judge MODEL@URL has a judge read them): " in said
    )
    assert "read them): MMStar 4 of 10." in said
    assert "a second reading of those: MMStar 70.0 (plain forms 1, 1 unread)." in said
    assert "without an answer: MMB empty 2, cut 1 of 10." in said
    assert "reasoning dropped before scoring: MMB 3 of 10." in said
