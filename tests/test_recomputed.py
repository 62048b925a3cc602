"""Table, compare and check recomputed from ``samples`` by other means: SQL, numpy and scipy.

The ledger holds recorded runs of this tree. Nothing of rilbench computes here: the commands print
JSON, and the same numbers are made again from the answers.
"""

import json
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from command import run
from scipy import stats

from rilbench.lab.run_result import read_result
from rilbench.lab.to_ledger import record_results
from rilbench.ledger import Ledger

ROOT = Path(__file__).parents[1]
SEEDS = (201, 202, 203, 204, 205)
RUNS = ("untrained-0", *(f"{name}-{seed}" for name in ("ril", "sft") for seed in SEEDS))
ALPHA = 0.009
"""Chance that a clean run fails anywhere, as baseline.json says."""
BENCHMARK = 0.1
KINDS = {"mean": 0.7} | dict.fromkeys(
    ("discriminator_accuracy", "answer_reward_student", "step_time", "memory"), 0.2
)
"""Parts of a model's share of `ALPHA` (docs/check.md); the metrics of one kind divide it."""


@pytest.fixture(scope="module")
def db(tmp_path_factory):
    path = tmp_path_factory.mktemp("recomputed") / "l.db"
    folder = ROOT / "results" / "nano" / "runs" / "headline" / "paper"
    with Ledger(path) as ledger:
        record_results([read_result(folder / f"{name}.json") for name in RUNS], ledger)
    return path


@pytest.fixture(scope="module")
def answers(db):
    """By evaluation and benchmark: the outcome of each question, with its stratum."""
    found = {}
    with sqlite3.connect(db) as connection:
        for evaluation, benchmark, question, stratum, score in connection.execute(
            "SELECT evaluation_id, benchmark, question_id, stratum, score FROM samples"
        ):
            of = found.setdefault((evaluation, benchmark), {})
            of[question] = (stratum, score)
    return found


def points(outcomes):
    """The mean of the strata's means, from 0 to 100."""
    strata = {}
    for stratum, score in outcomes.values():
        strata.setdefault(stratum, []).append(score)
    return 100 * np.mean([np.mean(scores) for scores in strata.values()])


def test_every_cell_of_the_table(db, answers):
    rows = printed(db.parent, "table", "--db", db, "--format", "json", "--only", "measured")
    assert [row["seeds"] for row in rows] == [1, 5, 5]
    start = {}
    for row in rows:
        means = []
        for benchmark, shown in row["scores"].items():
            numbers = row["cells"][benchmark]["evaluations"]
            assert numbers == row["evaluations"]
            values = [points(answers[number, benchmark]) for number in numbers]
            assert shown == pytest.approx(np.mean(values), abs=0.005)
            means.append(values)
            if len(values) > 1:  # where one more seed falls with 95 % probability
                spread = np.std(values, ddof=1) * np.sqrt(1 + 1 / len(values))
                reach = stats.t.ppf(0.975, len(values) - 1) * spread
                low, high = row["cells"][benchmark]["runs_95"]
                assert (low, high) == pytest.approx(
                    (np.mean(values) - reach, np.mean(values) + reach), abs=0.01
                )
        assert row["average"] == pytest.approx(np.mean(means), abs=0.005)
        if row["seeds"] == 1:
            start = row
        else:
            assert row["from_start"]["average"] == pytest.approx(
                row["average"] - start["average"], abs=0.01
            )


