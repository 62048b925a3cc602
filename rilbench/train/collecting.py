"""The collect stage: the teachers' responses, and the student's for the discriminator."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from rilbench.checkpoint import Checkpoint, inspect_checkpoint
from rilbench.locations import locate
from rilbench.recipe import Recipe
from rilbench.serving import first_model, serve
from rilbench.teachers.collection import Plan, collect, read_collection
from rilbench.teachers.questions import Question
from rilbench.train.run_folder import Run, View

STUDENT = "student"
"""The name under which the student's own responses stand in the collection."""


def plans(recipe: Recipe, student: Checkpoint) -> list[Plan]:
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


def collect_all(
    run: Run, wanted: list[Plan], student: Checkpoint, questions: list[Question], view: View
) -> None:
    """Collect what is not there yet, and check all of it."""
    folder = run.collection
    waiting = [plan for plan in wanted if not plan.file(folder).exists()]
    if waiting:
        view.stage("collect", "running")
        # One server for each core at most: each generates on one thread.
        with ThreadPoolExecutor(max_workers=min(len(waiting), os.cpu_count() or 1)) as pool:
            jobs = [pool.submit(_collect_one, run, p, student, questions, view) for p in waiting]
            for job in jobs:
                job.result()
    for plan in wanted:
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
