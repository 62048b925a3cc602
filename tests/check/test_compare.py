"""A ledger against a baseline, metric by metric."""

import dataclasses

import pytest
from measured import BENCHMARKS, QUESTIONS, evaluation, score, seeds, training_run

from rilbench.check.baseline import read_baseline
from rilbench.check.compare import check_ledger, problems
from rilbench.check.metrics import TRAINING
from rilbench.check.update import update_baseline
from rilbench.errors import UserError
from rilbench.ledger import Ledger, Sample

VALUES = dict.fromkeys(BENCHMARKS, 70.0)
METRICS = {*BENCHMARKS, "mean", *TRAINING}


@pytest.fixture
def check(tmp_path, fill, baseline):
    """Checks a ledger of the given pairs; returns the states that do not pass, by metric."""
    count = iter(range(100))

    def run(*pairs, **options):
        with Ledger.open_read(fill(tmp_path / f"checked-{next(count)}.db", pairs)) as ledger:
            found = check_ledger(ledger, read_baseline(baseline), **options)
        run.verdicts = found
        assert {each.metric for each in found} == METRICS
        return {each.metric: each.state for each in found if not each.open}

    return run


def new(values=VALUES, **changes):
    return evaluation(values, seed=40, minute=40, **changes)


def test_a_clean_run_passes(check):
    assert check((new(), training_run(40))) == {}
    assert problems(check.verdicts) == []


@pytest.mark.parametrize(
    ("values", "figures", "metric"),
    [
        ({**VALUES, "MMStar": 45.0}, {}, "MMStar"),
        (VALUES, {"accuracy": 0.4}, "discriminator_accuracy"),
        (VALUES, {"answer": 0.3}, "answer_reward_student"),
        (VALUES, {"step": 8.0}, "step_time"),
        (VALUES, {"memory": 2.5}, "memory"),
    ],
)
def test_one_regression_is_named(check, values, figures, metric):
    found = check((new(values), training_run(40, **figures)))
    assert found.pop(metric) == "failed"
    assert set(found) <= {"mean"}
    assert metric in "; ".join(problems(check.verdicts))


def test_a_drop_of_ten_points_everywhere_fails_the_mean(check):
    found = check((new(dict.fromkeys(BENCHMARKS, 60.0)), training_run(40)))
    assert found["mean"] == "failed"


def test_a_better_model_passes(check):
    run = training_run(40, accuracy=1.0, answer=1.0, step=0.1, memory=0.1)
    assert check((new(dict.fromkeys(BENCHMARKS, 100.0)), run)) == {}


def test_a_slower_machine_passes(check):
    figures = {"step_cpu_seconds": 15.0, "yardstick_seconds": 0.15, "memory_gb": 1.5}
    assert check((new(), training_run(40, metrics=figures))) == {}


def test_the_newest_evaluation_counts(check):
    bad, good = new(dict.fromkeys(BENCHMARKS, 20.0)), new(fingerprint="other")
    earlier = dataclasses.replace(bad, created="2026-01-02T02:00:00+00:00")
    assert check((good, training_run(40)), (earlier, None)) == {}
    later = dataclasses.replace(bad, created="2026-01-02T04:00:00+00:00")
    assert check((good, training_run(40)), (later, None))["mean"] == "failed"


def test_an_older_evaluation_with_more_in_it_hides_no_collapse(check):
    older = evaluation(VALUES, seed=40, minute=30)
    extra = dataclasses.replace(older, scores=(*older.scores, score("Mine", 90.0)))
    fallen = new(dict.fromkeys(BENCHMARKS, 0.0))
    found = check((extra, training_run(40)), (fallen, training_run(40)))
    assert set(found) == {*BENCHMARKS, "mean"}
    first, *others = fallen.scores
    unclear = dataclasses.replace(fallen, scores=(dataclasses.replace(first, missing=1), *others))
    found = check((older, training_run(40)), (unclear, training_run(40)))
    assert found["MMStar" if first.benchmark != "MMStar" else others[0].benchmark] == "failed"
    assert found[first.benchmark] == "not measured"


