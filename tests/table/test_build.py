"""Which rows the table has, and what it refuses."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from rilbench.benchmark_names import PAPER_14
from rilbench.errors import UserError
from rilbench.ledger import Evaluation, Ledger, Score, utc_now
from rilbench.table.build import Choice, build_table, split_names


def columns(_: str) -> tuple[str, ...]:
    return PAPER_14


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    scores = tuple(
        Score(
            benchmark=name,
            value=80.0,
            kit="vlmevalkit",
            kit_version="1",
            dataset=name,
            metric="m",
            questions=1,
            answered=1,
            missing=0,
            data_sha256="d",
        )
        for name in PAPER_14
    )
    with Ledger(tmp_path / "l.db") as opened:
        opened.record(
            Evaluation(
                **{"path": "p", "fingerprint": "f", "method": "ril", "teacher": "both"},
                student="Qwen2.5-VL-7B-Instruct",
                suite="paper",
                created=utc_now(),
                scores=scores,
            )
        )
        yield opened


def test_the_paper_first_then_what_was_measured(ledger: Ledger) -> None:
    rows = build_table(ledger, Choice(), columns).rows
    assert [row.source for row in rows] == ["paper"] * 30 + ["measured"]
    assert rows[-1].cells["AI2D"].paper == next(
        row.scores["AI2D"] for row in rows if (row.method, row.teacher) == ("RIL", "both")
    )


def test_the_papers_tables_alone(ledger: Ledger) -> None:
    assert len(build_table(ledger, Choice(paper=True), columns).rows) == 30
    every = build_table(ledger, Choice(paper=True, every=True), columns).rows
    assert {row.origin for row in every} >= {"Table 1", "Table 2", "Table 3", "Table 4"}
    ablations = build_table(ledger, Choice(ablations=True), columns).rows
    assert {row.origin[:7] for row in ablations} == {"Table 5"}


def test_only_what_was_asked_for(ledger: Ledger) -> None:
    choice = Choice(students=("qwen2.5-vl-7b",), methods=("RIL",), teachers=("both", "78b"))
    rows = build_table(ledger, choice, columns).rows
    assert [(row.source, row.teacher) for row in rows] == [
        ("paper", "78b"),
        ("paper", "both"),
        ("measured", "both"),
    ]


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        (Choice(students=("gpt",)), "no row has the student 'gpt'; choose from: .*InternVL3-1B"),
        (Choice(methods=("ppo",)), "the method 'ppo'; choose from: .*GRPO"),
        (Choice(teachers=("7b",)), "the teacher '7b'; choose from: .*both"),
    ],
)
def test_a_label_that_no_row_has_is_refused(ledger: Ledger, choice: Choice, words: str) -> None:
    with pytest.raises(UserError, match=words):
        build_table(ledger, choice, columns)


def test_another_mean_is_over_the_columns_named(ledger: Ledger) -> None:
    table = build_table(ledger, Choice(over=split_names("mmb, AI2D")), columns)
    assert table.over == ("AI2D", "MMB")
    first = table.rows[0]
    assert first.average == pytest.approx((first.scores["AI2D"] + first.scores["MMB"]) / 2)  # type: ignore[operator]
    assert table.rows[-1].average == pytest.approx(80.0)
    assert split_names(" , ") == ()
    with pytest.raises(UserError, match=r"no benchmark 'MMX'; choose from: AI2D, .*RWQA"):
        build_table(ledger, Choice(over=("MMX",)), columns)
