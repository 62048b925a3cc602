"""The trackers of ``--log``: which there are, and whether package and login are there."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from rilbench.errors import UserError


def check_trackers(trackers: Sequence[str]) -> None:
    """Check that trackers are known and installed, and that their servers let us in.

    Raises:
        UserError: with the known ones, or what installs it or logs in.
    """
    check_tracker_names(trackers)
    for name in trackers:
        tracker = TRACKERS[name]
        if tracker.module and find_spec(tracker.module) is None:
            raise _not_installed(name, tracker.package or name)
        tracker.log_in()


def check_tracker_names(trackers: Sequence[str]) -> None:
    """Refuse names that are no trackers'.

    Raises:
        UserError: with the known ones, or why one of verl's is not offered.
    """
    for name in trackers:
        if name in _NOT_OFFERED:
            raise UserError(f"--log {name} is not offered: {_NOT_OFFERED[name]}")
        if name not in TRACKERS:
            raise UserError(f"--log {name} is not known; use one of {', '.join(TRACKERS)}")


@dataclass(frozen=True)
class Tracker:
    """What one of verl's trackers needs."""

    module: str = ""
    """That it imports; "": nothing beside verl."""
    package: str = ""
    """That installs it, if the module's name does not."""
    log_in: Callable[[], None] = lambda: None
    """Raises a `UserError` where its server would refuse."""


def _not_installed(name: str, package: str) -> UserError:
    return UserError(f"--log {name} needs a package: uv pip install {package}")


def _no_login(name: str, remedy: str, error: object = "") -> UserError:
    why = " ".join(str(error).split())[:200]
    return UserError(f"--log {name} has no login; {remedy}{f' ({why})' if why else ''}")


def _to_wandb() -> None:
    remedy = "run: wandb login, or set WANDB_API_KEY, or WANDB_MODE=offline"
    if os.environ.get("WANDB_MODE") in ("offline", "disabled"):
        return
    import wandb

    try:
        found = wandb.login(prompt=False, verify=True)
    except wandb.Error as error:
        raise _no_login("wandb", remedy, error) from error
    if not found:
        raise _no_login("wandb", remedy)


def _to_swanlab() -> None:
    mode = os.environ.get("SWANLAB_MODE", "cloud")
    if mode == "local" and find_spec("swanboard") is None:
        raise _not_installed("swanlab with SWANLAB_MODE=local", "'swanlab[dashboard]'")
    if mode not in ("cloud", "online"):
        return
    import swanlab

    try:
        swanlab.login()
    except Exception as error:  # its classes changed between its versions
        remedy = "run: swanlab login, or set SWANLAB_API_KEY, or SWANLAB_MODE=offline"
        raise _no_login("swanlab", remedy, error) from error


def _to_mlflow() -> None:
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # not seven, each longer
    import mlflow

    server = mlflow.get_tracking_uri()
    if server.partition(":")[0] not in ("http", "https", "databricks", "databricks-uc"):
        return
    try:
        mlflow.MlflowClient().search_experiments(max_results=1)
    except Exception as error:  # requests' or its own
        remedy = (
            f"MLFLOW_TRACKING_URI={server} gives no list of experiments: correct it, or its login "
            "(MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN), "
            "or leave it out to write to mlflow.db"
        )
        raise _no_login("mlflow", remedy, error) from error


def _to_trackio() -> None:
    space = os.environ.get("TRACKIO_SPACE_ID")
    if not space:
        return
    from huggingface_hub import whoami

    try:
        whoami()
    except Exception as error:  # httpx' or its own
        remedy = f"TRACKIO_SPACE_ID={space} is on the hub: run: hf auth login, or set HF_TOKEN"
        raise _no_login("trackio", remedy, error) from error


def _to_clearml() -> None:
    if os.environ.get("CLEARML_OFFLINE_MODE", "0").lower() not in ("", "0", "false", "no"):
        return
    from clearml.backend_api import Session

    try:
        Session(http_retries_config={"total": 2, "connect": 2, "read": 2, "backoff_factor": 0.5})
    except Exception as error:  # LoginError is one, MissingConfigError a ValueError
        remedy = (
            "run: clearml-init, or set CLEARML_API_HOST, CLEARML_API_ACCESS_KEY and "
            "CLEARML_API_SECRET_KEY, or CLEARML_OFFLINE_MODE=1"
        )
        raise _no_login("clearml", remedy, error) from error


TRACKERS = {
    "tensorboard": Tracker("tensorboard"),
    "wandb": Tracker("wandb", log_in=_to_wandb),
    "swanlab": Tracker("swanlab", log_in=_to_swanlab),
    "mlflow": Tracker("mlflow", log_in=_to_mlflow),
    "trackio": Tracker("trackio", log_in=_to_trackio),
    "clearml": Tracker("clearml", log_in=_to_clearml),
    "file": Tracker(),
    "console": Tracker(),
}
"""Trackers of verl that ``--log`` offers."""

_NOT_OFFERED = {
    "vemlp_wandb": "Volcengine's package is in no public index, so that it was never tried; use "
    "wandb",
    "rl_insight": "it watches verl's processes and keeps no runs; use another",
}
"""Further ones of verl, and why not."""