def test_an_unmeasured_metric_does_not_pass(check):
    assert check((new(), None)) == dict.fromkeys(TRAINING, "not measured")
    assert "not in this ledger" in "; ".join(problems(check.verdicts))
    run = training_run(40, metrics={}, curves={})
    assert check((new(), run)) == dict.fromkeys(TRAINING, "not measured")
    assert "did not measure" in "; ".join(problems(check.verdicts))


def test_a_model_without_an_evaluation_fails(check):
    found = check((evaluation(VALUES), None))
    assert found == dict.fromkeys(METRICS, "not measured")
    (line,) = problems(check.verdicts)
    assert "8 metrics not measured: the ledger has no evaluation of this model" in line


@pytest.mark.parametrize("change", [{"value": None}, {"missing": 5}])
def test_an_incomplete_score_fails_and_so_does_the_mean(check, change):
    rest = tuple(score(name, 70.0) for name in BENCHMARKS[1:])
    lame = dataclasses.replace(score(BENCHMARKS[0], 70.0), **change)
    found = check((new(scores=(lame, *rest)), training_run(40)))
    assert found == {BENCHMARKS[0]: "not measured", "mean": "not measured"}
    assert check((new(scores=rest), training_run(40))) == found


def test_a_benchmark_without_a_bound_changes_nothing(check):
    assert check((new({**VALUES, "BLINK": 0.0}), training_run(40))) == {}


@pytest.mark.parametrize(
    ("part", "value"),
    [("judge", "gpt"), ("data_sha256", "e" * 64), ("kit_version", "9"), ("asked", "b")],
)
def test_scores_of_another_provenance_are_not_comparable(check, part, value):
    scores = [score(name, 70.0) for name in BENCHMARKS]
    scores[1] = dataclasses.replace(scores[1], **{part: value})
    found = check((new(scores=tuple(scores)), training_run(40)))
    assert found == {BENCHMARKS[1]: "not comparable", "mean": "not comparable"}
    assert f"another {part} '{value}'" in problems(check.verdicts)[0]


def test_a_benchmark_that_the_paper_does_not_have_gets_a_bound(tmp_path, fill):
    path = tmp_path / "own.json"
    with Ledger(
        fill(tmp_path / "own.db", [(evaluation({**VALUES, "OwnBench": 70.0}), None)])
    ) as db:
        update_baseline(db, path, "an own benchmark")
    states = {}
    for value in (70.0, 20.0):
        pair = (evaluation({**VALUES, "OwnBench": value}, minute=9), None)
        with Ledger(fill(tmp_path / f"{value}.db", [pair])) as db:
            verdicts = check_ledger(db, read_baseline(path))
        states[value] = {verdict.metric: verdict.state for verdict in verdicts}
    assert set(states[70.0].values()) == {"passed"}
    assert states[20.0]["OwnBench"] == "failed"
    assert states[20.0]["MMB"] == "passed"


def test_another_suite_and_an_empty_ledger(tmp_path, fill, baseline):
    known = read_baseline(baseline)
    words = r"for the suite nano, .* has evaluations of paper alone"
    other = fill(tmp_path / "other.db", [(new(suite="paper"), None)])
    with Ledger(other) as ledger, pytest.raises(UserError, match=words):
        check_ledger(ledger, known)
    with (
        Ledger(tmp_path / "empty.db") as ledger,
        pytest.raises(UserError, match="no evaluation to check"),
    ):
        check_ledger(ledger, known)


def test_only_some_entries(tmp_path, fill, check, baseline):
    with Ledger(fill(tmp_path / "more.db", [(evaluation(VALUES), None)])) as ledger:
        update_baseline(ledger, baseline, "one more")
    found = check((new(), training_run(40)), only=["nano/ril"])
    assert found == {}
    with pytest.raises(UserError, match="no entry is called"):
        check((new(), training_run(40)), only=["nothing"])


