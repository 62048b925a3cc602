"""A benchmark beyond the paper's 14: shown wherever it was measured, never in the paper's mean."""

import csv
import dataclasses
import io
import json
from collections.abc import Iterable, Iterator

import pytest
from rich.console import Console

from rilbench.benchmark_names import PAPER_14
from rilbench.errors import UserError
from rilbench.ledger import Evaluation, Ledger, Sample, Score, utc_now
from rilbench.table import render_comparison
from rilbench.table.build import Choice, build_table
from rilbench.table.comparison import read_comparison
from rilbench.table.inspect_ledger import everything, find, in_full, overview
from rilbench.table.intervals import ResampledScores
from rilbench.table.render import FORMATS, render
from rilbench.table.types import Origin, Table, in_order

OTHERS = ("MathVerse", "OCRBench")
QUESTIONS = 120


def evaluation(method: str, right: int, other: int, benchmarks: Iterable[str]) -> Evaluation:
    """Of each benchmark so many questions are right; of the paper's, another number."""
    benchmarks = tuple(benchmarks)
    correct = {name: right if name in PAPER_14 else other for name in benchmarks}
    scores = tuple(
        Score(
            benchmark=name,
            value=100 * correct[name] / QUESTIONS,
            kit="ms-vlmeval",
            kit_version="1",
            dataset=name,
            metric="m",
            judge="judge-7b" if name == "OCRBench" else None,
            questions=QUESTIONS,
            answered=QUESTIONS,
            missing=0,
            data_sha256="d",
        )
        for name in benchmarks
    )
    samples = tuple(
        Sample(
            benchmark=name,
            question_id=str(n),
            prompt_hash="h",
            response=str(n < correct[name]),
            score=float(n < correct[name]),
        )
        for name in benchmarks
        for n in range(QUESTIONS)
    )
    return Evaluation(
        path="/m",
        fingerprint=method,
        student="s",
        method=method,
        teacher="none",
        suite="paper",
        created=utc_now(),
        start_fingerprint=None if method == "base" else "base",
        scores=scores,
        samples=samples,
    )


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    """A base model with all 16 benchmarks, and a trained one that lacks one of the others."""
    with Ledger(tmp_path_factory.mktemp("ledger") / "l.db") as opened:
        opened.record(evaluation("base", 60, 120, [*reversed(OTHERS), *PAPER_14]))
        opened.record(evaluation("ril", 90, 0, [*PAPER_14, "OCRBench"]))
        yield opened


def columns(suite: str) -> tuple[str, ...]:
    return (*PAPER_14, *OTHERS)


def built(ledger: Ledger, choice: Choice | None = None) -> Table:
    return build_table(ledger, choice or Choice(), columns)


def test_the_papers_come_first_then_the_others_by_name(ledger: Ledger) -> None:
    assert built(ledger).columns == (*PAPER_14, *OTHERS)
    assert built(ledger, Choice(paper=True)).columns == PAPER_14
    assert built(ledger, Choice(methods=("ril",))).columns == (*PAPER_14, "OCRBench")
    assert in_order(["b", "RWQA", "A", "AI2D", "b"]) == ("AI2D", "RWQA", "A", "b")


def test_the_mean_is_over_the_papers_14_and_says_so(ledger: Ledger) -> None:
    table = built(ledger)
    base, ril = table.rows[-2:]
    assert (base.average, ril.average) == (50.0, 75.0)
    assert (base.over, ril.over) == (PAPER_14, PAPER_14)
    assert ril.difference is not None
    assert (ril.difference["average"], ril.difference["OCRBench"]) == (25.0, -100.0)
    assert table.mean == "mean of 14"
    note = "The mean is over the paper's benchmarks only, without MathVerse, OCRBench."
    assert note in table.notes
    assert "OCRBench: judged by judge-7b." in table.notes
    assert built(ledger, Choice(paper=True)).mean == "mean"


