"""What a kit's total is, by its totals of right and half-right answers."""

from collections.abc import Mapping
from typing import Any

import pytest

from rilbench.errors import UserError
from rilbench.evaluate.benchmark import Dataset
from rilbench.evaluate.kits.scores import KitScore, Outcome, summed_up
from rilbench.evaluate.kits.trial import Trial, read_trial, with_total


def tried(totals: list[float], means: list[float], scale: int = 0) -> Trial | None:
    results = [
        {"result": {"total": total}, "mean": mean}
        for total, mean in zip(totals, means, strict=True)
    ]

    def total_of(dataset: Dataset, result: Mapping[str, Any]) -> float:
        return float(result["total"]) * (100 / (dataset.scale or 100))

    return read_trial(Dataset(name="X", questions=0, scale=scale), results, total_of)


def test_a_mean_is_known_on_either_scale() -> None:
    assert tried([1, 0.5, 0.5], [1, 0.5, 0.5]) == Trial(1, is_mean=True)
    assert tried([100, 40, 60], [1, 0.4, 0.6]) == Trial(100, is_mean=True)
    assert tried([1, 0.5, 0.5], [1, 0.5, 0.5], scale=1) == Trial(1, is_mean=True)
    assert tried([90, 50, 40], [0.9, 0.5, 0.4]) == Trial(100, is_mean=True), "a gold is odd"


def test_another_total_has_the_scale_of_right_answers() -> None:
    assert tried([2800, 900, 1100], [1, 0.5, 0.5]) == Trial(2800, is_mean=False)
    assert tried([100, 66, 0], [1, 0.5, 0.5], scale=100) == Trial(100, is_mean=False)
    assert tried([90, 60, 0], [0.9, 0.5, 0.4], scale=100) == Trial(100, is_mean=False)


def test_what_is_no_score_is_refused() -> None:
    with pytest.raises(UserError, match=r"no mean of its questions.*right answers it is 30"):
        tried([30, 20, 10], [0.9, 0.5, 0.4])
    with pytest.raises(UserError, match="which is no score on a known scale"):
        tried([0, 50, 70], [1, 0.5, 0.5])  # better when it is lower
    assert tried([0, 0, 0], [0, 0, 0]) is None, "nothing is known"


def score(*values: float | None) -> KitScore:
    return summed_up([Outcome(str(i), value, None) for i, value in enumerate(values)], 1.0)


def test_a_total_is_the_score_and_no_other_is_made_of_its_questions() -> None:
    unknown = Dataset(name="X", questions=0, scale=0)
    found = with_total(unknown, score(1, 1, 0, 0), 700, Trial(2800, is_mean=False))
    assert (found.value, found.is_total, found.missing) == (25.0, True, 0)
    assert found.with_value(0.0, {"3"}).value == 25.0, "wrong to the kit too"
    assert found.with_value(None, {"0"}).value is None, "the kit has counted it"
    lacking = found.with_value(None, {"9"}).with_unscored({"9"})
    assert (lacking.value, lacking.missing, len(lacking.outcomes)) == (25.0, 1, 5)
    assert with_total(unknown, score(1, None), None, Trial(2800, is_mean=False)).value is None


def test_a_mean_stays_one() -> None:
    unknown = Dataset(name="X", questions=0, scale=0)
    assert with_total(unknown, score(1, 0), 0.5, Trial(1, is_mean=True)).value == 50.0
    assert with_total(unknown, score(1, 0), 50, None).value == 50.0
    with pytest.raises(UserError, match=r"is no mean of its questions.*The answers are kept"):
        with_total(unknown, score(1, 0), 0.3, Trial(1, is_mean=True))
    assert not with_total(unknown, score(1, None), None, None).is_total
