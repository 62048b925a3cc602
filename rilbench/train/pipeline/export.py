"""The export stage: the chosen step's weights as an ordinary checkpoint."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

from rilbench.checkpoint import Checkpoint, Labels, inspect_checkpoint, write_labels
from rilbench.errors import UserError
from rilbench.train.pipeline.run_folder import EXPORTED, Run, saved_steps
from rilbench.train.pipeline.stage import Progress, running

log = logging.getLogger(__name__)


def export(run: Run, student: Checkpoint, progress: Progress) -> Path:
    """Put the chosen step's weights in ``checkpoint/``, whole or not at all.

    A LoRA adapter is merged, and kept in ``adapter/`` too where the recipe says so.

    ``student`` is the one that the recipe names, before SFT; its dtype is kept.
    """
    from rilbench.train.verl.saved_weights import dtype_of, write_adapter, write_model

    recipe, part = run.recipe, run.folder / ".checkpoint.part"
    with running("export", progress):
        if recipe.method_spec.is_rl:
            step, score = chosen_step(run)
        else:
            step, score = recipe.sft.steps, None
        log.info("exporting step %d (%s, dev accuracy %s)", step, recipe.schedule.export, score)
        shutil.rmtree(part, ignore_errors=True)
        if recipe.method_spec.is_rl:
            saved = run.folder / "steps" / f"global_step_{step}" / "actor"
            base = run.sft_checkpoint if recipe.sft.steps else student.path
            write_model(saved, part, dtype_of(student.path), base=base)
            if recipe.keeps_adapter:
                shutil.rmtree(run.adapter, ignore_errors=True)
                write_adapter(saved, run.adapter, base=base)
        elif recipe.keeps_adapter and not run.adapter.exists():
            raise UserError(
                "the adapter of SFT was not kept, and its steps are gone; delete "
                f"{run.folder / 'sft'} to train it again, or leave out schedule.export_adapter=keep"
            )
        else:
            shutil.copytree(run.sft_checkpoint, part)
        chosen = {"step": step, "choice": recipe.schedule.export, "dev_accuracy": score}
        chosen["steps"] = recipe.schedule.steps
        (part / EXPORTED).write_text(json.dumps(chosen) + "\n", encoding="utf-8")
        labels = Labels(
            student=recipe.student.name,
            method=recipe.method_label,
            teacher=recipe.teacher_label,
            run=run.folder.name,
            start_fingerprint=student.fingerprint,
            recipe_fingerprint=recipe.fingerprint,
            family=recipe.family,
            seed=recipe.seed,
        )
        write_labels(part, labels)
        inspect_checkpoint(part)
        shutil.rmtree(run.checkpoint, ignore_errors=True)
        part.rename(run.checkpoint)
    return run.checkpoint


def chosen_step(run: Run) -> tuple[int, float | None]:
    """The step to export and its dev accuracy: the last saved step, or the best on the dev split.

    Raises:
        UserError: the best is wanted, and no saved step has a score.
    """
    lines = (run.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    scores = {line["step"]: line.get("dev_accuracy") for line in map(json.loads, lines)}
    steps = list(saved_steps(run))
    if run.recipe.schedule.export == "last":
        return steps[-1], scores.get(steps[-1])
    scored = [(scores[step], step) for step in steps if scores.get(step) is not None]
    if not scored:
        raise UserError(
            "no saved step was scored on the dev split; run again with --resume --set "
            "schedule.export=last"
        )
    score, step = max(scored)
    return step, score
