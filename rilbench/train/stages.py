"""The stages of a run: collect → discriminator → ril → export. Each is skipped when it is done.

A run lives in one folder: ``recipe.yaml`` (resolved), ``collection/``, ``data/`` (what verl reads),
``discriminator/``, ``steps/`` (the trainer's own checkpoints), ``metrics.jsonl``, ``rows/``,
``logs/`` and, when it is finished, ``checkpoint/``: an ordinary Hugging Face folder.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock, Timeout

from rilbench.checkpoint import Checkpoint, Labels, inspect_checkpoint, write_labels
from rilbench.errors import UserError
from rilbench.hardware import has_gpu
from rilbench.judge.server import rule_judge
from rilbench.locations import locate
from rilbench.recipe import Recipe, read_recipe
from rilbench.serving import first_model, serve
from rilbench.teachers.collection import Plan, collect, read_collection
from rilbench.teachers.questions import Question, read_questions
from rilbench.train.session import Session

STUDENT = "student"
"""The name under which the student's own responses stand in the collection."""

IMAGE_READERS = ("qwen2_vl", "qwen2_5_vl")
"""Model types whose processor verl 0.9.1 accepts; for others it goes on without images."""

TRACKERS = {"tensorboard": "tensorboard", "wandb": "wandb"}
"""Trackers of verl that ``--log`` offers, and the package that each needs."""


class View(Protocol):
    """What shows progress to a user; see `rilbench.train.view`."""

    def stage(self, name: str, state: str) -> None:
        """A stage starts (``running``), is ``done`` or was found done (``skipped``)."""

    def answers(self, model: str, done: int, total: int) -> None:
        """Responses collected so far."""

    def line(self, kind: str, values: Mapping[str, Any]) -> None:
        """A line of ``metrics.jsonl`` (``ril``) or ``discriminator.jsonl``."""


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
            f"{folder} holds a run of another recipe ({there.fingerprint}, not "
            f"{recipe.fingerprint}); choose another name with --run"
        )
    if not run.finished and not resume:
        raise UserError(f"{folder} exists and is not finished; continue it with --resume")
    return run


def check_device(recipe: Recipe) -> None:
    """Refuse a recipe for GPUs where there is none, at once.

    Raises:
        UserError: with what it needs and the command that runs without a GPU.
    """
    if recipe.hardware.device == "cuda" and not has_gpu():
        need = f"{recipe.hardware.nodes * recipe.hardware.devices} GPUs"
        raise UserError(
            f"{recipe.student.name} needs {need} of {recipe.hardware.memory_gib} GiB and this "
            "machine has none; without a GPU: rilbench train --recipe "
            f"{recipe.recipe} --student nano"
        )


def check_trackers(trackers: Sequence[str]) -> None:
    """Refuse a tracker that is unknown or not installed, before anything runs.

    Raises:
        UserError: with the known ones, or the command that installs it.
    """
    from importlib.util import find_spec

    for name in trackers:
        if name not in TRACKERS:
            raise UserError(f"--log {name} is not known; use one of {', '.join(TRACKERS)}")
        if find_spec(TRACKERS[name]) is None:
            raise UserError(f"--log {name} needs a package: uv pip install {TRACKERS[name]}")


def check_recipe(recipe: Recipe) -> None:
    """Find what would stop a run, before its folder is made.

    Raises:
        UserError: no GPU where one is needed; a model or the data missing, broken or unfit; a judge
            without an address; settings that verl cannot divide among devices.
    """
    from rilbench.train.verl_config import overrides

    check_device(recipe)
    _read_inputs(recipe)
    _check_judge(recipe)
    overrides(recipe, Path("runs"), "model", resume_from=None)


@dataclass(frozen=True)
class _Inputs:
    student: Checkpoint
    plans: list[Plan]
    questions: list[Question]
    dev: list[Question]


def _read_inputs(recipe: Recipe) -> _Inputs:
    """The recipe's models and data, checked."""
    student = inspect_checkpoint(locate(recipe.student.model))
    if student.model_type not in IMAGE_READERS:
        raise UserError(
            f"verl 0.9.1 passes no images to {student.model_type}; take a student of one of "
            f"{', '.join(IMAGE_READERS)}"
        )
    questions = read_questions(locate(recipe.data.train))
    dev = read_questions(locate(recipe.data.dev))
    if len(questions) < recipe.schedule.questions:
        raise UserError(
            f"{len(questions)} questions are fewer than one step's "
            f"{recipe.schedule.questions}; set schedule.questions"
        )
    plans = _plans(recipe, student) if recipe.imitates else []
    return _Inputs(student, plans, questions, dev)


