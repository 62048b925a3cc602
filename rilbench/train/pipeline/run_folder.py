"""One run on disk.

A run's folder has ``recipe.yaml`` (resolved), ``collection/`` (saved responses), ``data/`` (what
verl reads), ``sft/``, ``discriminator/``, ``steps/`` (the trainer's checkpoints),
``metrics.jsonl``, ``cost.json``, ``rollouts/``, ``logs/``, ``manifests.json`` (where questions that
were built are from), ``changes.jsonl`` (what a ``--resume`` changed) and, when it is finished,
``checkpoint/``: an ordinary Hugging Face folder; and ``adapter/``, peft's, if it was asked for.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from rilbench.config import Recipe, read_recipe
from rilbench.config.schema import may_change
from rilbench.data.manifest import (
    FILE,
    SETTINGS,
    find_manifests,
    keep_manifests,
    with_manifests,
)
from rilbench.errors import UserError
from rilbench.ledger.records import utc_now
from rilbench.paths import whole_file
from rilbench.train.nan_guard import STOPPED
from rilbench.train.step_checkpoint import OLD, steps_in
from rilbench.train.trackers import LOG

EXPORTED = "export.json"
"""File of ``checkpoint/`` that says which step it is, and of how many."""

RESHARDED = ".resharded"
"""Folder in ``steps/`` with a step that was cut for another number of devices."""


@dataclass(frozen=True)
class Run:
    """One run on disk; before `open_run` its folder need not exist."""

    folder: Path
    recipe: Recipe
    full_length: bool = False
    """Every response is as long as it may be, as a rehearsal asks for."""

    @property
    def checkpoint(self) -> Path:
        """The exported student."""
        return self.folder / "checkpoint"

    @property
    def adapter(self) -> Path:
        """The LoRA adapter that `checkpoint` has merged, with ``schedule.export_adapter=keep``."""
        return self.folder / "adapter"

    @property
    def sft_checkpoint(self) -> Path:
        """The student after SFT."""
        return self.folder / "sft" / "checkpoint"

    @property
    def collection(self) -> Path:
        """Folder of the saved responses: the run's, or one that several runs share."""
        shared = self.recipe.collection.folder
        return Path(shared) if shared else self.folder / "collection"

    @property
    def finished(self) -> bool:
        """Whether the last stage is done, as the recipe asks for it now."""
        if not (self.checkpoint / "rilbench.json").exists():
            return False
        if self.recipe.keeps_adapter and not self.adapter.exists():
            return False
        file, schedule = self.checkpoint / EXPORTED, self.recipe.schedule
        made = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        asked = {"steps": schedule.steps, "choice": schedule.export}
        return asked.items() <= (asked | made).items()


