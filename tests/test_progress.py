"""The counts of a command: lines when piped, bars on a terminal."""

import io

from rich.console import Console

from rilbench.progress import CountProgress


def test_piped_counts_are_few_lines():
    shown = CountProgress()
    shown.console = Console(file=io.StringIO())
    for done in range(1, 1001):
        shown.report("charts rows", done, 1000)
    for done in range(1, 100):
        shown.report("few rows", done, 99)
    for done in range(1, 25_001):
        shown.report("maths rows", done)
    assert shown.console.file.getvalue().splitlines() == [
        *(f"charts rows {done}/1000" for done in (200, 400, 600, 800, 1000)),
        *("maths rows 10000", "maths rows 20000"),
    ]


def test_on_a_terminal_each_has_a_bar():
    shown = CountProgress()
    shown.console = Console(file=io.StringIO(), force_terminal=True)
    for text, done, total in (("charts rows", 3, 8), ("charts rows", 4, 8), ("maths rows", 5, 0)):
        shown.report(text, done, total)
    assert [(task.completed, task.total) for task in shown.bars.tasks] == [(4, 8), (5, None)]
