"""One run on disk: its folder, what is done, and what is forgotten when a step is done again.

A run lives in one folder: ``recipe.yaml`` (resolved), ``collection/``, ``data/`` (what verl reads),
``sft/``, ``discriminator/``, ``steps/`` (the trainer's own checkpoints), ``metrics.jsonl``,
``cost.json``, ``rollouts/``, ``logs/`` and, when it is finished, ``checkpoint/``: an ordinary
Hugging Face folder.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rilbench.config import Recipe, read_recipe
from rilbench.errors import UserError
from rilbench.train.nan_guard import STOPPED
from rilbench.train.step_checkpoint import ranks_of, steps_in


class View(Protocol):
    """What shows progress to a user; see `rilbench.train.pipeline.progress`."""

    def stage(self, name: str, state: str) -> None:
        """A stage starts (``running``), is ``done`` or was found done (``skipped``)."""

    def answers(self, model: str, done: int, total: int) -> None:
        """Responses collected so far."""

    def note(self, text: str) -> None:
        """What the user should know before more is spent, in one line."""

    def line(self, kind: str, values: Mapping[str, Any]) -> None:
        """A line of ``metrics.jsonl`` (``ril``), or of ``discriminator``'s or ``sft``'s file."""


@dataclass(frozen=True)
class Run:
    """One run on disk."""

    folder: Path
    recipe: Recipe

    @property
    def checkpoint(self) -> Path:
        """The exported student."""
        return self.folder / "checkpoint"

    @property
    def collection(self) -> Path:
        """The saved responses: the run's own folder, or one that runs share."""
        shared = self.recipe.collection.folder
        return Path(shared) if shared else self.folder / "collection"

    @property
    def finished(self) -> bool:
        """Whether the last stage is done."""
        return (self.checkpoint / "rilbench.json").exists()


def open_run(folder: Path, recipe: Recipe, *, resume: bool) -> Run:
    """Create a run's folder, or open it again.

    Raises:
        UserError: it exists and is not finished, without ``resume``; or it belongs to another
            recipe.
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
    there = read_recipe(file)
    run = Run(folder, there)
    if there.fingerprint != recipe.fingerprint:
        raise UserError(
            f"{folder} holds a run of another recipe ({_differences(there, recipe)}); set it as it "
            "was, or choose another name with --run"
        )
    if not run.finished and not resume:
        raise UserError(f"{folder} exists and is not finished; continue it with --resume")
    if not run.finished and there != recipe:  # what does not make it another run: where Ray is
        part = folder / ".recipe.yaml.part"
        part.write_text(recipe.to_yaml(), encoding="utf-8")
        part.replace(file)
        run = Run(folder, recipe)
    return run


def _differences(there: Recipe, asked: Recipe) -> str:
    """The first few settings that differ, as they are there and as they were asked for."""
    old, new = _flat(there.as_dict()), _flat(asked.as_dict())
    names = [key for key in old if old[key] != new.get(key)] + [k for k in new if k not in old]
    shown = [f"{key}={old.get(key)} there, {new.get(key)} asked for" for key in names[:3]]
    return "; ".join([*shown, *([f"and {len(names) - 3} more"] if len(names) > 3 else [])])


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def last_step(run: Run) -> int:
    """The last step with a whole checkpoint of the trainer; 0 when there is none.

    Raises:
        UserError: another number of devices wrote it than the recipe has.
    """
    step = max(whole_steps(run), default=0)
    if step:
        hardware = run.recipe.hardware
        ranks, wanted = (
            ranks_of(whole_steps(run)[step] / "actor"),
            hardware.nodes * hardware.devices,
        )
        if ranks != wanted:
            raise UserError(
                f"step {step} of {run.folder} was saved by {ranks} devices and only as many can "
                f"read it, not {wanted}; set hardware.nodes and hardware.devices as they were, or "
                f"start another run from its weights: student.model={run.folder}/steps/"
                f"global_step_{step}/actor/huggingface"
            )
    return step


def whole_steps(run: Run) -> dict[int, Path]:
    """The steps that were saved whole, discriminator included, in order."""
    return steps_in(run.folder / "steps", discriminator=run.recipe.method_spec.uses_discriminator)


def forget_after(folder: Path, step: int) -> None:
    """Drop what was written of steps that will be done again."""
    for record in (folder / "rollouts").glob("step_*.jsonl"):
        if int(record.stem.rsplit("_", 1)[1]) > step:
            record.unlink()
    if not (folder / "discriminator" / "done").exists():
        (folder / "discriminator.jsonl").unlink(missing_ok=True)
    path = folder / "metrics.jsonl"
    if path.exists():
        keep_lines(path, step)


def keep_lines(path: Path, step: int) -> None:
    """Keep the lines of a JSON-lines file up to a step; a line that a kill cut short goes too."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
    part = path.with_suffix(".part")
    part.write_text("".join(kept), encoding="utf-8")
    part.replace(path)


def stop_reason(run: Run) -> str | None:
    """Why the trainer stopped itself, in one line; None where it did not."""
    path = run.folder / STOPPED
    return path.read_text(encoding="utf-8").strip() if path.exists() else None
