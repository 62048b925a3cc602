"""The collect stage: the teachers' responses, and the student's for the discriminator."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rilbench.api_keys import endpoint_key
from rilbench.checkpoint import Checkpoint, inspect_checkpoint
from rilbench.config import Recipe
from rilbench.data.question_files import Question
from rilbench.data.response_collector import ModelServer, collect
from rilbench.data.response_store import (
    Plan,
    SavedResponse,
    check_story,
    read_collection,
    read_manifest,
)
from rilbench.errors import UserError
from rilbench.paths import locate
from rilbench.plan.fit import devices_to_serve
from rilbench.processes import tree_cpu_seconds
from rilbench.serving import is_transformers, listed_models, named_server, serve, vllm_python
from rilbench.train.pipeline.cost import CollectionCost, CpuMeter
from rilbench.train.pipeline.run_folder import Run, View

STUDENT = "student"
"""The name under which the student's own responses stand in the collection."""

_LOADING = 1800.0  # seconds until a teacher of 145 GB answers from a slow disk


@dataclass(frozen=True)
class Wanted:
    """Responses of one model that a run needs."""

    plan: Plan
    path: Path | None
    """The model's folder; None where the user serves it, or it was collected elsewhere."""
    folder: Path
    """Of the collection that holds them."""

    @property
    def there(self) -> bool:
        """Whether it was collected, so or otherwise."""
        return self.plan.file(self.folder).exists()

    def read(self, questions: list[Question]) -> list[SavedResponse]:
        """What was collected, checked."""
        return read_collection(self.plan, questions, self.folder)


def teachers_wanted(run: Run) -> list[Wanted]:
    """The teachers' responses, where the method uses them.

    Raises:
        UserError: a teacher is missing, broken or unfit.
    """
    recipe = run.recipe
    if not (recipe.method_spec.uses_teachers or recipe.sft_on_teachers):
        return []
    number = recipe.collection.teacher_responses
    return [
        _teacher(recipe, name, recipe.teachers.models[name], number, run.collection)
        for name in recipe.teachers.names
    ]


def _teacher(recipe: Recipe, name: str, source: str, number: int, folder: Path) -> Wanted:
    endpoint = recipe.collection.endpoints.get(name)
    if endpoint is not None:
        model, _ = _read_endpoint(name, endpoint)
        return Wanted(_plan(recipe, name, model or source, number, source), None, folder)
    try:
        checkpoint = inspect_checkpoint(locate(source))
    except UserError:
        # What was collected elsewhere needs its teacher no more.
        file = folder / f"{name}.parquet"
        manifest = read_manifest(file) if file.exists() else {}
        if manifest.get("source") != source:
            raise
        return Wanted(_plan(recipe, name, manifest["weights"], number, source), None, folder)
    return Wanted(
        _plan(recipe, name, checkpoint.fingerprint, number, source), checkpoint.path, folder
    )


def student_wanted(run: Run, student: Checkpoint) -> list[Wanted]:
    """The student's responses, where a discriminator is pre-trained on them.

    A student after SFT is the run's own, so its responses do not go into a shared collection.
    """
    recipe = run.recipe
    if not (recipe.method_spec.uses_discriminator and recipe.discriminator.pretrain_steps):
        return []
    number, source = recipe.collection.student_responses, recipe.student.model
    if recipe.sft.steps:
        plan = _plan(recipe, STUDENT, student.fingerprint, number, "the student after SFT")
        return [Wanted(plan, student.path, run.folder / "collection")]
    endpoint = recipe.collection.endpoints.get(STUDENT)
    if endpoint is not None:
        return [_teacher(recipe, STUDENT, source, number, run.collection)]
    plan = _plan(recipe, STUDENT, student.fingerprint, number, source)
    return [Wanted(plan, student.path, run.collection)]


def _plan(recipe: Recipe, model: str, weights: str, responses: int, source: str) -> Plan:
    return Plan(
        model,
        weights,
        responses,
        recipe.collection.seed,
        recipe.sampling,
        recipe.data.max_response_tokens,
        recipe.collection.concurrency,
        source,
    )


def _read_endpoint(name: str, endpoint: str) -> tuple[str, str]:
    """The model that is named there, if any, and the address."""
    found = named_server(endpoint)
    if found is None:
        raise UserError(
            f"collection.endpoints.{name}={endpoint} is not understood; give URL or MODEL@URL, "
            "such as http://teacher:8000/v1"
        )
    return found


