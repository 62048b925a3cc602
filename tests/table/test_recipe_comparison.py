"""Two recipes over seeds: the numbers of scipy's paired test, and what cannot be paired."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from measured import evaluation, training_run
from rich.console import Console
from scipy import stats as reference

from rilbench.errors import UserError
from rilbench.ledger import Ledger
from rilbench.stats import detectable_difference, holm, seeds_needed
from rilbench.table.recipe_comparison import RecipeComparison, compare_recipes, find_recipes
from rilbench.table.render_recipes import as_json, show

RIL = {
    1: {"MMB": 70.0, "MMStar": 60.0},
    2: {"MMB": 72.5, "MMStar": 62.0},
    3: {"MMB": 71.0, "MMStar": 63.5},
    4: {"MMB": 74.0, "MMStar": 61.0},
}
SFT = {
    2: {"MMB": 70.0, "MMStar": 63.0},
    3: {"MMB": 69.5, "MMStar": 61.5},
    4: {"MMB": 70.5, "MMStar": 62.5},
    7: {"MMB": 75.0, "MMStar": 60.0},
}


@pytest.fixture
def db(tmp_path: Path) -> Path:
    with Ledger(tmp_path / "l.db") as ledger:
        ledger.record(evaluation({"MMB": 40.0, "MMStar": 30.0}))
        for seed, values in RIL.items():
            ledger.record(evaluation(values, seed=seed))
            recipe = f"seed: {seed}\npolicy: {{lr: 1.0e-06, mu: 1}}\nmethod: ril\n"
            ledger.record_run(training_run(seed, recipe_yaml=recipe))
        for seed, values in SFT.items():
            other = {"method": "sft", "teacher": "none", "family": "5" * 16}
            own = {
                "fingerprint": f"sft-{seed}",
                "recipe_fingerprint": f"s{seed}",
                "run": f"s{seed}",
            }
            ledger.record(evaluation(values, seed=seed, **other, **own))
            recipe = f"seed: {seed}\npolicy: {{lr: 2.0e-06, mu: 1}}\nmethod: sft\n"
            run = training_run(seed, recipe_yaml=recipe, name=f"s{seed}", path=f"/runs/s{seed}")
            ledger.record_run(
                dataclasses.replace(run, recipe_fingerprint=f"s{seed}", family="5" * 16)
            )
    return tmp_path / "l.db"


def compared(db: Path, first: str = "sft", second: str = "ril both") -> RecipeComparison:
    with Ledger.open_read(db) as ledger:
        recipes = find_recipes(ledger, first, second)
        assert recipes is not None
        return compare_recipes(ledger, *recipes)


def test_the_numbers_are_scipys(db: Path) -> None:
    mmb, mmstar, mean = compared(db).benchmarks
    assert mmb.seeds == mmstar.seeds == mean.seeds == (2, 3, 4)
    expected = []
    for one in (mmb, mmstar):
        first = [SFT[seed][one.benchmark] for seed in one.seeds]
        second = [RIL[seed][one.benchmark] for seed in one.seeds]
        test = reference.ttest_rel(second, first)
        low, high = test.confidence_interval(0.95)
        assert (one.first, one.second) == pytest.approx((np.mean(first), np.mean(second)))
        assert (one.interval.low, one.interval.high) == pytest.approx((low, high))
        assert one.p == pytest.approx(test.pvalue)
        expected.append(test.pvalue)
    assert [mmb.adjusted, mmstar.adjusted] == pytest.approx(holm(expected))
    means = [np.mean([*values.values()]) for seed, values in RIL.items() if seed in (2, 3, 4)]
    starts = [np.mean([*values.values()]) for seed, values in SFT.items() if seed in (2, 3, 4)]
    assert mean.p == pytest.approx(reference.ttest_rel(means, starts).pvalue)
    assert (mean.first, mean.second) == pytest.approx((np.mean(starts), np.mean(means)))
    assert mean.over == ("MMB", "MMStar")


@pytest.mark.parametrize("seeds", [2, 5, 12])
def test_a_detectable_difference_is_found_in_eighty_of_a_hundred_cases(seeds: int) -> None:
    differences = np.random.default_rng(seeds).normal(1.0, 2.0, seeds)
    found = detectable_difference(list(differences))
    noncentrality = found / (differences.std(ddof=1) / seeds**0.5)
    critical = reference.t.ppf(0.975, seeds - 1)
    assert reference.nct.sf(critical, seeds - 1, noncentrality) == pytest.approx(0.8, abs=1e-6)


@pytest.mark.parametrize("level", [0.95, 0.9875])
def test_the_seeds_needed_are_the_fewest_that_detect(level: float) -> None:
    """With standard deviation 1.8 and its interval's own formula as the reference."""
    needed = seeds_needed(1.8, 1.5, level=level)

    def power(seeds: int) -> float:
        critical = reference.t.ppf((1 + level) / 2, seeds - 1)
        return float(reference.nct.sf(critical, seeds - 1, 1.5 / 1.8 * seeds**0.5))

    assert power(needed) >= 0.8 > power(needed - 1)


