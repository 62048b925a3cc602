"""verl's trackers over all starts of a run: one run in each, and every step there once.

`begin` comes before verl opens them and `continued` after. A resumed run does the steps since its
last save again. The file and TensorBoard's figures forget what those steps left; the other trackers
keep it, and get no step twice.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rilbench.errors import UserError
from rilbench.paths import whole_file

FILE = "trackers.json"
"""In a run's folder: of each tracker its run's id, and the last step that it has."""
LOG = "tracker.jsonl"
"""In a run's folder: what the tracker ``file`` writes."""
_NOTHING = -1  # before the scores of step 0


@dataclass(frozen=True)
class TrackedRun:
    """A run as its trackers know it.

    Attributes:
        folder: the run's.
        name: its name for them, the same over all starts.
        project: the group of runs that it belongs to.
        step: the saved step from which it goes on; 0: none.
        trackers: of `rilbench.train.pipeline.tracker_check`.
    """

    folder: Path
    name: str
    project: str
    step: int
    trackers: Sequence[str]

    @property
    def opened_by_verl(self) -> list[str]:
        """All but MLflow, to which verl would log the settings again, and it refuses changed ones;
        and the file, which verl would empty."""
        return [tracker for tracker in self.trackers if tracker not in ("mlflow", "file")]


def begin(run: TrackedRun, config: Mapping[str, Any]) -> None:
    """Make the trackers go on with the run that an earlier start began there.

    Args:
        run: what goes on.
        config: verl's, for trackers that show settings.

    Raises:
        UserError: MLflow does not take it.
    """
    os.environ["TENSORBOARD_DIR"] = str(run.folder / "tensorboard")
    for library in ("WANDB", "SWANLAB"):
        os.environ.setdefault(f"{library}_RUN_ID", run.name)
        os.environ.setdefault(f"{library}_RESUME", "allow")
    if "tensorboard" in run.trackers and run.step:
        from torch.utils.tensorboard import SummaryWriter

        SummaryWriter(os.environ["TENSORBOARD_DIR"], purge_step=run.step + 1).close()
    # verl starts none where one has begun.
    if "trackio" in run.trackers:
        import trackio

        kept = {"resume": "allow", "embed": False, "config": dict(config)}
        trackio.init(project=run.project, name=run.name, **kept)
    if "clearml" in run.trackers:
        _begin_clearml(run)
    if "mlflow" in run.trackers:
        _begin_mlflow(run, config)


def _begin_clearml(run: TrackedRun) -> None:
    """Begin a task, or go on with ours: verl would take the last one of this name, and add its
    last step to all that follow."""
    import clearml

    # Its process for reports is forked while threads run, and the run's end then waits five minutes
    # for one of them. Its configuration file alone could say so.
    clearml.Task._report_subprocess_enabled = False
    before = _kept(run.folder, "clearml").get("id", "")
    can_go_on = before and not before.startswith("offline")
    task = clearml.Task.init(
        project_name=run.project,
        task_name=run.folder.name,
        continue_last_task=before if can_go_on else False,
        reuse_last_task_id=False,
        output_uri=False,
        auto_connect_arg_parser=False,
        auto_connect_frameworks=False,  # TensorBoard's figures would come twice
    )
    task.set_initial_iteration(0)
    _keep(run.folder, "clearml", id=task.id)


def _begin_mlflow(run: TrackedRun, config: Mapping[str, Any]) -> None:
    """Start a run with its settings, or go on with ours, at the address that it began at."""
    import mlflow
    from verl.utils.tracking import _compute_mlflow_params_from_objects

    before = _kept(run.folder, "mlflow")
    if "MLFLOW_TRACKING_URI" not in os.environ and "uri" in before:
        mlflow.set_tracking_uri(before["uri"])
    uri = mlflow.get_tracking_uri()
    try:
        if before:
            mlflow.start_run(run_id=before["id"])
            return
        mlflow.set_experiment(run.project)
        begun = mlflow.start_run(run_name=run.name)
        mlflow.log_params(_compute_mlflow_params_from_objects(config))
    except mlflow.MlflowException as error:
        remedy = "set MLFLOW_TRACKING_URI as at the run's start" if before else "see that it works"
        why = " ".join(str(error).split())[:200]
        raise UserError(
            f"MLflow at {uri} does not take the run ({why}); {remedy}, or leave --log mlflow out"
        ) from error
    _keep(run.folder, "mlflow", id=begun.info.run_id, uri=uri)


def continued(tracking: Any, run: TrackedRun) -> Any:
    """Return verl's trackers (``Tracking``), of which none takes a step twice.

    Args:
        tracking: as verl has opened it.
        run: as `begin` had it.
    """
    from verl.utils.tracking import FileLogger, _MlflowLoggingAdapter

    class Appended(FileLogger):  # type: ignore[misc]
        """verl's file, without deleting what is in it."""

        def __init__(self, path: Path) -> None:
            self.fp = path.open("ab", buffering=0)

    loggers = tracking.logger
    if "mlflow" in run.trackers:
        loggers["mlflow"] = _MlflowLoggingAdapter()
    if "file" in run.trackers:
        loggers["file"] = Appended(run.folder / LOG)
    for name, logger in loggers.items():
        loggers[name] = OnceEach(logger, name, run)
    return tracking


class OnceEach:
    """A logger of verl's that leaves out the steps that its tracker has from an earlier start.

    Args:
        logger: verl's.
        name: the tracker's.
        run: whose steps it logs.
    """

    def __init__(self, logger: Any, name: str, run: TrackedRun) -> None:
        self._logger, self._name, self._folder = logger, name, run.folder
        kept = int(_kept(run.folder, name).get("step", _NOTHING))
        left = min(kept, run.step)  # where the rest was forgotten
        self._figures = left if name in ("file", "tensorboard") else kept
        self._samples = left if name == "file" else kept  # TensorBoard forgets no texts

    def is_new(self, step: int) -> bool:
        """Whether the tracker has no samples of a step from an earlier start."""
        return step > self._samples

    def log(self, data: Any, step: int) -> None:
        """Log what verl logs, unless it is there."""
        if step > self._figures:
            self._logger.log(data=data, step=step)
            _keep(self._folder, self._name, step=step)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._logger, name)


def new_at(tracking: Any, step: int) -> list[str]:
    """Names of the trackers (of `continued`) that have no samples of a step."""
    return [name for name, logger in tracking.logger.items() if logger.is_new(step)]


def _kept(folder: Path, name: str) -> dict[str, Any]:
    file = folder / FILE
    kept = json.loads(file.read_bytes()) if file.exists() else {}
    return dict(kept.get(name, {}))


def _keep(folder: Path, name: str, **values: Any) -> None:
    file = folder / FILE
    kept = json.loads(file.read_bytes()) if file.exists() else {}
    kept[name] = {**kept.get(name, {}), **values}
    with whole_file(file) as part:
        part.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
