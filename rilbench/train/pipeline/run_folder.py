"""One run on disk.

A run's folder has ``recipe.yaml`` (resolved), ``collection/`` (saved responses), ``data/`` (what
verl reads), ``sft/``, ``discriminator/``, ``steps/`` (the trainer's checkpoints),
``metrics.jsonl``, ``cost.json``, ``rollouts/``, ``logs/`` and, when it is finished,
``checkpoint/``: an ordinary Hugging Face folder.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rilbench.config import Recipe, read_recipe
from rilbench.errors import UserError
from rilbench.train.nan_guard import STOPPED
from rilbench.train.step_checkpoint import ranks_of, steps_in


@dataclass(frozen=True)
class Run:
    """One run on disk; before `open_run` its folder need not exist."""

    folder: Path
    recipe: Recipe

    @property
    def checkpoint(self) -> Path:
        """The exported student."""
        return self.folder / "checkpoint"

    @property
    def collection(self) -> Path:
        """Folder of the saved responses: the run's, or one that several runs share."""
        shared = self.recipe.collection.folder
        return Path(shared) if shared else self.folder / "collection"

    @property
    def finished(self) -> bool:
        """Whether the last stage is done."""
        return (self.checkpoint / "rilbench.json").exists()


def open_run(folder: Path, recipe: Recipe, *, resume: bool) -> Run:
    """Create a run's folder, or open an existing one.

    Raises:
        UserError: ``resume`` without a folder; an unfinished run without ``resume``; or the folder
            holds a run of another recipe.
    """
    file = folder / "recipe.yaml"
    if not folder.exists():
        if resume:
            raise UserError(f"{folder} does not exist, so there is nothing to resume")
        part = folder.with_name(f".{folder.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        (part / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
        part.rename(folder)
        return Run(folder, recipe)
    saved = read_recipe(file)
    run = Run(folder, saved)
    if saved.fingerprint != recipe.fingerprint:
        old, new = _flat(saved.as_dict()), _flat(recipe.as_dict())
        changed = [key for key in {**old, **new} if old.get(key) != new.get(key)]
        shown = [f"{key}={old.get(key)} there, {new.get(key)} asked for" for key in changed[:3]]
        shown += [f"and {len(changed) - 3} more"] if len(changed) > 3 else []
        raise UserError(
            f"{folder} was started with another recipe ({'; '.join(shown)}); use the same "
            "settings, or another --run"
        )
    if not run.finished and not resume:
        raise UserError(f"{folder} exists and is not finished; continue it with --resume")
    if not run.finished and saved != recipe:
        # Equal fingerprints: only how it fits the hardware changed, such as where Ray is.
        part = folder / ".recipe.yaml.part"
        part.write_text(recipe.to_yaml(), encoding="utf-8")
        part.replace(file)
        run = Run(folder, recipe)
    return run


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
    """The last step with a complete checkpoint; 0 without any.

    Raises:
        UserError: the checkpoint was written by another number of devices than the recipe has.
    """
    steps = saved_steps(run)
    if not steps:
        return 0
    step, folder = max(steps.items())
    ranks, devices = ranks_of(folder / "actor"), run.recipe.hardware.ranks
    if ranks != devices:
        raise UserError(
            f"step {step} of {run.folder} was saved by {ranks} devices and only as many can read "
            f"it, not {devices}; set hardware.nodes and hardware.devices as they were, or start "
            "another run from its weights: python -m verl.model_merger merge --backend fsdp "
            f"--local_dir {folder}/actor --target_dir NEW, then student.model=NEW"
        )
    return step


def saved_steps(run: Run) -> dict[int, Path]:
    """The folders of the steps that were saved completely, discriminator included, in order."""
    return steps_in(run.folder / "steps", discriminator=run.recipe.method_spec.uses_discriminator)


def forget_after(folder: Path, step: int) -> None:
    """Delete the records of the steps after ``step``, which will be done again."""
    for record in (folder / "rollouts").glob("step_*.jsonl"):
        if int(record.stem.rsplit("_", 1)[1]) > step:
            record.unlink()
    if not (folder / "discriminator" / "done").exists():
        (folder / "discriminator.jsonl").unlink(missing_ok=True)
    path = folder / "metrics.jsonl"
    if path.exists():
        keep_lines(path, step)


def keep_lines(path: Path, step: int) -> None:
    """Keep a JSON-lines file's lines up to a step, without a last line that a kill cut short."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
    part = path.with_suffix(".part")
    part.write_text("".join(kept), encoding="utf-8")
    part.replace(path)


def stop_reason(run: Run) -> str | None:
    """The line in which the trainer says why it stopped itself; None if it did not."""
    path = run.folder / STOPPED
    return path.read_text(encoding="utf-8").strip() if path.exists() else None