def test_what_cannot_be_paired_is_said(db: Path) -> None:
    notes = compared(db).notes
    assert any("seed 7 of nano sft none" in note for note in notes)
    assert any("seed 1 of nano ril both" in note for note in notes)


def test_the_settings_that_differ_are_named(db: Path) -> None:
    found = compared(db)
    assert found.settings == {"policy.lr": (2e-06, 1e-06), "method": ("sft", "ril")}
    console = Console(width=200, record=True)
    for part in show(found):
        console.print(part)
    text = console.export_text()
    assert "policy.lr  2e-06  1e-06" in text
    assert "mu" not in text
    record = json.loads(as_json(found))
    assert record["settings"]["policy.lr"] == [2e-06, 1e-06]
    assert record["first"]["evaluations"] == {"2": 6, "3": 7, "4": 8, "7": 9}
    assert [b["verdict"] for b in record["benchmarks"]] == [b.verdict for b in found.benchmarks]


def test_scores_by_another_judge_get_no_verdict_and_are_in_no_mean(db: Path) -> None:
    with Ledger(db) as ledger:
        old = evaluation({"MMB": 75.0, "MMStar": 62.5}, seed=4, minute=59)
        scores = tuple(
            dataclasses.replace(s, judge="j") if s.benchmark == "MMB" else s for s in old.scores
        )
        ledger.record(dataclasses.replace(old, scores=scores))
    mmb, mmstar = compared(db).benchmarks
    assert (mmb.verdict, mmb.unlike) == ("not comparable", ("judge",))
    assert mmstar.adjusted == mmstar.p


def test_names_that_mean_nothing_or_several(db: Path) -> None:
    with Ledger(db) as ledger:
        assert find_recipes(ledger, "1", "2") is None
        with pytest.raises(UserError, match=r"no evaluation 'base'.*seeds: ril both, sft none"):
            find_recipes(ledger, "base", "ril both")
        ledger.record(evaluation({"MMB": 1.0}, seed=2, teacher="72b", family="9" * 16))
        with pytest.raises(UserError, match=r"several recipes: .*ril 72b.*; add words"):
            find_recipes(ledger, "sft", "ril")
        assert find_recipes(ledger, "sft", "999999") is not None
        # A student with the name of the suite is still told from another one.
        for seed, method in ((2, "sft"), (3, "ril")):
            other = {"student": "another", "method": method, "family": f"{seed}" * 16}
            ledger.record(evaluation({"MMB": 1.0}, seed=seed, **other))
        chosen = find_recipes(ledger, "nano sft", "nano ril both")
        assert chosen is not None
        assert [recipe.student for recipe in chosen] == ["nano", "nano"]
        ledger.record(evaluation({"MMB": 1.0}, seed=99, method="grpo", family="7" * 16))
        found = find_recipes(ledger, "sft", "grpo")
        assert found is not None
        with pytest.raises(UserError, match=r"seeds 2, 3, 4, 7.*seeds 99.* share no seed"):
            compare_recipes(ledger, *found)


def test_two_seeds_are_too_few(db: Path) -> None:
    with Ledger(db) as ledger:
        for seed, value in ((2, 90.0), (3, 91.0)):
            ledger.record(evaluation({"MMB": value}, seed=seed, method="few", family="8" * 16))
    (one,) = compared(db, "sft", "few").benchmarks
    assert (one.verdict, one.seeds) == ("too few seeds", (2, 3))