def find_server(recipe: Recipe, wanted: Wanted) -> ModelServer:
    """The user's server of a model, which must serve the one that the recipe names.

    Raises:
        UserError: it does not answer, or serves another model.
    """
    name = wanted.plan.model
    if name not in recipe.collection.endpoints:
        raise UserError(
            f"{wanted.plan.source} is needed to collect and is not on this machine; download it, "
            f"or serve it and set collection.endpoints.{name}=URL"
        )
    named, url = _read_endpoint(name, recipe.collection.endpoints[name])
    model, key, ours = named or wanted.plan.source, endpoint_key(), is_transformers(url)
    remedy = f"start it, or set collection.endpoints.{name} to where it is"
    if not (named and ours):  # transformers serve lists what is in a cache, whatever it serves
        served = listed_models(url, api_key=key, remedy=remedy)
        if model not in served:
            raise UserError(
                f"{url} serves {', '.join(served[:5])}, not {model}, which is the {name} of the "
                f"recipe; serve that, or say that it is the same: "
                f"collection.endpoints.{name}={served[0]}@{url}"
            )
    return ModelServer(url, model, ours, key)


def check_collections(
    recipe: Recipe, wanted: list[Wanted], questions: list[Question]
) -> dict[str, ModelServer]:
    """Find what would stop the collecting, before any of it is paid for.

    Returns:
        The user's servers that are needed, by the models' names.

    Raises:
        UserError: a collection was made with other data or settings, or see `find_server`.
    """
    for one in wanted:
        if one.there:
            check_story(one.plan, questions, one.folder)
    needed = [one for one in wanted if not one.there and one.path is None]
    return {one.plan.model: find_server(recipe, one) for one in needed}


def collect_all(run: Run, wanted: list[Wanted], questions: list[Question], view: View) -> None:
    """Collect what is not there yet, and check all of it."""
    servers = check_collections(run.recipe, wanted, questions)
    waiting = [one for one in wanted if not one.there]
    if waiting:
        view.stage("collect", "running")
        costs = {one.folder: CollectionCost(one.folder) for one in waiting}

        def collect_it(one: Wanted) -> None:
            server = servers.get(one.plan.model)
            _collect_one(run, one, questions, server, costs[one.folder], view)

        # On a CPU one server for each core at most: each generates on one thread. On GPUs one after
        # the other, as each takes them all.
        on_gpus = run.recipe.hardware.device == "cuda"
        workers = (
            1 if on_gpus and len(waiting) > len(servers) else min(len(waiting), os.cpu_count() or 1)
        )
        with ThreadPoolExecutor(max_workers=workers) as pool:
            for job in [pool.submit(collect_it, one) for one in waiting]:
                job.result()
    for one in wanted:
        one.read(questions)
        _check_failures(run.recipe, one, view)
    view.stage("collect", "done" if waiting else "skipped")


def _check_failures(recipe: Recipe, one: Wanted, view: View) -> None:
    """Say how many responses failed, also in a collection that another run made."""
    path = one.plan.file(one.folder)
    manifest = read_manifest(path)
    failed: dict[str, int] = manifest.get("failed", {})
    if not failed:
        return
    total = manifest["got"] + sum(failed.values())
    kinds = ", ".join(f"{kind} {n}" for kind, n in failed.items())
    if sum(failed.values()) > recipe.collection.max_failed * total:
        raise UserError(
            f"{path}: {sum(failed.values())} of {total} responses failed ({kinds}), more than "
            f"collection.max_failed={recipe.collection.max_failed}; raise it, or delete the file "
            "and run again with --resume to collect it anew"
        )
    view.note(f"{one.plan.model}: {sum(failed.values())} of {total} responses failed ({kinds})")


def _collect_one(
    run: Run,
    one: Wanted,
    questions: list[Question],
    given: ModelServer | None,
    cost: CollectionCost,
    view: View,
) -> None:
    plan = one.plan
    story = plan.fingerprint(questions)
    with _server(run, one, given, lambda seconds: cost.book(plan.model, story, seconds)) as server:
        asyncio.run(
            collect(
                plan,
                questions,
                one.folder,
                server,
                lambda done, total: view.answers(plan.model, done, total),
                max_failed=run.recipe.collection.max_failed,
            )
        )
    tokens = [row.tokens for row in one.read(questions)]
    served = one.path is not None
    cost.count(plan.model, story, len(tokens), sum(tokens), served=served)


@contextmanager
def _server(
    run: Run, one: Wanted, given: ModelServer | None, book: Callable[[float], None]
) -> Iterator[ModelServer]:
    """The server of a model: the user's, else one that runs while it is needed."""
    if given is not None:
        yield given
        return
    assert one.path is not None
    log = run.folder / "logs" / f"serve-{one.plan.model}.log"
    hardware = run.recipe.hardware
    on_cpu = hardware.device == "cpu"
    served = serve(
        one.path,
        log=log,
        timeout=180.0 if on_cpu else _LOADING,
        device=hardware.device,
        dtype="float32" if on_cpu else "auto",
        vllm=None if on_cpu else vllm_python(),
        gpus=1 if on_cpu else devices_to_serve(one.path, hardware.devices),
    )
    with (
        served as server,
        CpuMeter(book, lambda: tree_cpu_seconds(server.pid), from_start=True),
    ):
        yield ModelServer(server.base_url, server.model, server.transformers)