def train(
    run: Run, view: View, trackers: Sequence[str] = (), session: Session | None = None
) -> Path:
    """Run every stage that is not done yet, and return the exported checkpoint.

    Args:
        session: where verl is up already; None: a process for this run alone.

    Raises:
        UserError: a model, the data, a server or the training failed; what was done is kept.
    """
    lock = FileLock(run.folder / ".lock")
    try:
        with lock.acquire(timeout=0):
            return _train(run, view, trackers, session)
    except Timeout as error:
        raise UserError(f"another process is training {run.folder}; wait for it") from error


def _train(run: Run, view: View, trackers: Sequence[str], session: Session | None) -> Path:
    if run.finished:
        return run.checkpoint
    found = _read_inputs(run.recipe)
    if found.plans:
        with FileLock(run.collection.with_name(f".{run.collection.name}.lock")):
            _collect(run, found.plans, found.student, found.questions, view)
    _prepare_data(run, found.plans, found.questions, found.dev)
    _run_trainer(run, found.student, view, trackers, session)
    return _export(run, found.student, view)


# ---- collect


def _plans(recipe: Recipe, student: Checkpoint) -> list[Plan]:
    """What to collect from whom: the teachers' rows, and the student's for the discriminator."""

    def plan(model: str, responses: int) -> Plan:
        weights = recipe.collection.endpoints.get(model)
        if weights is None:
            weights = _model(recipe, model, student).fingerprint
        return Plan(
            model,
            weights,
            responses,
            recipe.collection.seed,
            recipe.sampling,
            recipe.data.max_response_tokens,
            recipe.collection.concurrency,
        )

    teachers = [plan(name, recipe.collection.teacher_responses) for name in recipe.teachers.names]
    return [*teachers, plan(STUDENT, recipe.collection.student_responses)]


def _model(recipe: Recipe, name: str, student: Checkpoint) -> Checkpoint:
    if name == STUDENT:
        return student
    return inspect_checkpoint(locate(recipe.teachers.models[name]))


def _collect(
    run: Run, plans: list[Plan], student: Checkpoint, questions: list[Question], view: View
) -> None:
    folder = run.collection
    waiting = [plan for plan in plans if not plan.file(folder).exists()]
    if waiting:
        view.stage("collect", "running")
        # One server for each core at most: each generates on one thread.
        with ThreadPoolExecutor(max_workers=min(len(waiting), os.cpu_count() or 1)) as pool:
            jobs = [pool.submit(_collect_one, run, p, student, questions, view) for p in waiting]
            for job in jobs:
                job.result()
    for plan in plans:
        read_collection(plan, questions, folder)
    view.stage("collect", "done" if waiting else "skipped")


def _collect_one(
    run: Run, plan: Plan, student: Checkpoint, questions: list[Question], view: View
) -> None:
    with _server(run, plan.model, student) as server:
        asyncio.run(
            collect(
                plan,
                questions,
                run.collection,
                server,
                lambda done, total: view.answers(plan.model, done, total),
            )
        )


@contextmanager
def _server(run: Run, name: str, student: Checkpoint) -> Iterator[tuple[str, str, bool]]:
    """The address of a model: the user's endpoint, else one that is served while it is needed."""
    endpoint = run.recipe.collection.endpoints.get(name)
    if endpoint:
        yield endpoint, first_model(endpoint), False
        return
    log = run.folder / "logs" / f"serve-{name}.log"
    path = _model(run.recipe, name, student).path
    device = run.recipe.hardware.device
    dtype = "float32" if device == "cpu" else "auto"
    with serve(path, log=log, device=device, dtype=dtype) as server:
        yield server.base_url, server.model, True


# ---- what verl reads


