"""The export stage: the chosen step's weights as an ordinary checkpoint."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from rilbench.checkpoint import Checkpoint, Labels, inspect_checkpoint, write_labels
from rilbench.errors import UserError
from rilbench.train.pipeline.run_folder import Run, View, whole_steps


def export(run: Run, student: Checkpoint, view: View) -> Path:
    """Put the chosen step's weights in ``checkpoint/``, whole or not at all.

    Args:
        run: the run.
        student: what the recipe names, before SFT.
        view: told of the stage.
    """
    view.stage("export", "running")
    if run.recipe.method_spec.is_rl:
        step, score = chosen_step(run)
        source = run.folder / "steps" / f"global_step_{step}" / "actor" / "huggingface"
    else:
        step, score = run.recipe.sft.steps, None
        source = run.folder / "sft" / "checkpoint"
    part = run.folder / ".checkpoint.part"
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(source, part)
    chosen = {"step": step, "choice": run.recipe.schedule.export, "dev_accuracy": score}
    (part / "export.json").write_text(json.dumps(chosen) + "\n", encoding="utf-8")
    labels = Labels(
        student=run.recipe.student.name,
        method=run.recipe.method_label,
        teacher=run.recipe.teacher_label,
        run=run.folder.name,
        start_fingerprint=student.fingerprint,
        recipe_fingerprint=run.recipe.fingerprint,
        family=run.recipe.family,
        seed=run.recipe.seed,
    )
    write_labels(part, labels)
    inspect_checkpoint(part)
    shutil.rmtree(run.checkpoint, ignore_errors=True)
    part.rename(run.checkpoint)
    view.stage("export", "done")
    return run.checkpoint


def chosen_step(run: Run) -> tuple[int, float | None]:
    """The last saved step, or the saved step with the best score on the dev split."""
    lines = (run.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    scores = {m["step"]: m.get("dev_accuracy") for m in map(json.loads, lines)}
    steps = list(whole_steps(run))
    if run.recipe.schedule.export == "last":
        return steps[-1], scores.get(steps[-1])
    scored = [step for step in steps if scores.get(step) is not None]
    if not scored:
        raise UserError(
            "no saved step was scored on the dev split; make schedule.save_every a multiple of "
            "schedule.eval_every"
        )
    best = max(scored, key=lambda step: (scores[step], step))
    return best, scores[best]
