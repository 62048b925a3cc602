"""Counts of outcomes, pairs and the paper's numbers, as the table asks for them."""

import csv
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from rilbench.benchmark_names import PAPER_14
from rilbench.ledger import Evaluation, Ledger, Sample, Score, utc_now
from rilbench.ledger.paper import ABLATIONS, LARGE, MAIN, OPEN
from rilbench.ledger.queries import Pair, compared, pairs, paper_scores, tallies
from rilbench.resources import resource


def score(benchmark: str = "BLINK", value: float = 50.0, **provenance: str) -> Score:
    known = {"kit": "vlmevalkit", "kit_version": "1", "dataset": benchmark, "metric": "Overall"}
    counts = {"questions": 2, "answered": 2, "missing": 0}
    return Score(benchmark=benchmark, value=value, data_sha256="0", **known | provenance, **counts)


def evaluation(outcomes: dict[str, float | None], strata: dict[str, str]) -> Evaluation:
    samples = tuple(
        Sample(
            benchmark="BLINK",
            question_id=name,
            prompt_hash="h",
            response="r",
            score=value,
            stratum=strata.get(name, ""),
        )
        for name, value in outcomes.items()
    )
    labels = {"student": "s", "method": "base", "teacher": "none", "suite": "paper"}
    return Evaluation(
        path="p",
        fingerprint="f",
        created=utc_now(),
        scores=(score(),),
        samples=samples,
        **labels,
    )


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "l.db") as opened:
        opened.record(evaluation({"1": 1.0, "2": 0.0, "3": 1.0, "4": None}, {"3": "a"}))
        opened.record(evaluation({"2": 1.0, "3": 1.0, "9": 0.5}, {"3": "a"}))
        yield opened


def test_outcomes_are_counted_by_stratum_without_those_that_have_no_verdict(
    ledger: Ledger,
) -> None:
    assert tallies(ledger, [1, 2]) == {
        (1, "BLINK"): {"": {0.0: 1, 1.0: 1}, "a": {1.0: 1}},
        (2, "BLINK"): {"": {0.5: 1, 1.0: 1}, "a": {1.0: 1}},
    }
    assert tallies(ledger, []) == {}


def test_counting_reads_the_index_alone(ledger: Ledger) -> None:
    plan = ledger.rows(
        "EXPLAIN QUERY PLAN SELECT evaluation_id, benchmark, stratum, score, count(*) "
        "FROM samples WHERE evaluation_id IN (1, 2) AND score IS NOT NULL GROUP BY 1, 2, 3, 4"
    )
    assert "COVERING INDEX samples_by_outcome" in plan[0][-1]


def test_pairs_are_the_questions_that_both_asked(ledger: Ledger) -> None:
    both, (first, second) = compared(ledger, 1, 2)
    assert pairs(ledger, 1, 2) == both
    assert both == [Pair("BLINK", "2", "", 0.0, 1.0), Pair("BLINK", "3", "a", 1.0, 1.0)]
    assert [sample.question_id for sample in first] == ["1", "2", "4"]
    assert [sample.question_id for sample in second] == ["2", "9"]
    assert second[1] == ledger.samples(2)[2]


@pytest.mark.parametrize("file", [MAIN, OPEN, LARGE])
def test_the_ledger_has_the_papers_tables_cell_by_cell(ledger: Ledger, file: str) -> None:
    with resource(f"results/paper/{file}.csv").open(encoding="utf-8", newline="") as stream:
        lines = list(csv.DictReader(stream))
    found = paper_scores(ledger, file)
    assert len(found) == len(lines) * len(PAPER_14)
    for row in found:
        line = lines[row.line]
        text = line[row.benchmark]
        assert row.value == (float(text) if text else None)
        assert row.model == line.get("model", line.get("student"))
        assert (row.method, row.teacher) == (line.get("method"), line.get("teacher"))


def test_the_ledger_has_the_papers_ablations(ledger: Ledger) -> None:
    with resource(f"results/paper/{ABLATIONS}.csv").open(encoding="utf-8", newline="") as stream:
        lines = list(csv.DictReader(stream))
    found = [
        (row.ablation, row.model, row.setting, row.benchmark, row.value)
        for row in paper_scores(ledger, ABLATIONS)
    ]
    names = ("ablation", "student", "setting", "benchmark")
    assert found == [(*(line[n] for n in names), float(line["score"])) for line in lines]


def test_scores_of_one_provenance_have_one_key_in_the_file(ledger: Ledger, tmp_path: Path) -> None:
    assert score(value=1.0).comparability == score(value=2.0).comparability
    assert score().comparability != score(kit_version="2").comparability
    with sqlite3.connect(tmp_path / "l.db") as other:
        keys = other.execute("SELECT DISTINCT comparability FROM results").fetchall()
    assert keys == [(score().comparability,)]


def test_verdicts_are_those_of_a_judge(ledger: Ledger, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "l.db") as other:
        other.execute("UPDATE samples SET judge = 'j' WHERE question_id = '9'")
        found = other.execute("SELECT question_id, judge, verdict FROM verdicts").fetchall()
    assert found == [("9", "j", 0.5)]