def test_every_line_of_a_comparison(db, answers):
    first, second = 2, 7
    told = printed(db.parent, "compare", first, second, "--db", db, "--format", "json")
    p_values = []
    *lines, mean = told["benchmarks"]
    for line in lines:
        one, other = (answers[number, line["benchmark"]] for number in (first, second))
        assert one.keys() == other.keys()
        changes = np.array([other[q][1] - one[q][1] for q in one])
        gained, lost = int((changes > 0).sum()), int((changes < 0).sum())
        assert (line["questions"], line["gained"], line["lost"]) == (len(one), gained, lost)
        assert line["difference"]["mean"] == pytest.approx(points(other) - points(one))
        one_stratum = len({stratum for stratum, _ in one.values()}) == 1
        if one_stratum and set(np.unique(changes)) <= {-1.0, 0.0, 1.0}:
            exact = stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
            assert line["p"] == pytest.approx(exact)
        p_values.append(line["p"])
        if one_stratum:  # Another bootstrap, with other random numbers.
            again = stats.bootstrap(
                (100 * changes,), np.mean, method="percentile", n_resamples=4000, random_state=5
            ).confidence_interval
            step = 100 / len(one)  # an end may be one question further
            assert line["difference"]["low"] == pytest.approx(again.low, abs=1.5 * step)
            assert line["difference"]["high"] == pytest.approx(again.high, abs=1.5 * step)
    assert mean["benchmark"] == "average"
    assert mean["difference"]["mean"] == pytest.approx(
        np.mean([line["difference"]["mean"] for line in lines])
    )
    order = np.argsort(p_values)
    factors = len(p_values) - np.arange(len(p_values))
    adjusted = np.minimum(1, np.maximum.accumulate(np.array(p_values)[order] * factors))
    for place, value in zip(order, adjusted, strict=True):
        assert lines[place]["adjusted"] == pytest.approx(value)


def printed(folder, *command):
    done = run(*command, cwd=folder)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_bound_of_a_check(tmp_path, db, answers):
    """Bounds over seeds by Student's quantile; over questions by the binomial of chance flips."""
    baseline = tmp_path / "baseline.json"
    command = ("check", "--update", "--reason", "test", "--db", db, "--baseline", baseline)
    assert run(*command, cwd=tmp_path).returncode == 0
    told = json.loads(baseline.read_text())
    rows = printed(tmp_path, "table", "--db", db, "--format", "json", "--only", "measured")
    numbers = {row["method"]: row["evaluations"] for row in rows}
    weights = {entry["method"]: 1.0 if entry["seeds"] else 0.1 for entry in told["entries"]}
    assert weights == {"base": 0.1, "ril": 1.0, "sft": 1.0}
    for entry in told["entries"]:
        alpha = ALPHA * weights[entry["method"]] / sum(weights.values())
        kinds = [KINDS.get(metric["name"], BENCHMARK) for metric in entry["metrics"]]
        for metric, kind in zip(entry["metrics"], kinds, strict=True):
            of = [answers.get((n, metric["name"])) for n in numbers[entry["method"]]]
            if None in of:
                continue
            values = [points(outcomes) for outcomes in of]
            assert sorted(metric["values"]) == pytest.approx(sorted(values), abs=0.005)
            level = alpha * kind / sum(set(kinds)) / kinds.count(kind)
            question = 100 / len(of[0])
            if entry["seeds"]:
                spread = max(np.std(values, ddof=1), 3.0) * np.sqrt(1 + 1 / len(values))
                bound = np.mean(values) - stats.t.isf(level, len(values) - 1) * spread
            else:  # so many questions may get worse by another machine's rounding
                bound = values[0] - question * stats.binom.isf(level, len(of[0]), 0.003)
            assert metric["at_least"] == pytest.approx(max(0.0, bound), abs=0.006)

    verdicts = printed(tmp_path, "check", "--db", db, "--baseline", baseline, "--format", "json")
    with sqlite3.connect(db) as connection:
        created = dict(connection.execute("SELECT id, created FROM evaluations"))
    for verdict in verdicts:
        method = verdict["entry"].split("/")[3]
        number = max(numbers[method], key=created.__getitem__)
        newest = answers.get((number, verdict["metric"]))
        if newest is not None:
            assert verdict["value"] == pytest.approx(points(newest), abs=0.005)
            assert verdict["open"] == (verdict["value"] >= verdict["limit"])