def test_no_response_is_read(tmp_path, fill, baseline):
    """A million samples of seeds cost nothing, as they are not looked at."""
    with Ledger.open_read(fill(tmp_path / "many.db", seeds())) as ledger:
        asked = []
        ledger._connection.set_trace_callback(asked.append)
        assert all(each.open for each in check_ledger(ledger, read_baseline(baseline)))
    assert asked
    assert not [statement for statement in asked if "samples" in statement]


# ---- a model without seeds: question by question


def answered(outcomes, minute=0):
    """The untrained model with these outcomes of each benchmark's questions."""
    samples = [
        Sample(benchmark=name, question_id=str(n), prompt_hash="h", response="r", score=value)
        for name, values in outcomes.items()
        for n, value in enumerate(values)
    ]
    means = {name: 100 * sum(values) / QUESTIONS for name, values in outcomes.items()}
    return evaluation(means, minute=minute, samples=tuple(samples))


@pytest.fixture
def recheck(tmp_path, fill):
    """Checks new outcomes against a baseline of others; returns the verdicts by metric."""

    def run(before, now):
        path = tmp_path / "single.json"
        with Ledger(fill(tmp_path / "before.db", [(answered(before), None)])) as ledger:
            update_baseline(ledger, path, "one evaluation")
        with Ledger(fill(tmp_path / "now.db", [(answered(now, 9), None)])) as ledger:
            found = check_ledger(ledger, read_baseline(path))
        return {verdict.metric: verdict for verdict in found}

    return run


HALF = [1.0] * 100 + [0.0] * 100


def test_answers_that_got_worse_are_counted_and_named(recheck):
    worse = [0.0] * 8 + HALF[8:]
    found = recheck({"MMB": HALF, "MMStar": HALF}, {"MMB": worse, "MMStar": HALF})
    assert found["MMB"].state == "failed"
    assert found["MMB"].why.startswith("8 answers are worse than the baseline's, and ")
    assert found["MMB"].why.endswith("may be (0, 1, 2, 3, 4, …)")
    assert found["MMStar"].state == "passed"


def test_only_the_answers_that_changed_are_read(tmp_path, fill):
    path = tmp_path / "single.json"
    before = answered({"MMB": HALF, "MMStar": HALF})
    with Ledger(fill(tmp_path / "before.db", [(before, None)])) as ledger:
        update_baseline(ledger, path, "one evaluation")
    now = answered({"MMB": HALF, "MMStar": [0.0, *HALF[1:]]}, 9)
    with Ledger.open_read(fill(tmp_path / "now.db", [(now, None)])) as ledger:
        asked = []
        ledger._connection.set_trace_callback(asked.append)
        check_ledger(ledger, read_baseline(path))
    (samples,) = [statement for statement in asked if "FROM samples" in statement]
    assert "'MMStar'" in samples


def test_gains_do_not_make_up_for_losses(recheck):
    found = recheck({"MMB": HALF}, {"MMB": HALF[::-1]})
    assert (found["MMB"].value, found["MMB"].usual, found["MMB"].state) == (50.0, 50.0, "failed")
    assert recheck({"MMB": HALF}, {"MMB": [1.0] * 200})["MMB"].state == "passed"


def test_one_flip_passes(recheck):
    assert recheck({"MMB": HALF}, {"MMB": [0.0, *HALF[1:]]})["MMB"].state == "passed"


def test_a_score_that_cannot_fall_is_not_counted_as_a_check(recheck):
    low = [1.0] + [0.0] * 199
    found = recheck({"MMB": low, "MMStar": HALF}, {"MMB": [0.0] * 200, "MMStar": HALF})
    assert (found["MMB"].state, found["MMB"].open) == ("no bound", True)
    assert found["MMStar"].state == "passed"
