"""The collect stage: the teachers' responses, and the student's for the discriminator."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rilbench.checkpoint import Checkpoint, inspect_checkpoint
from rilbench.locations import locate
from rilbench.processes import tree_cpu_seconds
from rilbench.recipe import Recipe
from rilbench.serving import first_model, is_transformers, named_server, serve
from rilbench.teachers.collection import Plan, SavedResponse, collect, read_collection
from rilbench.teachers.questions import Question
from rilbench.train.cost import CollectionCost, CpuMeter
from rilbench.train.run_folder import Run, View

STUDENT = "student"
"""The name under which the student's own responses stand in the collection."""


@dataclass(frozen=True)
class Wanted:
    """Responses of one model that a run needs."""

    plan: Plan
    path: Path | None
    """The model's folder; None where the user serves it."""
    folder: Path
    """Of the collection that holds them."""

    def read(self, questions: list[Question]) -> list[SavedResponse]:
        """What was collected, checked."""
        return read_collection(self.plan, questions, self.folder)


def teachers_wanted(run: Run) -> list[Wanted]:
    """The teachers' responses, where the method uses them.

    Raises:
        UserError: a teacher is missing, broken or unfit.
    """
    recipe = run.recipe
    if not (recipe.mixes or recipe.distils):
        return []
    found = []
    for name in recipe.teachers.names:
        endpoint = recipe.collection.endpoints.get(name)
        model = None if endpoint else inspect_checkpoint(locate(recipe.teachers.models[name]))
        weights = endpoint or (model.fingerprint if model else "")
        plan = _plan(recipe, name, weights, recipe.collection.teacher_responses)
        found.append(Wanted(plan, model.path if model else None, run.collection))
    return found


def student_wanted(run: Run, student: Checkpoint) -> list[Wanted]:
    """The student's responses, where a discriminator is pre-trained on them.

    A student after SFT is the run's own, so its responses do not go into a shared collection.
    """
    recipe = run.recipe
    if not (recipe.imitates and recipe.discriminator.pretrain_steps):
        return []
    endpoint = None if recipe.sft.steps else recipe.collection.endpoints.get(STUDENT)
    weights = endpoint or student.fingerprint
    plan = _plan(recipe, STUDENT, weights, recipe.collection.student_responses)
    folder = run.folder / "collection" if recipe.sft.steps else run.collection
    return [Wanted(plan, None if endpoint else student.path, folder)]


def _plan(recipe: Recipe, model: str, weights: str, responses: int) -> Plan:
    return Plan(
        model,
        weights,
        responses,
        recipe.collection.seed,
        recipe.sampling,
        recipe.data.max_response_tokens,
        recipe.collection.concurrency,
    )


def collect_all(run: Run, wanted: list[Wanted], questions: list[Question], view: View) -> None:
    """Collect what is not there yet, and check all of it."""
    waiting = [one for one in wanted if not one.plan.file(one.folder).exists()]
    if waiting:
        view.stage("collect", "running")
        costs = {one.folder: CollectionCost(one.folder) for one in waiting}

        def collect_it(one: Wanted) -> None:
            _collect_one(run, one, questions, costs[one.folder], view)

        # One server for each core at most: each generates on one thread.
        with ThreadPoolExecutor(max_workers=min(len(waiting), os.cpu_count() or 1)) as pool:
            for job in [pool.submit(collect_it, one) for one in waiting]:
                job.result()
    for one in wanted:
        one.read(questions)
    view.stage("collect", "done" if waiting else "skipped")


def _collect_one(
    run: Run, one: Wanted, questions: list[Question], cost: CollectionCost, view: View
) -> None:
    plan = one.plan
    story = plan.fingerprint(questions)
    with _server(run, one, lambda seconds: cost.book(plan.model, story, seconds)) as server:
        asyncio.run(
            collect(
                plan,
                questions,
                one.folder,
                server,
                lambda done, total: view.answers(plan.model, done, total),
            )
        )
    tokens = [row.tokens for row in one.read(questions)]
    served = one.path is not None
    cost.count(plan.model, story, len(tokens), sum(tokens), served=served)


@contextmanager
def _server(
    run: Run, one: Wanted, book: Callable[[float], None]
) -> Iterator[tuple[str, str, bool]]:
    """The address of a model: the user's endpoint, else one that is served while it is needed."""
    name = one.plan.model
    if one.path is None:
        endpoint = run.recipe.collection.endpoints[name]
        remedy = f"see collection.endpoints.{name}"
        named, url = named_server(endpoint) or ("", endpoint)
        yield url, named or first_model(url, remedy=remedy), is_transformers(url)
        return
    log = run.folder / "logs" / f"serve-{name}.log"
    device = run.recipe.hardware.device
    dtype = "float32" if device == "cpu" else "auto"
    with (
        serve(one.path, log=log, device=device, dtype=dtype) as server,
        CpuMeter(book, lambda: tree_cpu_seconds(server.pid), from_start=True),
    ):
        yield server.base_url, server.model, True