def _prepare_data(
    run: Run, plans: list[Plan], questions: list[Question], dev: list[Question]
) -> None:
    """Questions with their saved responses in verl's format; the discriminator's first rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    data = run.folder / "data"
    data.mkdir(exist_ok=True)
    saved: dict[str, list[dict[str, str]]] = {q.id: [] for q in questions}
    first_rows = []
    for plan in plans:
        for row in read_collection(plan, questions, run.collection):
            first_rows.append({"own": plan.model == STUDENT, "response": row.response})
            if plan.model != STUDENT:
                entry = {"teacher": plan.model, "response": row.response}
                saved[row.question_id].append(entry)
    if first_rows:
        pq.write_table(pa.Table.from_pylist(first_rows), data / "discriminator.parquet")
    for name, part in (("train", questions), ("dev", dev)):
        rows = [_verl_row(i, q, saved.get(q.id, [])) for i, q in enumerate(part)]
        pq.write_table(pa.Table.from_pylist(rows), data / f"{name}.parquet")


def _verl_row(index: int, question: Question, saved: list[dict[str, str]]) -> dict[str, Any]:
    return {
        "data_source": question.source,
        "prompt": [
            {"role": "user", "content": "<image>" * len(question.images) + question.question}
        ],
        "images": [{"bytes": image} for image in question.images],
        "ability": "vision",
        "reward_model": {"style": "judge", "ground_truth": question.answer},
        "extra_info": {
            "index": index,
            "question_id": question.id,
            "question": question.question,
            "saved": saved or [{"teacher": "", "response": ""}],  # Parquet wants the type
        },
    }


# ---- discriminator and ril: one process, since starting verl takes a minute


def last_step(run: Run) -> int:
    """The last step with a complete checkpoint of the trainer; 0 when there is none."""
    steps = (run.folder / "steps").glob("global_step_*")
    return max((int(path.name.rsplit("_", 1)[1]) for path in steps), default=0)


def _run_trainer(
    run: Run,
    student: Checkpoint,
    view: View,
    trackers: Sequence[str],
    session: Session | None,
) -> None:
    import yaml

    from rilbench.train.verl_config import agent_loop_part

    step = last_step(run)
    if run.recipe.imitates and (run.folder / "discriminator" / "done").exists():
        view.stage("discriminator", "skipped")
    if step >= run.recipe.schedule.steps:
        view.stage(run.recipe.method, "skipped")
        return
    _forget_after(run.folder, step)
    with _judge(run.recipe) as (url, model):
        job = {
            "run_dir": str(run.folder.resolve()),
            "model": str(student.path),
            "resume_from": str((run.folder / "steps" / f"global_step_{step}").resolve())
            if step
            else "",
            "trackers": list(trackers),
        }
        loop = yaml.safe_dump(agent_loop_part(run.recipe, url, model))
        (run.folder / "data" / "agent_loop.yaml").write_text(loop, encoding="utf-8")
        job_file = run.folder / "data" / "job.json"
        job_file.write_text(json.dumps(job, indent=2), encoding="utf-8")
        view.stage(run.recipe.method, "running")
        log = run.folder / "logs" / "trainer.log"
        with nullcontext(session) if session else Session(log, keep=False) as verl:
            verl.train(job_file, run.recipe.hardware.device, view.line)
    view.stage(run.recipe.method, "done")


@contextmanager
def _judge(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """The judge's address and the model to ask for there."""
    _check_judge(recipe)
    if recipe.judge.url:
        yield recipe.judge.url, "" if recipe.judge.model == "rule" else recipe.judge.model
    else:
        with rule_judge() as url:
            yield url, ""


def _check_judge(recipe: Recipe) -> None:
    if not recipe.judge.url and recipe.judge.model != "rule":
        raise UserError(f"judge.model={recipe.judge.model} needs its address: --set judge.url=URL")


def _forget_after(folder: Path, step: int) -> None:
    """Drop what was written of steps that will be done again."""
    for record in (folder / "rows").glob("step_*.jsonl"):
        if int(record.stem.rsplit("_", 1)[1]) > step:
            record.unlink()
    if not (folder / "discriminator" / "done").exists():
        (folder / "discriminator.jsonl").unlink(missing_ok=True)
    path = folder / "metrics.jsonl"
    if path.exists():
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
        part = path.with_suffix(".part")
        part.write_text("".join(kept), encoding="utf-8")
        part.replace(path)


# ---- export


def _export(run: Run, student: Checkpoint, view: View) -> Path:
    """Put the chosen step's weights in ``checkpoint/``, whole or not at all."""
    view.stage("export", "running")
    step, score = _chosen_step(run)
    source = run.folder / "steps" / f"global_step_{step}" / "actor" / "huggingface"
    part = run.folder / ".checkpoint.part"
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(source, part)
    chosen = {"step": step, "choice": run.recipe.schedule.export, "dev_accuracy": score}
    (part / "export.json").write_text(json.dumps(chosen) + "\n", encoding="utf-8")
    labels = Labels(
        student=run.recipe.student.name,
        method=run.recipe.method,
        teacher=run.recipe.teacher_label,
        run=run.folder.name,
        start_fingerprint=student.fingerprint,
    )
    write_labels(part, labels)
    inspect_checkpoint(part)
    shutil.rmtree(run.checkpoint, ignore_errors=True)
    part.rename(run.checkpoint)
    view.stage("export", "done")
    return run.checkpoint


def _chosen_step(run: Run) -> tuple[int, float | None]:
    """The last saved step, or the saved step with the best score on the dev split."""
    lines = (run.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    scores = {m["step"]: m.get("dev_accuracy") for m in map(json.loads, lines)}
    steps = sorted(
        int(p.name.rsplit("_", 1)[1]) for p in (run.folder / "steps").glob("global_step_*")
    )
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
