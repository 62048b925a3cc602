"""Samples of a run in the trackers of ``--log``, as their own tables.

In W&B it is one table that grows, also over resumes; in Trackio a table for each sampled step; in
TensorBoard, which has none, a table in Markdown among the texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rilbench.data.rollout_groups import RolloutGroup

KEY = "samples"
"""The table's name in a tracker."""

COLUMNS = (
    *("step", "question_id", "question", "answer", "source", "response"),
    *("verdict", "reward", "advantage"),
)

Row = tuple[int | float | str | None, ...]


def sample_rows(step: int, group: RolloutGroup) -> list[Row]:
    """A row of `COLUMNS` for each response of a group, the student's first."""
    question = (step, group.question_id, group.text.replace("<image>", ""), group.gold)
    return [
        (
            *question,
            *(response.source, response.response, response.verdict),
            *(response.reward, response.advantage),
        )
        for response in group.responses
    ]


class SampleTables:
    """Logs rows to trackers.

    Args:
        loggers: verl's, by the tracker's name (``Tracking.logger``).
    """

    def __init__(self, loggers: Mapping[str, Any]) -> None:
        self.loggers = loggers
        self._growing: Any = None

    def log(self, step: int, rows: Sequence[Row]) -> None:
        """Log the rows of a step, once."""
        for name, logger in self.loggers.items():
            if name == "wandb":
                logger.log(data={KEY: self._wandb(rows)}, step=step)
            elif name == "trackio":
                import trackio

                # As a data frame, None would become NaN.
                named = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
                logger.log(data={KEY: trackio.Table(data=named)}, step=step)
            elif name == "tensorboard":
                logger.writer.add_text(KEY, as_markdown(rows), step)

    def _wandb(self, rows: Sequence[Row]) -> Any:
        """The one table of the run; each log uploads what was added."""
        import wandb

        if self._growing is None:
            self._growing = wandb.Table(
                columns=list(COLUMNS), log_mode="INCREMENTAL", allow_mixed_types=True
            )
        for row in rows:
            self._growing.add_data(*row)
        return self._growing


def as_markdown(rows: Sequence[Row]) -> str:
    """The rows as a table in Markdown."""

    def line(cells: Sequence[object]) -> str:
        texts = ("" if cell is None else " ".join(str(cell).split()) for cell in cells)
        return "| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |"

    return "\n".join([line(COLUMNS), line(["---"] * len(COLUMNS)), *map(line, rows)])
