"""The thresholds of the warnings against the committed runs on dev that they come from."""

from pathlib import Path

from rilbench.benchmark_names import COLUMNS
from rilbench.lab.report_tables import warned
from rilbench.lab.run_result import read_rows

ROWS = Path(__file__).parents[2] / "results" / "nano" / "rows"
LOST = -5.0  # points of the mean over the 14, on dev


def test_runs_that_lost_are_told_from_runs_that_did_not():
    rows = read_rows(ROWS, "grid")
    start = {row.student: row.mean(COLUMNS) for row in rows if row.name == "untrained"}
    found = [
        (row.mean(COLUMNS) - start[row.student], warned(row))
        for row in rows
        if row.curves.get("answer_reward_student") and row.mean(COLUMNS) is not None
    ]
    assert len(found) == 72
    lost = [names for change, names in found if change <= LOST]
    kept = [names for change, names in found if change > LOST]
    assert not [names for names in kept if names], "no warning in a run that did not lose"
    assert len(lost) == 11
    assert sum(bool(names) for names in lost) >= 7, "most of those that lost were warned of"