def test_any_benchmark_may_be_chosen_for_the_columns_and_for_the_mean(ledger: Ledger) -> None:
    table = built(ledger, Choice(benchmarks=("ocrbench", "AI2D"), over=("OCRBENCH", "mmb")))
    assert (table.columns, table.over) == (("AI2D", "OCRBench"), ("MMB", "OCRBench"))
    assert [row.average for row in table.rows[-2:]] == [75.0, 37.5]
    assert table.rows[0].average is None, "the paper has no number for it"
    chosen = built(ledger, Choice(benchmarks=("AI2D",)))
    assert (chosen.mean, chosen.rows[-1].average) == ("mean of 14", 75.0)
    with pytest.raises(UserError, match=r"no benchmark 'x'; choose from: AI2D, .*, OCRBench"):
        built(ledger, Choice(benchmarks=("x",)))


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_has_the_columns(ledger: Ledger, name: str) -> None:
    text = render(built(ledger), name)
    for word in (*OTHERS, "100.0" if name not in ("csv", "json") else "100"):
        assert word in text
    if name not in ("csv", "json", "rich"):
        assert "mean of 14" in text
    if name == "rich":
        numbers = next(line for line in text.splitlines() if line.startswith("  ril")).split()
        assert numbers[2:] == [*["75.0"] * 14, "-", "0.0", "75.0"]
    short = render(built(ledger, Choice(benchmarks=("OCRBench",))), name)
    assert "OCRBench" in short
    if name == "json":
        assert all(list(row["scores"]) == ["OCRBench"] for row in json.loads(short))
    else:
        assert "MathVista" not in short


def test_the_numbers_in_csv_and_json(ledger: Ledger) -> None:
    base, ril = list(csv.DictReader(render(built(ledger), "csv").splitlines()))[-2:]
    assert (base["MathVerse"], base["OCRBench"], base["mean of 14"]) == ("100", "100", "50")
    assert (ril["MathVerse"], ril["OCRBench"], ril["mean of 14"]) == ("", "0", "75")
    paper, *_, row = json.loads(render(built(ledger), "json"))
    assert list(row["scores"]) == [*PAPER_14, *OTHERS]
    assert (row["scores"]["OCRBench"], row["scores"]["MathVerse"]) == (0.0, None)
    assert (row["average"], row["average_over"]) == (75.0, list(PAPER_14))
    assert paper["scores"]["OCRBench"] is None


def test_a_comparison_has_the_benchmark_and_leaves_it_out_of_the_mean(ledger: Ledger) -> None:
    found = read_comparison(ledger, "1", "2")
    *papers, other, mean = found.benchmarks
    assert [b.benchmark for b in papers] == list(PAPER_14)
    assert (other.benchmark, other.first, other.second) == ("OCRBench", 100.0, 0.0)
    assert other.verdict == "worse"
    assert (mean.first, mean.second, mean.over) == (50.0, 75.0, PAPER_14)
    shown = text(render_comparison.show(found, questions=False))
    assert "OCRBench" in shown
    assert "mean: over the paper's comparable benchmarks only, AI2D, " in shown


def test_a_comparison_of_chosen_benchmarks(ledger: Ledger) -> None:
    found = read_comparison(ledger, "1", "2", ["ocrbench", "MMB"])
    assert [b.benchmark for b in found.benchmarks] == ["MMB", "OCRBench"]
    assert {question.benchmark for question in found.questions} == {"MMB", "OCRBench"}
    with pytest.raises(UserError, match="no benchmark 'x'"):
        read_comparison(ledger, "1", "2", ["x"])


def test_the_lists_and_an_evaluation_in_full(ledger: Ledger) -> None:
    listed = text(overview(everything(ledger), ledger.path))
    assert "mean: over the paper's benchmarks that were scored" in listed
    base = next(line for line in listed.splitlines() if " base " in line).split()
    assert base[6:8] == ["16", "50.0"]
    lines = text(in_full(find(ledger, "1"))).splitlines()
    shown = [
        line.split()[0] for line in lines if line.split()[:1] and line.split()[0] in columns("")
    ]
    assert shown == [*PAPER_14, *OTHERS]


def test_other_benchmarks_are_resampled_independently_of_each_other(ledger: Ledger) -> None:
    """In one stream, equal tallies would be resampled alike and their mean would look unsure."""
    score = dataclasses.replace(ledger.evaluations()[0].scores[0], benchmark="x")
    base = dataclasses.replace(ledger.evaluations()[0], id=1)
    tally = {"": {1.0: 60, 0.0: 60}}
    resampled = ResampledScores({(1, name): tally for name in OTHERS})
    first, second = (
        resampled.of(Origin(dataclasses.replace(score, benchmark=name), base)) for name in OTHERS
    )
    assert first is not None
    assert second is not None
    assert (first != second).mean() > 0.5


def text(parts: object) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    for part in parts:  # type: ignore[attr-defined]
        console.print(part)
    return console.export_text()
