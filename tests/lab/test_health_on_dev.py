"""The thresholds of the warnings against the committed runs on dev that they come from."""

from pathlib import Path

from rilbench.evaluate.suite import suite_columns
from rilbench.lab.experiment import SUITE
from rilbench.lab.report_tables import warnings_given
from rilbench.lab.run_result import read_results

RUNS = Path(__file__).parents[2] / "results" / "nano" / "runs"
BENCHMARKS = suite_columns(SUITE)
LOST = -5.0  # points of the mean over the 14, on dev


def test_warnings_separate_runs_that_lost_from_the_others():
    results = read_results(RUNS, "grid")
    start = {
        result.regime: result.mean(BENCHMARKS) for result in results if result.name == "untrained"
    }
    found = [
        (result.mean(BENCHMARKS) - start[result.regime], warnings_given(result))
        for result in results
        if result.curves.get("answer_reward_student") and result.mean(BENCHMARKS) is not None
    ]
    assert len(found) > 200
    # Without a signal little is learned, and nothing is lost.
    warned = [(change, [n for n in names if n != "no-signal"]) for change, names in found]
    lost = [names for change, names in warned if change <= LOST]
    kept = [names for change, names in warned if change > LOST]
    assert sum(bool(names) for names in kept) <= 2, "hardly a warning in a run that did not lose"
    assert len(lost) > 50
    share = sum(bool(names) for names in lost) / len(lost)
    assert share > 0.45, "about half of those that lost were warned of"
