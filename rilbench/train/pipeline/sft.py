"""The SFT stage: supervised fine-tuning on saved teacher rows or on the user's data, by verl."""

from __future__ import annotations

import random
import shutil
import sys
import time
from collections.abc import Callable
from typing import Any

from rilbench.checkpoint import Checkpoint, Labels, inspect_checkpoint, write_labels
from rilbench.data.question_files import Question, read_questions
from rilbench.errors import UserError
from rilbench.paths import locate
from rilbench.processes import THREADS, start_guarded, stop_group, tree_cpu_seconds
from rilbench.serving import log_end
from rilbench.train.pipeline.collect_stage import Wanted
from rilbench.train.pipeline.cost import CpuMeter
from rilbench.train.pipeline.prepare_data import pictures, pixel_limits, saved_rows
from rilbench.train.pipeline.run_folder import Run, View, stop_reason
from rilbench.train.seeding import seed_of


def fine_tune(
    run: Run,
    student: Checkpoint,
    wanted: list[Wanted],
    questions: list[Question],
    view: View,
    watch: Callable[[], None],
    book: Callable[[float], None],
) -> Checkpoint:
    """Do the stage, or find it done, and return the student after it.

    Args:
        run: the run.
        student: where it starts.
        wanted: the teachers' collections.
        questions: what they answered.
        view: told of the stage.
        watch: called several times a second while it runs.
        book: called with the CPU seconds that were spent since the last call.

    Raises:
        UserError: too few rows, or the training failed; what was done is kept.
    """
    done = run.folder / "sft" / "checkpoint"
    if done.exists():
        view.stage("sft", "skipped")
        return inspect_checkpoint(done)
    view.stage("sft", "running")
    rows = _rows(run, wanted, questions)
    if len(rows) < run.recipe.sft.batch_size:
        raise UserError(
            f"{len(rows)} rows to learn are fewer than one step's {run.recipe.sft.batch_size}; "
            f"set sft.batch_size={len(rows)} or less"
        )
    _write_rows(run, student, rows)
    _run_verl(run, student, watch, book)
    steps = run.folder / "sft" / "steps"
    part = run.folder / "sft" / ".checkpoint.part"
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(steps / f"global_step_{run.recipe.sft.steps}" / "huggingface", part)
    labels = Labels(
        student=run.recipe.student.name,
        method="sft",
        teacher=run.recipe.teacher_label,
        run=run.folder.name,
        start_fingerprint=student.fingerprint,
    )
    write_labels(part, labels)
    part.rename(done)
    shutil.rmtree(steps)
    view.stage("sft", "done")
    return inspect_checkpoint(done)


def _rows(run: Run, wanted: list[Wanted], questions: list[Question]) -> list[tuple[Question, str]]:
    """Questions and what to say, in an order that the run's seed decides."""
    if run.recipe.sft.data:
        given = read_questions(locate(run.recipe.sft.data))
        rows = [(question, question.answer) for question in given]
    else:
        saved = saved_rows(run, wanted, questions)
        rows = [(q, row["response"]) for q in questions for row in saved[q.id]]
    random.Random(seed_of("sft", run.recipe.seed)).shuffle(rows)
    return rows


def _write_rows(run: Run, student: Checkpoint, rows: list[tuple[Question, str]]) -> None:
    """The format of verl's multi-turn SFT data set."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    limits = pixel_limits(student.path)
    table: list[dict[str, Any]] = [
        {
            "messages": [
                {"role": "user", "content": q.marked},
                {"role": "assistant", "content": response},
            ],
            "images": pictures(q, limits),
        }
        for q, response in rows
    ]
    path = run.folder / "sft" / "train.parquet"
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(table), path)


def _run_verl(
    run: Run, student: Checkpoint, watch: Callable[[], None], book: Callable[[float], None]
) -> None:
    log = run.folder / "logs" / "sft.log"
    environment = {**THREADS, "PYTHONUNBUFFERED": "1"}
    ranks = run.recipe.hardware.devices
    if run.recipe.hardware.device == "cpu":
        environment |= {"VERL_PLATFORM": "cpu", "HF_HUB_OFFLINE": "1"}
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    if ranks == 1:  # what torchrun would say; without it the end of the log is our own error
        launcher = []
        environment |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
        environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    module = [
        "-m",
        "rilbench.train.pipeline.sft_main",
        str(run.folder.resolve()),
        str(student.path),
    ]
    process = start_guarded([sys.executable, *launcher, *module], log, environment, keys=False)
    try:
        with CpuMeter(book, lambda: tree_cpu_seconds(process.pid), from_start=True):
            while process.poll() is None:
                watch()
                time.sleep(0.2)
        watch()
    finally:
        stop_group(process)
    if process.returncode:
        raise UserError(
            f"the SFT stopped (status {process.returncode}): {stop_reason(run) or log_end(log)}; "
            "mend the cause, then continue with --resume"
        )
