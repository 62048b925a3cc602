"""The bars of an evaluation, and its lines in a batch job's log."""

import io
from datetime import datetime, timedelta

import pytest
from rich.console import Console

from rilbench.evaluate.events import Progress
from rilbench.evaluate.progress import EvaluationProgress
from rilbench.progress import in_words


def test_a_part_without_a_count_is_full_when_the_next_begins():
    shown = EvaluationProgress()
    shown.console = Console(file=io.StringIO(), force_terminal=True)
    for event in (
        Progress("prompts"),
        Progress("server", "nano"),
        Progress("answers", "nano", 3, 8),
    ):
        shown.report(event)
    assert [task.completed for task in shown.bars.tasks] == [1, 1, 3]
    shown.report(Progress("scores", "nano"))
    shown.report(Progress("done"))
    assert [task.completed for task in shown.bars.tasks] == [1, 1, 3, 1]
    assert [task.fields["detail"] for task in shown.bars.tasks] == [
        "finished",
        "finished",
        "3/8",
        "finished",
    ]
    assert [task.finished for task in shown.bars.tasks] == [True, True, False, True]


def test_hours_in_a_log_are_a_line_a_minute_with_the_time_left():
    """35,000 questions, ten a second, of which 5,000 have responses from before."""
    second, begun = 0.0, datetime(2026, 11, 28, 22, 0, 0)
    shown = EvaluationProgress(lambda: second, lambda: begun + timedelta(seconds=second))
    shown.console = Console(file=io.StringIO(), width=200)
    shown.report(Progress("prompts"))
    for done in range(5_000, 35_001):
        second = (done - 5_000) / 10
        benchmarks = {"AI2D": (5_000, 5_000), "MMB": (done - 5_000, 30_000)}
        shown.report(Progress("answers", "vlm", done, 35_000, benchmarks=benchmarks))
    shown.report(Progress("scores", "vlm"))
    said = shown.console.file.getvalue().splitlines()
    assert said[0] == "22:00:00 the kit writes the prompts"
    assert said[1] == "22:00:00 vlm answers 5,000/35,000"
    assert said[2] == "22:01:00 vlm answers 5,600/35,000, 10.0/s, 49 min left, MMB 600/30,000"
    assert said[-2] == "22:50:00 vlm answers 35,000/35,000, 10.0/s"
    assert said[-1] == "22:50:00 vlm the kit scores the answers"
    assert len(said) == 1 + 51 + 1


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.2, "1 s"), (59, "59 s"), (90, "2 min"), (7_500, "2 h 05 min")]
)
def test_durations(seconds: float, said: str):
    assert in_words(seconds) == said
