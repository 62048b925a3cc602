"""The bars of an evaluation."""

import io

from rich.console import Console

from rilbench.evaluate.progress import EvaluationProgress
from rilbench.evaluate.run import Progress


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
