"""The paper's tables as rows: the main one (Tables 1 and 2), the other models', the ablations."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from rilbench.benchmark_names import COLUMNS
from rilbench.ledger import Ledger
from rilbench.ledger.paper import ABLATIONS, LARGE, MAIN, OPEN
from rilbench.ledger.queries import PaperScore, paper_scores
from rilbench.table.types import UNTRAINED, TableRow, average

NO_TEACHER = "none"
_SUFFIX = re.compile(r"(instruct|chat|hf)$")


def main_rows(ledger: Ledger, over: Iterable[str] = COLUMNS) -> list[TableRow]:
    """Return Tables 1 and 2: 5 students, 6 rows each, in the file's order."""
    return _rows(paper_scores(ledger, MAIN), over)


def other_rows(ledger: Ledger, over: Iterable[str] = COLUMNS) -> list[TableRow]:
    """Return Tables 3 and 4: open models, then large and closed ones."""
    return [row for file in (OPEN, LARGE) for row in _rows(paper_scores(ledger, file), over)]


def ablation_rows(ledger: Ledger, over: Iterable[str] = COLUMNS) -> list[TableRow]:
    """Return Table 5: for each student and setting the benchmarks that the paper measured."""
    return _rows(paper_scores(ledger, ABLATIONS), over)


def _rows(scores: Iterable[PaperScore], over: Iterable[str]) -> list[TableRow]:
    """A file's line is a row; of the ablations, what one model has at one setting."""
    lines: dict[tuple[object, ...], list[PaperScore]] = {}
    for score in scores:
        line = score.line if score.ablation is None else (score.ablation, score.setting)
        lines.setdefault((score.file, score.model, line), []).append(score)
    return [_row(line, tuple(over)) for line in lines.values()]


def _row(line: list[PaperScore], over: tuple[str, ...]) -> TableRow:
    first = line[0]
    found: dict[str, float | None] = dict.fromkeys(COLUMNS)
    found |= {score.benchmark: score.value for score in line}
    return TableRow(
        source="paper",
        student=first.model,
        method=first.setting or first.method or UNTRAINED,
        teacher=first.teacher or NO_TEACHER,
        suite="paper",
        scores=found,
        average=average(found, over),
        origin=f"Table {first.ablation}" if first.ablation else first.source,
    )


def same_name(text: str) -> str:
    """A label's letters and digits: ``Qwen2.5-VL-7B-Instruct`` and ``qwen2.5-vl-7b`` are one."""
    return _SUFFIX.sub("", re.sub(r"[^0-9a-z]", "", text.lower()))


class PaperCells:
    """Finds the paper's numbers for a model, by its labels.

    Args:
        rows: of the paper's Tables 1 to 4.
    """

    def __init__(self, rows: Iterable[TableRow]) -> None:
        self._found: dict[tuple[str, ...], Mapping[str, float | None]] = {}
        for row in rows:
            key = same_name(row.student), same_name(row.method), row.teacher
            # Of a model that two tables have, the first: the main table.
            self._found.setdefault(key, row.scores)

    def of(self, student: str, method: str, teacher: str) -> Mapping[str, float | None]:
        """The paper's row; empty where it has none."""
        return self._found.get((same_name(student), same_name(method), teacher), {})
