"""Two evaluations on the same questions: the same numbers as by hand, and what may be said."""

import dataclasses
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from rich.console import Console
from scipy.stats import binomtest

from rilbench.errors import UserError
from rilbench.ledger import Evaluation, Ledger, Sample, Score, utc_now
from rilbench.ledger.queries import Pair
from rilbench.table.comparison import read_comparison
from rilbench.table.paired_test import paired
from rilbench.table.question_diff import find_evaluation
from rilbench.table.render_comparison import as_json, show

BASE = Evaluation(
    **{
        "path": "p",
        "fingerprint": "base-model",
        "student": "s",
        "method": "base",
        "teacher": "none",
    },
    suite="nano",
    created=utc_now(),
)


def evaluation(outcomes: Mapping[str, list[float | None]], **more: object) -> Evaluation:
    """Questions 0, 1, … of each benchmark."""
    samples = [
        Sample(benchmark=name, question_id=str(n), prompt_hash="h", response=f"r{v}", score=v)
        for name, values in outcomes.items()
        for n, v in enumerate(values)
    ]
    scores = []
    for name, values in outcomes.items():
        known = [v for v in values if v is not None]
        provenance = {"kit": "vlmevalkit", "kit_version": "1", "metric": "m", "data_sha256": "d"}
        counts = {"questions": len(values), "answered": len(values)}
        scores.append(
            Score(
                benchmark=name,
                value=100 * sum(known) / len(known),
                dataset=name,
                missing=len(values) - len(known),
                **provenance,
                **counts,
            )
        )
    changes = {"samples": tuple(samples), "scores": tuple(scores), **more}
    return dataclasses.replace(BASE, **changes)  # type: ignore[arg-type]


SAME = [0.5] * 18  # So that one question without a verdict leaves the score complete.
FIRST = {"MMStar": [1.0] * 60 + [0.0] * 90, "AI2D": [0.5, 0.2, None, 1.0, *SAME]}
SECOND = {
    "MMStar": [1.0] * 50 + [0.0] * 10 + [1.0] * 40 + [0.0] * 50,
    "AI2D": [0.6, 0.2, 1.0, 0.0, *SAME],
}


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "l.db") as opened:
        opened.record(evaluation(FIRST))
        opened.record(evaluation(SECOND, fingerprint="ril", method="ril"))
        yield opened


def test_benchmark_by_benchmark(ledger: Ledger) -> None:
    graded, choices, mean = read_comparison(ledger, "1", "2").benchmarks
    assert (choices.benchmark, choices.questions) == ("MMStar", 150)
    assert (choices.first, choices.second) == pytest.approx((40.0, 60.0))
    assert (choices.gained, choices.lost) == (40, 10)
    assert choices.p == pytest.approx(binomtest(40, 50).pvalue)
    # Differences of +1, -1 and 0: deviation sqrt(50 / 150 - 0.2 ** 2), over sqrt(150).
    half = 1.96 * 100 * (1 / 3 - 0.04) ** 0.5 / 150**0.5
    assert (choices.difference.high - choices.difference.low) / 2 == pytest.approx(half, rel=0.05)
    assert choices.adjusted == pytest.approx(2 * (choices.p or 0))
    assert choices.verdict == "better"
    # The question without a verdict is left out.
    assert (graded.benchmark, graded.questions) == ("AI2D", 21)
    assert (graded.gained, graded.lost, graded.verdict) == (1, 1, "too few")
    assert (mean.benchmark, mean.questions) == ("average", 171)
    assert mean.difference.mean == pytest.approx((20.0 + 100 * (0.1 - 1.0) / 21) / 2)


def test_the_other_way_round_everything_is_turned(ledger: Ledger) -> None:
    there = read_comparison(ledger, "1", "2").benchmarks
    back = read_comparison(ledger, "2", "1").benchmarks
    for one, other in zip(there, back, strict=True):
        assert one.difference.mean == pytest.approx(-other.difference.mean)
        assert (one.gained, one.lost) == (other.lost, other.gained)
        assert one.p == pytest.approx(other.p)
    assert [each.verdict for each in back[1:]] == ["worse", back[2].verdict]


def test_only_questions_that_differ_are_listed_with_both_sides(ledger: Ledger) -> None:
    found = read_comparison(ledger, "1", "2").questions
    assert len(found) == 50 + 3
    assert {each.cause for each in found} == {"other response"}


def test_strata_weigh_alike(ledger: Ledger) -> None:
    pairs = [Pair("BLINK", str(n), "large", 0.0, 0.0) for n in range(90)]
    pairs += [Pair("BLINK", f"s{n}", "small", 0.0, 1.0) for n in range(10)]
    (found,) = paired(pairs, BASE, BASE)
    assert (found.second, found.difference.mean) == (50.0, 50.0)


def test_nothing_in_common_is_said(ledger: Ledger) -> None:
    ledger.record(evaluation({"RWQA": [1.0]}, fingerprint="other"))
    with pytest.raises(UserError, match=r"evaluations 1 .* and 3 .* no question in common"):
        read_comparison(ledger, "1", "3")