def open_run(folder: Path, recipe: Recipe, *, resume: bool) -> Run:
    """Create a run's folder, or open an existing one.

    The recipe gets the digests of its questions' manifests, and the folder the manifests. With
    ``resume``, settings that `may_change` replace those of the run, which is recorded in
    ``changes.jsonl`` with the step.

    Raises:
        UserError: ``resume`` without a folder; an unfinished run without ``resume``; the folder
            holds a run of another recipe or of questions that were built otherwise; or another
            process is training it.
    """
    recipe = with_manifests(recipe)
    if not folder.exists():
        if resume:
            raise UserError(
                f"{folder} does not exist, so there is nothing to resume; leave out --resume to "
                "start it"
            )
        part = folder.with_name(f".{folder.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        (part / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
        keep_manifests(part, find_manifests(recipe))
        part.rename(folder)
        return Run(folder, recipe)
    run = Run(folder, read_recipe(folder / "recipe.yaml"))
    changes = changed_settings(run.recipe, recipe)
    _check_data(folder, changes)
    if fixed := [key for key in changes if not may_change(key)]:
        shown = [f"{key}={changes[key]['from']} there, {changes[key]['to']} asked" for key in fixed]
        more = [f"and {len(fixed) - 3} more"] if len(fixed) > 3 else []
        raise UserError(
            f"{folder} was started with another recipe ({'; '.join(shown[:3] + more)}); use the "
            "same settings, or another --run"
        )
    if not resume and not run.finished:
        raise UserError(f"{folder} exists and is not finished; continue it with --resume")
    # What is asked for now may be more than what was done: an adapter beside the checkpoint.
    if Run(folder, recipe).finished and run.recipe.fingerprint == recipe.fingerprint:
        return run
    if not resume:
        shown = [f"{key}={change['from']}" for key, change in changes.items()]
        raise UserError(
            f"{folder} is finished with {', '.join(shown)}; continue it with --resume, or use "
            "another --run"
        )
    return _changed(run, recipe, changes) if changes else run


def _check_data(folder: Path, changes: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse questions of other manifests, in files of the same names."""
    for name, setting in SETTINGS.items():
        change = changes.get(f"data.manifests.{name}")
        if change and setting not in changes:
            raise UserError(
                f"{folder} was started with the manifest {change['from'] or 'none'} beside "
                f"{setting}, and now it is {change['to'] or 'none'}; build the questions as they "
                f"were ({folder / FILE} has their sources), or use another --run"
            )


def changed_settings(before: Recipe, now: Recipe) -> dict[str, dict[str, Any]]:
    """The settings that differ, by dotted key: the value ``from`` before and ``to`` now."""
    old, new = _flat(before.as_dict()), _flat(now.as_dict())
    return {
        key: {"from": old.get(key), "to": new.get(key)}
        for key in old | new
        if old.get(key) != new.get(key)
    }


def _changed(run: Run, recipe: Recipe, changes: Mapping[str, Any]) -> Run:
    """Give a run the settings that changed, and record them."""
    step = last_step(run)
    if recipe.schedule.steps < step:
        raise UserError(
            f"{run.folder} has done {step} steps and schedule.steps={recipe.schedule.steps} is "
            f"less; set schedule.steps={step} or more"
        )
    with only_process(run.folder):
        line = {"time": utc_now(), "step": step, "changed": changes}
        with (run.folder / "changes.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        with whole_file(run.folder / "recipe.yaml") as part:
            part.write_text(recipe.to_yaml(), encoding="utf-8")
    return Run(run.folder, recipe)


@contextmanager
def only_process(folder: Path) -> Iterator[None]:
    """Keep other processes away from a run during the body.

    Raises:
        UserError: another process is training it.
    """
    try:
        lock = FileLock(folder / ".lock").acquire(timeout=0)
    except Timeout as error:
        raise UserError(
            f"another process is training {folder}; wait until it ends, or stop it"
        ) from error
    with lock:
        yield


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings under dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def last_step(run: Run) -> int:
    """The last step with a complete checkpoint; 0 without any."""
    return max(saved_steps(run), default=0)


def saved_steps(run: Run) -> dict[int, Path]:
    """The folders of the steps that were saved completely, discriminator included, in order."""
    return steps_in(run.folder / "steps", discriminator=run.recipe.method_spec.uses_discriminator)


def forget_after(folder: Path, step: int) -> None:
    """Delete what the steps after ``step`` left, which will be done again."""
    steps = folder / "steps"
    for left in (steps / ".partial", steps / RESHARDED, *steps.glob(f"{OLD}*")):
        shutil.rmtree(left, ignore_errors=True)  # they may fill the disk
    for record in (folder / "rollouts").glob("step_*.jsonl"):
        if int(record.stem.rsplit("_", 1)[1]) > step:
            record.unlink()
    if not (folder / "discriminator" / "done").exists():
        (folder / "discriminator.jsonl").unlink(missing_ok=True)
    for path in (folder / "metrics.jsonl", folder / LOG):
        if path.exists():
            keep_lines(path, step)


def keep_lines(path: Path, step: int) -> None:
    """Keep a JSON-lines file's lines up to a step, without a last line that a kill cut short."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
    with whole_file(path) as part:
        part.write_text("".join(kept), encoding="utf-8")


def stop_reason(run: Run) -> str | None:
    """The line in which the trainer says why it stopped itself; None if it did not."""
    path = run.folder / STOPPED
    return path.read_text(encoding="utf-8").strip() if path.exists() else None
