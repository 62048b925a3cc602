"""The ledger's values check themselves."""

import dataclasses
import math

import pytest

from rilbench.ledger import Evaluation, Sample, Score, latest, utc_now

SCORE = Score(
    benchmark="MMStar",
    value=50.0,
    kit="vlmevalkit",
    kit_version="0.0.20",
    dataset="NanoMMStar",
    metric="Overall",
    questions=10,
    answered=9,
    missing=1,
    data_sha256="d",
)
EVALUATION = Evaluation(
    path="/m",
    fingerprint="f",
    student="nano",
    method="base",
    teacher="none",
    suite="nano",
    created="2026-01-02T03:04:05+00:00",
)


@pytest.mark.parametrize("value", [-0.1, 100.1, math.nan, math.inf])
def test_a_score_out_of_range_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="0 to 100"):
        dataclasses.replace(SCORE, value=value)


@pytest.mark.parametrize("counts", [{"answered": 11}, {"missing": 11}, {"missing": -1}])
def test_counts_must_add_up(counts: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="count again"):
        dataclasses.replace(SCORE, **counts)  # type: ignore[arg-type]


@pytest.mark.parametrize("score", [-0.1, 1.1, 100.0, math.nan])
def test_a_sample_out_of_range_is_refused(score: float) -> None:
    with pytest.raises(ValueError, match="0 to 1"):
        Sample(benchmark="b", question_id="1", prompt_hash="h", response="r", score=score)


def test_no_score_is_a_score() -> None:
    assert dataclasses.replace(SCORE, value=None).value is None
    assert Sample(benchmark="b", question_id="1", prompt_hash="h", response="").score is None


@pytest.mark.parametrize(
    "created", ["yesterday", "2026-01-02T03:04:05", "2026-01-02T03:04:05+02:00"]
)
def test_times_are_in_utc(created: str) -> None:
    with pytest.raises(ValueError):
        dataclasses.replace(EVALUATION, created=created)


def test_both_spellings_of_utc_and_now() -> None:
    zulu = dataclasses.replace(EVALUATION, created="2026-01-02T03:04:05Z")
    assert zulu.moment == EVALUATION.moment
    assert dataclasses.replace(EVALUATION, created=utc_now()).moment > EVALUATION.moment


def test_the_provenance_is_all_but_value_and_counts() -> None:
    assert (
        dataclasses.replace(SCORE, value=1.0, answered=1, missing=0).provenance == SCORE.provenance
    )
    others = dict.fromkeys(
        ("kit", "kit_version", "dataset", "metric", "judge", "data_sha256", "asked"), "other"
    )
    for name, value in others.items():
        changed = dataclasses.replace(SCORE, **{name: value})  # type: ignore[arg-type]
        assert changed.provenance != SCORE.provenance


def test_latest_is_by_time_then_by_number() -> None:
    def at(second: int, number: int, **changes: str) -> Evaluation:
        created = f"2026-01-02T03:04:0{second}+00:00"
        return dataclasses.replace(EVALUATION, created=created, id=number, **changes)  # type: ignore[arg-type]

    old, new = at(1, 3), at(2, 1)
    tie = at(2, 2)
    other_suite = at(0, 4, suite="paper")
    other_label = at(0, 5, method="ril")
    other_model = at(3, 6, fingerprint="g")
    found = latest([old, new, tie, other_suite, other_label, other_model])
    assert found == [other_model, tie, other_label, other_suite]


def test_a_quick_look_hides_no_full_evaluation() -> None:
    def at(second: int, **changes: object) -> Evaluation:
        score = dataclasses.replace(SCORE, **{"missing": 0, **changes})  # type: ignore[arg-type]
        created = f"2026-01-02T03:04:0{second}+00:00"
        return dataclasses.replace(EVALUATION, created=created, id=second, scores=(score,))

    full, sample, without = at(1), at(2, sampled=3), at(3, value=None)
    assert latest([full, sample]) == [full]
    assert latest([full, sample, without]) == [without], "its results do not count"
    assert latest([sample, without]) == [without], "the newest of two partial ones"
    (score,) = full.scores
    more = dataclasses.replace(full, scores=(score, dataclasses.replace(score, benchmark="Mine")))
    unclear = at(5, missing=1)
    assert latest([more, unclear]) == [unclear], "one benchmark or verdict more hides nothing"
    assert latest([more, unclear], ["MMStar", "Mine"]) == [more], "but one that was asked for"
    assert latest([full, at(4)]) == [at(4)]
