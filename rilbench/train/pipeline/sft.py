"""The SFT stage: supervised fine-tuning by verl, on saved teacher responses or the user's data."""

from __future__ import annotations

import logging
import random
import shutil
import sys
import time
from functools import partial
from typing import Any

from rilbench.checkpoint import Checkpoint, Labels, inspect_checkpoint, write_labels
from rilbench.data.question import StoredQuestion
from rilbench.data.row_files import mapped_column, row_file
from rilbench.errors import UserError
from rilbench.processes import THREADS, start_guarded, stop_group, tree_cpu_seconds
from rilbench.serving import log_end
from rilbench.train.pipeline.cost import RunCost, metered
from rilbench.train.pipeline.preflight import Inputs
from rilbench.train.pipeline.prepare_data import (
    pixel_limits,
    store_responses,
    verl_images,
    verl_images_type,
)
from rilbench.train.pipeline.run_folder import Run, stop_reason
from rilbench.train.pipeline.stage import Progress, running, skipped
from rilbench.train.pipeline.trainer_process import Tail
from rilbench.train.seeding import seed_of
from rilbench.train.step_checkpoint import ranks_of

log = logging.getLogger(__name__)


def fine_tune(run: Run, inputs: Inputs, cost: RunCost, progress: Progress) -> Checkpoint:
    """Run the stage unless it was done before, and return the student after it.

    Raises:
        UserError: too few examples, or the training failed; completed steps are kept.
    """
    folder = run.folder / "sft"
    done = run.sft_checkpoint
    if done.exists():
        skipped("sft", progress)
        return inspect_checkpoint(done)
    from rilbench.train.verl.saved_weights import dtype_of, write_adapter, write_model

    with running("sft", progress):
        write_examples(run, inputs)
        try:
            _run_verl(run, inputs.student, cost, progress)
        finally:
            cost.count_tokens()
        part = folder / ".checkpoint.part"
        shutil.rmtree(part, ignore_errors=True)
        last = folder / "steps" / f"global_step_{run.recipe.sft.steps}"
        base = inputs.student.path
        write_model(last, part, dtype_of(base), base=base)
        if run.recipe.keeps_adapter and not run.recipe.method_spec.is_rl:
            shutil.rmtree(run.adapter, ignore_errors=True)
            write_adapter(last, run.adapter, base=base)
        labels = Labels(
            student=run.recipe.student.name,
            method="sft",
            teacher=run.recipe.teacher_label,
            run=run.folder.name,
            start_fingerprint=inputs.student.fingerprint,
        )
        write_labels(part, labels)
        part.rename(done)
        shutil.rmtree(folder / "steps")
    return inspect_checkpoint(done)


def write_examples(run: Run, inputs: Inputs) -> None:
    """Write ``sft/train.parquet`` in the format of verl's multi-turn SFT data set.

    As many examples as the steps need, or all if those are fewer; they name their pictures.
    """
    import pyarrow as pa

    recipe = run.recipe
    batch, steps = recipe.sft.batch_size, recipe.sft.steps
    examples: list[tuple[StoredQuestion, Any]]  # and what stands for the response
    if recipe.sft.data:
        responses: Any = None
        examples = [(question, question.answer) for question in inputs.sft_questions]
    else:
        saved = store_responses(run, inputs.collections, inputs.questions)
        responses = mapped_column(run.folder / "data" / "responses.arrow")
        examples = [
            (question, number)
            for place, question in enumerate(inputs.questions)
            for numbers in saved.of_question(place, recipe.teachers_of(question.source)).values()
            for number in numbers
        ]
    if len(examples) < batch:
        raise UserError(
            f"{len(examples)} examples to learn are fewer than one step's {batch}; start another "
            f"--run with sft.batch_size={len(examples)} or less, and "
            f"collection.folder={run.collection} to keep the responses"
        )
    random.Random(seed_of("sft", recipe.seed)).shuffle(examples)
    limits = pixel_limits(inputs.student.path)
    message = pa.struct({"role": pa.string(), "content": pa.string()})
    schema = pa.schema({"messages": pa.list_(message), "images": verl_images_type(limits)})
    with row_file(run.folder / "sft" / "train.parquet", schema) as writer:
        for question, response in examples[: steps * batch]:
            text = response if responses is None else responses[response]
            messages = [
                {"role": "user", "content": question.marked},
                {"role": "assistant", "content": text},
            ]
            writer.write({"messages": messages, "images": verl_images(question, limits)})
        log.info("%d of %d examples for %d steps", writer.rows, len(examples), steps)


def _run_verl(run: Run, student: Checkpoint, cost: RunCost, progress: Progress) -> None:
    """Run verl's trainer in processes of its own, from its last saved step."""
    output = run.folder / "logs" / "sft.log"
    ranks = run.recipe.hardware.devices
    begun = max((ranks_of(step) for step in (run.folder / "sft" / "steps").glob("*")), default=0)
    if begun not in (0, ranks):
        raise UserError(
            f"SFT was begun on {begun} devices; finish it with --resume --set "
            f"hardware.devices={begun} (what follows goes on with any number), or delete "
            f"{run.folder / 'sft' / 'steps'} to do it again"
        )
    environment = {**THREADS, "PYTHONUNBUFFERED": "1"}
    if run.recipe.hardware.device == "cpu":
        environment |= {"VERL_PLATFORM": "cpu", "HF_HUB_OFFLINE": "1"}
    if ranks == 1:  # what torchrun would set; without it the log ends with our own error
        launcher = []
        environment |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
        environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    else:
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    command = [sys.executable, *launcher, "-m", "rilbench.train.pipeline.sft_main"]
    command += [str(run.folder.resolve()), str(student.path)]
    metrics = Tail(run.folder / "sft" / "metrics.jsonl")

    def show_new_steps() -> None:
        for line in metrics.new_lines():
            progress.line("sft", {**line, "of": run.recipe.sft.steps})

    process = start_guarded(command, output, environment, keys=False)
    try:
        spent = partial(tree_cpu_seconds, process.pid)
        with metered(partial(cost.book, "sft"), spent, from_start=True):
            while process.poll() is None:
                show_new_steps()
                time.sleep(0.2)
        show_new_steps()
    finally:
        stop_group(process)
    if process.returncode:
        raise UserError(
            f"SFT stopped (status {process.returncode}): {stop_reason(run) or log_end(output)}. "
            "Fix the cause, then re-run with --resume."
        )
