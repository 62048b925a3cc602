"""A baseline from a ledger: what becomes an entry, what is left out, and the history."""

import dataclasses
import json

import pytest
from measured import BENCHMARKS, evaluation, score, seeds

from rilbench.check.baseline import read_baseline
from rilbench.check.metrics import TRAINING
from rilbench.check.update import update_baseline
from rilbench.errors import UserError
from rilbench.ledger import Ledger

VALUES = dict.fromkeys(BENCHMARKS, 70.0)


@pytest.fixture
def update(tmp_path, fill):
    """Updates one file from ledgers of the given pairs."""
    path = tmp_path / "baseline.json"
    count = iter(range(100))

    def run(pairs, reason="a reason", **options):
        with Ledger(fill(tmp_path / f"{next(count)}.db", pairs)) as ledger:
            return update_baseline(ledger, path, reason, ("c" * 40, False), **options)

    run.path = path
    return run


def test_seeds_of_a_family_are_one_entry(update):
    (entry,) = update(seeds()).baseline.entries
    assert [metric.name for metric in entry.metrics] == [*BENCHMARKS, "mean", *TRAINING]
    assert all(len(metric.values) == 9 for metric in entry.metrics)
    assert entry.not_measured == {}


def test_fewer_than_five_seeds_are_separate_entries(update):
    found = update(seeds(3)).baseline.entries
    assert [entry.seed for entry in found] == [1, 2, 3]
    assert {metric.name for entry in found for metric in entry.metrics} == {*BENCHMARKS, "mean"}
    assert found[0].label.endswith("@ffffffff#1")


def test_a_family_replaces_its_seeds_and_is_not_undone_by_a_few_of_them(update):
    update(seeds(3))
    (family,) = update(seeds()).baseline.entries
    assert family.is_family
    before = update.path.read_bytes()
    done = update(seeds(3))
    assert done.changed == ()
    assert any("5 seeds change that" in note for note in done.notes)
    assert update.path.read_bytes() == before


def test_a_metric_of_few_runs_gets_no_bound(update):
    pairs = [
        (each, dataclasses.replace(run, metrics={}) if each.seed > 3 else run)
        for each, run in seeds()
    ]
    done = update(pairs)
    (entry,) = done.baseline.entries
    assert entry.not_measured == {"step_time": 3, "memory": 3}
    assert any("memory has no bound, 3 of 9" in note for note in done.notes)


def test_an_untrained_model_is_an_entry_by_its_newest_evaluation(update):
    older = evaluation({**VALUES, "MMB": 10.0})
    (entry,) = update([(older, None), (evaluation(VALUES, minute=5), None)]).baseline.entries
    assert entry.single
    assert entry.label == "nano/ms-vlmeval/nano/base/none"
    assert [metric.values for metric in entry.metrics] == [(70.0,)] * 4


def test_entries_of_other_models_are_kept_and_share_the_chance(update):
    update(seeds(), "first")
    alone = json.loads(update.path.read_text())
    update([(evaluation(VALUES), None)], "second")
    both = json.loads(update.path.read_text())
    assert [each["reason"] for each in both["history"]] == ["first", "second"]
    assert both["history"][1]["entries"] == ["nano/ms-vlmeval/nano/base/none"]
    assert both["history"][1]["commit"] == "c" * 40
    assert len(both["entries"]) == 2
    assert both["false_alarm"] <= 0.01
    bound = {each["label"]: each["metrics"][3]["at_least"] for each in both["entries"]}
    (family,) = alone["entries"]
    assert bound[family["label"]] < family["metrics"][3]["at_least"]


def test_nothing_new_leaves_the_file_as_it_is(update):
    update(seeds(), "first")
    before = update.path.read_bytes()
    assert update(seeds(), "again").changed == ()
    assert update.path.read_bytes() == before


def test_only_some_entries(update):
    pairs = [*seeds(), (evaluation(VALUES), None)]
    (entry,) = update(pairs, only=["base/none"]).baseline.entries
    assert entry.method == "base"
    with pytest.raises(UserError, match="no entry is called 'grpo'"):
        update(pairs, only=["grpo"])


def test_incomparable_scores_are_left_out_of_a_family(update):
    pairs = list(seeds())
    first, run = pairs[0]
    other = tuple(dataclasses.replace(each, judge="another") for each in first.scores)
    pairs[0] = (dataclasses.replace(first, scores=other), run)
    done = update(pairs)
    (entry,) = done.baseline.entries
    assert entry.seeds == tuple(range(2, 10))
    assert any("not comparable" in note and "judge" in note for note in done.notes)


@pytest.mark.parametrize("change", [{"missing": 3}, {"value": None}, {"sampled": 20}])
def test_partial_scores_are_refused(update, change):
    scores = (score("MMB", 70.0), dataclasses.replace(score("MMStar", 70.0), **change))
    with pytest.raises(UserError, match=r"partial: MMStar"):
        update([(evaluation({}, scores=scores), None)])


def test_an_empty_ledger_or_an_empty_reason_is_refused(update):
    with pytest.raises(UserError, match="no evaluation that could be a baseline"):
        update([])
    with pytest.raises(UserError, match="without a reason"):
        update(seeds(), "  ")
    assert not update.path.exists()


def test_a_damaged_file_is_not_written_over(update):
    update.path.write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        update(seeds())
    assert update.path.read_text() == "{"


def test_bounds_that_are_too_wide_are_noted(update):
    pairs = [
        (
            dataclasses.replace(
                each, scores=tuple(score(n, 50 + 4.0 * each.seed) for n in BENCHMARKS)
            ),
            run,
        )
        for each, run in seeds()
    ]
    assert any("more seeds or questions" in note for note in update(pairs).notes)
    assert read_baseline(update.path).entries
