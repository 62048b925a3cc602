"""Every cause of a difference, and only what differs."""

import dataclasses
import io
from pathlib import Path

import pytest
from rich.console import Console

from rilbench.errors import UserError
from rilbench.ledger import Evaluation, Ledger, Sample, utc_now
from rilbench.table.question_diff import CAUSES, counts, differences, find_evaluation
from rilbench.table.render_comparison import causes_table, questions_table

RIGHT = Sample(
    benchmark="MMStar",
    question_id="1",
    prompt_hash="p",
    response="It is B.\x1b[31m",
    score=1.0,
    gold="B",
    extracted="B",
)


def other(**changes: object) -> Sample:
    return dataclasses.replace(RIGHT, score=0.0, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("second", "cause"),
    [
        (None, "other set of questions"),
        (other(gold="C", prompt_hash="q", response="C"), "other gold"),
        (other(prompt_hash="q", response="A", extracted="A"), "other response to another prompt"),
        (other(prompt_hash="q", extracted="-"), "same response, other extraction"),
        (other(prompt_hash="q"), "same response, other verdict"),
        (other(response="It is A.", extracted="A"), "other response"),
        (other(extracted="-"), "same response, other extraction"),
        (other(judge="m"), "same response, other verdict"),
        (dataclasses.replace(RIGHT, score=None), "same response, other verdict"),
    ],
)
def test_each_cause(second: Sample | None, cause: str) -> None:
    (found,) = differences([RIGHT], [] if second is None else [second])
    assert (found.cause, found.first, found.second) == (cause, RIGHT, second)
    assert cause in CAUSES
    (reverse,) = differences([] if second is None else [second], [RIGHT])
    assert reverse.cause == cause
    assert found.change == (None if second is None or second.score is None else -1)


def test_equal_outcomes_are_no_difference_whatever_the_texts() -> None:
    assert differences([RIGHT], [dataclasses.replace(RIGHT, response="B", extracted="b")]) == []
    gaps = [dataclasses.replace(RIGHT, score=None)] * 2
    assert differences(gaps[:1], gaps[1:]) == []


def test_the_same_number_in_two_benchmarks_is_two_questions() -> None:
    first = [RIGHT, dataclasses.replace(RIGHT, benchmark="BLINK")]
    second = [RIGHT, other(benchmark="BLINK", response="A")]
    found = differences(first, second)
    assert [each.benchmark for each in found] == ["BLINK"]
    assert counts(found)["BLINK"]["other response"] == 1


def test_two_kits_questions_are_matched_by_what_they_ask() -> None:
    """Their numbers differ; of two questions with the same words the first is the first."""
    first = [
        dataclasses.replace(RIGHT, question_id=str(i), stem=stem)
        for i, stem in enumerate(("Which digit?", "Which colour?", "Which digit?"))
    ]
    second = [
        dataclasses.replace(each, question_id=f"row {each.question_id}", score=score, response="A")
        for each, score in ((first[1], 1.0), (first[0], 0.0), (first[2], 1.0))
    ]
    (found,) = differences(first, second, same_kit=False)
    assert (found.question_id, found.cause, found.first) == ("0", "other response", first[0])
    assert len(differences(first, second)) == 6


def text(table: object) -> str:
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(table)
    return console.export_text()


def test_what_is_shown() -> None:
    second = [other(response="It is A.\n" * 50, extracted="A"), other(question_id="2")]
    found = differences([RIGHT], second)
    summary = text(causes_table(found))
    assert summary.splitlines()[1].split() == ["MMStar", "1", "1"]
    lines = text(questions_table(found))
    assert "1 [B] It is B. [31m" in lines
    assert "\x1b" not in lines
    assert "0 [A] It is A. It is A." in lines
    assert "not asked" in lines


def test_an_evaluation_by_its_number_or_its_model(tmp_path: Path) -> None:
    evaluation = Evaluation(
        path="/runs/first/checkpoint",
        fingerprint="abcdef0123456789",
        student="nano",
        method="ril",
        teacher="both",
        run="first",
        suite="nano",
        created=utc_now(),
    )
    with Ledger(tmp_path / "scores.db") as ledger:
        with pytest.raises(UserError, match=r"scores\.db has no evaluation '1'; .* none yet"):
            find_evaluation(ledger, "1")
        for path, fingerprint in (("first", "abcdef01"), ("first", "abcdef01"), ("next", "0123")):
            changed = {"path": f"/runs/{path}/checkpoint", "fingerprint": fingerprint, "run": path}
            ledger.record(dataclasses.replace(evaluation, **changed))
        names = ("2", "first", "/runs/first/checkpoint/", "first/checkpoint", "abcdef")
        assert [find_evaluation(ledger, name).id for name in names] == [2] * 5
        assert find_evaluation(ledger, "1").id == 1
        with pytest.raises(UserError, match=r"several models called 'checkpoint': 3 .*, 2 .*, 1 "):
            find_evaluation(ledger, "checkpoint")
        with pytest.raises(UserError, match="no evaluation 'other'"):
            find_evaluation(ledger, "other")
