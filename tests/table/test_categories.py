"""Scores by category: the means over their questions, for each model and over seeds."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from measured import score

from rilbench.errors import UserError
from rilbench.evaluate.suite import suite_columns
from rilbench.ledger import Evaluation, Ledger, Sample
from rilbench.table.build import Choice, build_table
from rilbench.table.render import render

KINDS = ("math", "logic", "art")


def evaluation(number: int, categories: bool = True, **more: object) -> Evaluation:
    """Two benchmarks of 30 questions; MMStar is a mean of strata's means."""
    rng = np.random.default_rng(number)
    samples = [
        Sample(
            **{"benchmark": name, "question_id": str(n), "prompt_hash": "h", "response": "r"},
            score=float(rng.integers(2)),
            category=KINDS[n % 3] if categories and name != "RWQA" else None,
            stratum=f"s{n % 2}" if name == "MMStar" else "",
        )
        for name in ("MMStar", "MMB", "RWQA")
        for n in range(30)
    ]
    found = Evaluation(
        **{"path": f"/m{number}", "fingerprint": f"m{number}", "student": "nano", "method": "base"},
        **{"teacher": "none", "suite": "nano", "created": "2026-01-02T03:00:00+00:00"},
        scores=tuple(
            score(name, 50.0, questions=30, answered=30) for name in ("MMStar", "MMB", "RWQA")
        ),
        samples=tuple(samples),
    )
    return dataclasses.replace(found, **more)  # type: ignore[arg-type]


def by_category(path: Path, **more: object) -> list[dict[str, object]]:
    choice = Choice(categories=True, **more)  # type: ignore[arg-type]
    with Ledger.open_read(path) as ledger:
        table = build_table(ledger, choice, suite_columns)
    for name in ("rich", "markdown", "latex", "csv", "html"):
        assert "math" in render(table, name)
    return json.loads(render(table, "json"))  # type: ignore[no-any-return]


def test_each_category_is_the_mean_over_its_questions(tmp_path: Path) -> None:
    own = evaluation(1)
    with Ledger(tmp_path / "l.db") as ledger:
        ledger.record(own)
    (row,) = by_category(tmp_path / "l.db")
    scores = row["scores"]
    assert isinstance(scores, dict)
    for kind in KINDS:
        mmb = [s.score for s in own.samples if s.benchmark == "MMB" and s.category == kind]
        assert scores[f"MMB: {kind}"] == pytest.approx(100 * np.mean(mmb))
        strata = [
            [s.score for s in own.samples if (s.benchmark, s.category, s.stratum) == of]
            for of in (("MMStar", kind, "s0"), ("MMStar", kind, "s1"))
        ]
        means = [np.mean(values) for values in strata]
        assert scores[f"MMStar: {kind}"] == pytest.approx(100 * np.mean(means))
    assert not any(name.startswith("RWQA: ") for name in scores)


def test_the_columns_are_the_chosen_benchmarks_with_their_categories(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l.db") as ledger:
        for seed in (1, 2, 3):
            trained = {"method": "ril", "teacher": "both", "family": "f" * 16, "seed": seed}
            ledger.record(evaluation(seed, **trained))
        table = build_table(ledger, Choice(categories=True, benchmarks=("mmb",)), suite_columns)
    assert table.columns == ("MMB", "MMB: art", "MMB: logic", "MMB: math")
    (row,) = table.rows
    assert row.seeds == 3
    cell = row.cell("MMB: art")
    values = [origin.score.value for origin in cell.origins]
    assert cell.value == pytest.approx(np.mean(values))
    assert cell.questions is not None
    assert not any("MMB: art" in note for note in table.notes)


def test_a_ledger_without_categories_says_so(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l.db") as ledger:
        ledger.record(evaluation(1, categories=False))
        with pytest.raises(UserError, match="no sample with a category"):
            build_table(ledger, Choice(categories=True), suite_columns)


def test_a_category_is_of_the_evaluation_that_its_benchmark_is_of(tmp_path: Path) -> None:
    older, newer = evaluation(1), evaluation(2, fingerprint="m1", path="/m1")
    later = dataclasses.replace(newer, created="2026-01-03T03:00:00+00:00")
    # Of one category the newer has too few verdicts to stand for it.
    samples = tuple(
        dataclasses.replace(s, score=None) if (s.benchmark, s.category) == ("MMB", "art") else s
        for s in later.samples
    )
    scores = tuple(
        dataclasses.replace(s, missing=1) if s.benchmark == "MMB" else s for s in later.scores
    )
    with Ledger(tmp_path / "l.db") as ledger:
        ledger.record(older)
        ledger.record(dataclasses.replace(later, samples=samples, scores=scores))
    (row,) = by_category(tmp_path / "l.db")
    cells = row["cells"]
    assert isinstance(cells, dict)
    assert {tuple(cells[name]["evaluations"]) for name in cells if name.startswith("MMB")} == {(2,)}


def test_the_views_have_the_category(tmp_path: Path) -> None:
    trained = {"method": "ril", "start_fingerprint": "m1", "fingerprint": "m2"}
    with Ledger(tmp_path / "l.db") as ledger:
        ledger.record(evaluation(1))
        ledger.record(evaluation(2, **trained))
        for view in ("answers", "changes"):
            query = f"SELECT DISTINCT category FROM {view} WHERE benchmark = 'MMB' ORDER BY 1"
            assert [name for (name,) in ledger.rows(query)] == sorted(KINDS)
