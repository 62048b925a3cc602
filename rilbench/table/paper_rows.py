"""The paper's tables as rows: the main one (Tables 1 and 2), other models', the ablations."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from rilbench.benchmark_names import PAPER_14
from rilbench.ledger import Ledger
from rilbench.ledger.paper import ABLATIONS, LARGE, MAIN, OPEN
from rilbench.ledger.queries import PaperScore, paper_scores
from rilbench.table.types import UNTRAINED, TableRow, average

_SUFFIX = re.compile(r"(instruct|chat|hf)$")


def main_rows(ledger: Ledger, over: Iterable[str] = PAPER_14) -> list[TableRow]:
    """Return Tables 1 and 2: 5 students, 6 rows each, in the file's order."""
    return _rows(paper_scores(ledger, MAIN), over)


def other_rows(ledger: Ledger, over: Iterable[str] = PAPER_14) -> list[TableRow]:
    """Return Tables 3 and 4: open models, then large and closed ones."""
    return [row for file in (OPEN, LARGE) for row in _rows(paper_scores(ledger, file), over)]


def ablation_rows(ledger: Ledger, over: Iterable[str] = PAPER_14) -> list[TableRow]:
    """Return Table 5: for each student and setting the benchmarks that the paper measured."""
    return _rows(paper_scores(ledger, ABLATIONS), over)


def _rows(scores: Iterable[PaperScore], over: Iterable[str]) -> list[TableRow]:
    """Return a row per line of a file; for ablations, a row per model and setting."""
    lines: dict[tuple[object, ...], list[PaperScore]] = {}
    for score in scores:
        line = score.line if score.ablation is None else (score.ablation, score.setting)
        lines.setdefault((score.file, score.model, line), []).append(score)
    over = tuple(over)
    rows = []
    for line_scores in lines.values():
        first = line_scores[0]
        values: dict[str, float | None] = dict.fromkeys(PAPER_14)
        values |= {score.benchmark: score.value for score in line_scores}
        rows.append(
            TableRow(
                source="paper",
                student=first.model,
                method=first.setting or first.method or UNTRAINED,
                teacher=first.teacher or "none",
                suite="paper",
                scores=values,
                average=average(values, over),
                over=over,
                origin=f"Table {first.ablation}" if first.ablation else first.source,
            )
        )
    return rows


def same_name(text: str) -> str:
    """Return a label's letters and digits, so that different spellings of a model are equal.

    ``Qwen2.5-VL-7B-Instruct`` and ``qwen2.5-vl-7b`` are one.
    """
    return _SUFFIX.sub("", re.sub(r"[^0-9a-z]", "", text.lower()))


class PaperCells:
    """The paper's numbers by a model's labels.

    Args:
        rows: the paper's Tables 1 to 4.
    """

    def __init__(self, rows: Iterable[TableRow]) -> None:
        self._scores: dict[tuple[str, ...], Mapping[str, float | None]] = {}
        for row in rows:
            key = same_name(row.student), same_name(row.method), row.teacher
            # If two tables have a model, the first counts: the main table.
            self._scores.setdefault(key, row.scores)

    def of(self, student: str, method: str, teacher: str) -> Mapping[str, float | None]:
        """Return the scores of the paper's row; empty when it has none."""
        return self._scores.get((same_name(student), same_name(method), teacher), {})