def test_what_is_not_comparable_gets_no_verdict(ledger: Ledger) -> None:
    other = evaluation({**SECOND, "BLINK": [1.0] * 120}, fingerprint="x")
    changed = [
        dataclasses.replace(s, judge="j") if s.benchmark == "MMStar" else s for s in other.scores
    ]
    ledger.record(dataclasses.replace(other, scores=tuple(changed)))
    ledger.record(evaluation({**FIRST, "BLINK": [0.0] * 120}))
    found = read_comparison(ledger, "4", "3")
    assert {b.benchmark: b.unlike for b in found.benchmarks if b.unlike} == {"MMStar": ("judge",)}
    verdicts = {b.benchmark: b.verdict for b in found.benchmarks}
    assert verdicts["MMStar"] == "not comparable"
    assert verdicts["BLINK"] == "better"
    mean = found.benchmarks[-1]
    assert mean.over == ("AI2D", "BLINK"), "the mean leaves out what is not comparable"
    # Holm's adjustment is over the two that are tested.
    by_name = {b.benchmark: b for b in found.benchmarks}
    assert by_name["MMStar"].adjusted is None
    assert by_name["BLINK"].adjusted == pytest.approx(2 * (by_name["BLINK"].p or 0))
    shown = text(found)
    assert "not comparable: MMStar differ in judge" in shown
    assert "mean: over the paper's comparable benchmarks only, AI2D, BLINK" in shown
    verdict = {b["benchmark"]: b["verdict"] for b in json.loads(as_json(found))["benchmarks"]}
    assert verdict["MMStar"] == "not comparable"
    assert "not comparable" not in text(read_comparison(ledger, "1", "2"))


def test_without_a_comparable_benchmark_there_is_no_mean(ledger: Ledger) -> None:
    other = evaluation(SECOND, fingerprint="x")
    changed = tuple(dataclasses.replace(s, judge="j") for s in other.scores)
    ledger.record(dataclasses.replace(other, scores=changed))
    found = read_comparison(ledger, "1", "3")
    assert [b.verdict for b in found.benchmarks] == ["not comparable"] * 2


def test_a_models_words_cannot_steer_a_terminal(ledger: Ledger) -> None:
    bad = "\x1b[2J\x1b]0;mine\x07\u202e"
    sample = Sample(
        benchmark="AI2D", question_id=f"9{bad}", prompt_hash="h", response=bad, score=1.0,
        gold=bad, extracted=bad,
    )  # fmt: skip
    other = evaluation(SECOND, fingerprint="x")
    ledger.record(dataclasses.replace(other, samples=(*other.samples, sample)))
    shown = text(read_comparison(ledger, "1", "3"), questions=True)
    assert not set("\x1b\x07\u202e") & set(shown)


def test_a_model_means_its_newest_whole_evaluation(ledger: Ledger) -> None:
    look = evaluation({"MMStar": [1.0]})
    scores = tuple(dataclasses.replace(s, sampled=1) for s in look.scores)
    ledger.record(dataclasses.replace(look, scores=scores, created=utc_now()))
    assert find_evaluation(ledger, "base-model").id == 1
    assert find_evaluation(ledger, "3").id == 3


def text(found: object, questions: bool = False) -> str:
    console = Console(width=160, record=True, file=io.StringIO())
    for part in show(found, questions):  # type: ignore[arg-type]
        console.print(part)
    return console.export_text()


def test_what_is_shown(ledger: Ledger) -> None:
    found = read_comparison(ledger, "1", "2")
    lines = {line.split()[0]: line.split() for line in text(found).splitlines() if line.split()}
    assert lines["MMStar"][1] == "50"  # the causes come last
    assert "MMStar     150   40.0    60.0   +20.0" in text(found)
    assert "r0.0" not in text(found)
    assert "r0.0" in text(found, questions=True)


def test_json_has_all_of_it(ledger: Ledger) -> None:
    found = json.loads(as_json(read_comparison(ledger, "1", "2")))
    assert (found["first"]["id"], found["second"]["method"]) == (1, "ril")
    assert [each["verdict"] for each in found["benchmarks"][:2]] == ["too few", "better"]
    assert found["benchmarks"][1]["difference"]["mean"] == pytest.approx(20.0)
    graded = [each for each in found["questions"] if each["benchmark"] == "AI2D"]
    assert graded[0]["second"]["response"] == "r0.6"


def test_one_against_itself_differs_in_nothing(ledger: Ledger) -> None:
    found = read_comparison(ledger, "1", "1")
    assert {each.p for each in found.benchmarks} == {1.0, None}
    assert {each.difference.high for each in found.benchmarks} == {0.0}
    assert "no question has another outcome" in text(found)


def test_a_benchmark_with_too_few_verdicts_is_not_decided_and_in_no_mean() -> None:
    zeros, ones = [0.0] * 200, [1.0] * 200
    some: list[float | None] = [1.0] * 150 + [None] * 50
    first = evaluation({"AI2D": zeros, "MMB": zeros, "MMStar": zeros})
    second = evaluation({"AI2D": ones, "MMB": ones, "MMStar": some})
    pairs = [
        Pair(a.benchmark, a.question_id, "", a.score, b.score)
        for a, b in zip(first.samples, second.samples, strict=True)
    ]
    *benchmarks, mean = paired(pairs, first, second)
    found = {b.benchmark: b.verdict for b in benchmarks}
    assert found == {"AI2D": "better", "MMB": "better", "MMStar": "incomplete"}
    assert mean.over == ("AI2D", "MMB")


def test_only_gained_or_lost_questions_are_listed(ledger: Ledger) -> None:
    found = read_comparison(ledger, "1", "2")
    assert [len(found.changed(only)) for only in ("", "gained", "lost")] == [53, 41, 11]
    assert all((each.change or 0) > 0 for each in found.changed("gained"))
    lost = json.loads(as_json(found, "lost"))["questions"]
    assert {each["benchmark"] for each in lost} == {"AI2D", "MMStar"}
    same = read_comparison(ledger, "1", "2", ("AI2D",))
    assert [each.question_id for each in same.changed("lost")] == ["3"]
