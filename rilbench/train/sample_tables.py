"""Samples of a run in the trackers of ``--log``, as their own tables.

In W&B and MLflow it is one table that grows, also over resumes; in SwanLab, Trackio, ClearML and a
file a table for each sampled step; in TensorBoard, which has none, a table in Markdown among the
texts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
        loggers: by the tracker's name (`rilbench.train.trackers.OnceEach`).
    """

    def __init__(self, loggers: Mapping[str, Any]) -> None:
        self.loggers = loggers
        self._growing: Any = None

    def log(self, step: int, rows: Sequence[Row]) -> None:
        """Log the rows of a step, once."""
        ways: dict[str, Callable[[int, Sequence[Row]], None]] = {
            "wandb": self._to_wandb,
            "swanlab": self._to_swanlab,
            "mlflow": self._to_mlflow,
            "trackio": self._to_trackio,
            "clearml": self._to_clearml,
            "tensorboard": self._to_tensorboard,
            "file": self._to_file,
        }
        for name, logger in self.loggers.items():
            if name in ways and logger.is_new(step):
                ways[name](step, rows)

    def _to_wandb(self, step: int, rows: Sequence[Row]) -> None:
        """The one table of the run; each log uploads what was added."""
        import wandb

        if self._growing is None:
            self._growing = wandb.Table(
                columns=list(COLUMNS), log_mode="INCREMENTAL", allow_mixed_types=True
            )
        for row in rows:
            self._growing.add_data(*row)
        self.loggers["wandb"].log(data={KEY: self._growing}, step=step)

    def _to_swanlab(self, step: int, rows: Sequence[Row]) -> None:
        import swanlab

        table = swanlab.echarts.Table()
        table.add(headers=list(COLUMNS), rows=[list(row) for row in rows])
        self.loggers["swanlab"].log(data={KEY: table}, step=step)

    def _to_mlflow(self, _: int, rows: Sequence[Row]) -> None:
        """The one table of the run, which MLflow keeps as JSON."""
        import mlflow

        columns = {name: list(cells) for name, *cells in zip(COLUMNS, *rows, strict=True)}
        mlflow.log_table(columns, f"{KEY}.json")

    def _to_trackio(self, step: int, rows: Sequence[Row]) -> None:
        import trackio

        # As a data frame, None would become NaN.
        self.loggers["trackio"].log(data={KEY: trackio.Table(data=_named(rows))}, step=step)

    def _to_clearml(self, step: int, rows: Sequence[Row]) -> None:
        import clearml

        table = [list(COLUMNS), *map(list, rows)]
        logger = clearml.Logger.current_logger()
        logger.report_table(title=KEY, series=KEY, iteration=step, table_plot=table)

    def _to_tensorboard(self, step: int, rows: Sequence[Row]) -> None:
        self.loggers["tensorboard"].writer.add_text(KEY, as_markdown(rows), step)

    def _to_file(self, step: int, rows: Sequence[Row]) -> None:
        self.loggers["file"].log(data={KEY: _named(rows)}, step=step)


def _named(rows: Sequence[Row]) -> list[dict[str, int | float | str | None]]:
    return [dict(zip(COLUMNS, row, strict=True)) for row in rows]


def as_markdown(rows: Sequence[Row]) -> str:
    """The rows as a table in Markdown."""

    def line(cells: Sequence[object]) -> str:
        texts = ("" if cell is None else " ".join(str(cell).split()) for cell in cells)
        return "| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |"

    return "\n".join([line(COLUMNS), line(["---"] * len(COLUMNS)), *map(line, rows)])
