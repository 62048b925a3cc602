"""The collect stage: the teachers' responses, and the student's for the discriminator."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from filelock import FileLock, Timeout

from rilbench.api_keys import endpoint_key
from rilbench.checkpoint import Checkpoint, inspect_checkpoint
from rilbench.config import Recipe
from rilbench.data.question_files import Question
from rilbench.data.response_collector import ModelServer, collect
from rilbench.data.response_store import Plan, ResponseIndex, index_responses, read_manifest
from rilbench.errors import UserError
from rilbench.paths import locate
from rilbench.plan.fit import devices_to_serve
from rilbench.processes import tree_cpu_seconds
from rilbench.serving import is_transformers, listed_models, named_server, serve, vllm_python
from rilbench.train.pipeline.cost import CollectionCost, metered
from rilbench.train.pipeline.run_folder import Run
from rilbench.train.pipeline.stage import Progress, note, running, skipped

log = logging.getLogger(__name__)

STUDENT = "student"
"""Name of the student's own responses in a collection."""

_SECONDS_TO_LOAD = {"cpu": 180.0, "cuda": 1800.0}  # a teacher of 145 GB from a slow disk


@dataclass(frozen=True)
class ModelCollection:
    """The responses of one model that a run needs."""

    plan: Plan
    path: Path | None
    """The model's folder; None if the user serves it, or if it was collected elsewhere."""
    folder: Path
    """Folder of the collection."""

    @property
    def file(self) -> Path:
        """The collection's Parquet file."""
        return self.plan.file(self.folder)

    def index(self, questions: Sequence[Question]) -> ResponseIndex:
        """Which responses to the questions there are, checked against the plan."""
        return index_responses(self.plan, questions, self.folder)


def teacher_collections(run: Run) -> list[ModelCollection]:
    """The teachers' responses that the run needs; none if its method uses no teachers.

    Raises:
        UserError: a teacher is missing, broken or unfit.
    """
    recipe = run.recipe
    if not (recipe.method_spec.uses_teachers or recipe.sft_on_teachers):
        return []
    number, models = recipe.collection.teacher_responses, recipe.teachers.models
    return [_collection(run, name, models[name], number) for name in recipe.teachers.names]


def student_collection(run: Run, student: Checkpoint) -> list[ModelCollection]:
    """The student's responses, if the run pretrains a discriminator on them."""
    recipe = run.recipe
    if not (recipe.method_spec.uses_discriminator and recipe.discriminator.pretrain_steps):
        return []
    number, source, folder = recipe.collection.student_responses, recipe.student.model, None
    if recipe.sft.steps:
        # No other run has this student, so its responses do not go into a shared collection.
        source, folder = "the student after SFT", run.folder / "collection"
    return [_collection(run, STUDENT, source, number, student, folder)]


def _collection(
    run: Run,
    name: str,
    source: str,
    number: int,
    checkpoint: Checkpoint | None = None,
    folder: Path | None = None,
) -> ModelCollection:
    """A model's responses, whether the user serves it, or it is on this machine, or neither."""
    recipe, path, weights = run.recipe, None, ""
    endpoint = recipe.collection.endpoints.get(name)
    if endpoint is not None and folder is None:
        weights = _read_endpoint(name, endpoint)[0] or source
    else:
        try:
            checkpoint = checkpoint or inspect_checkpoint(locate(source))
            weights, path = checkpoint.fingerprint, checkpoint.path
        except UserError:
            # A collection that was made elsewhere no longer needs its teacher.
            file = run.collection / f"{name}.parquet"
            manifest = read_manifest(file) if file.exists() else {}
            if manifest.get("source") != source:
                raise
            weights = manifest["weights"]
    plan = Plan(
        name,
        weights,
        number,
        recipe.collection.seed,
        recipe.sampling,
        recipe.data.max_response_tokens,
        recipe.collection.concurrency,
        source,
        recipe.collection.keep_reasoning,
    )
    return ModelCollection(plan, path, folder or run.collection)


def _read_endpoint(name: str, endpoint: str) -> tuple[str, str]:
    """The model that an endpoint names (empty if it names none), and its address."""
    server = named_server(endpoint)
    if server is None:
        raise UserError(
            f"collection.endpoints.{name}={endpoint} is not understood; give URL or MODEL@URL, "
            "such as http://teacher:8000/v1"
        )
    return server


def find_servers(
    recipe: Recipe, collections: list[ModelCollection], questions: Sequence[Question]
) -> dict[str, ModelServer]:
    """Check everything that would stop the collecting, before any of it is paid for.

    Returns:
        The user's servers that are needed, by the models' names.

    Raises:
        UserError: a collection was made with other settings; a model is neither on this machine
            nor served; its server does not answer, or serves another model.
    """
    servers = {}
    for collection in collections:
        missing = collection.index(questions).missing(recipe.collection.max_failed)
        if missing and collection.path is None:
            servers[collection.plan.model] = _find_server(recipe, collection.plan, len(missing))
    return servers


def _find_server(recipe: Recipe, plan: Plan, missing: int) -> ModelServer:
    """The user's server of a model; it must serve the one that the recipe names."""
    name = plan.model
    if name not in recipe.collection.endpoints:
        raise UserError(
            f"{plan.source} is needed to collect {missing} responses and is not on this machine; "
            f"download it, or serve it and set collection.endpoints.{name}=URL"
        )
    named, url = _read_endpoint(name, recipe.collection.endpoints[name])
    model, key, transformers = named or plan.source, endpoint_key(), is_transformers(url)
    # transformers serve lists what is in a cache, whatever it serves.
    if not (named and transformers):
        remedy = f"start it, or set collection.endpoints.{name} to its address"
        served = listed_models(url, api_key=key, remedy=remedy)
        if model not in served:
            raise UserError(
                f"{url} serves {', '.join(served[:5])}, not {model}, which is the {name} of the "
                f"recipe; serve that, or say that it is the same: "
                f"collection.endpoints.{name}={served[0]}@{url}"
            )
    return ModelServer(url, model, transformers, key)


def collect_all(
    run: Run, collections: list[ModelCollection], questions: Sequence[Question], progress: Progress
) -> None:
    """Collect what is missing of collections in one folder, and check all of it.

    Raises:
        UserError: as `find_servers`; or a model or its server failed, and what it answered is kept.
    """
    if not collections:
        return
    (folder,) = {collection.folder for collection in collections}
    with _folder_alone(folder, progress):
        servers = find_servers(run.recipe, collections, questions)
        allowed = run.recipe.collection.max_failed
        missing = [each for each in collections if each.index(questions).missing(allowed)]
        if missing:
            with running("collect", progress):
                _collect(run, missing, servers, questions, progress)
        else:
            skipped("collect", progress)
        for collection in collections:
            check_collection(run.recipe, collection, questions, progress)


@contextmanager
def _folder_alone(folder: Path, progress: Progress) -> Iterator[None]:
    """Keep other runs away from a collection that they share; a wait for one of them is told.

    It has no limit: the other run does what this one would have to do.
    """
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        note(f"waiting for another run that collects into {folder}", progress)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _collect(
    run: Run,
    missing: list[ModelCollection],
    servers: dict[str, ModelServer],
    questions: Sequence[Question],
    progress: Progress,
) -> None:
    """Collect the responses of several models, in parallel as far as the hardware allows."""
    hardware, cost = run.recipe.hardware, CollectionCost(missing[0].folder)
    on_cpu = hardware.device == "cpu"

    def collect_model(collection: ModelCollection) -> None:
        plan, path, name = collection.plan, collection.path, collection.plan.model
        fingerprint = plan.fingerprint
        log.info("%s: %d responses to each of %d questions", name, plan.responses, len(questions))
        with ExitStack() as stack:
            if path is None:
                log.info("%s: the user's server", name)
                server = servers[name]
            else:
                log.info("%s: serving %s", name, path)
                served = stack.enter_context(
                    serve(
                        path,
                        log=run.folder / "logs" / f"serve-{name}.log",
                        timeout=_SECONDS_TO_LOAD[hardware.device],
                        device=hardware.device,
                        dtype="float32" if on_cpu else "auto",
                        vllm=None if on_cpu else vllm_python(),
                        gpus=1 if on_cpu else devices_to_serve(path, hardware.devices),
                    )
                )
                server = ModelServer(served.base_url, served.model, served.transformers)
                book = partial(cost.book, name, fingerprint)
                spent = partial(tree_cpu_seconds, served.pid)
                stack.enter_context(metered(book, spent, from_start=True))
            on_answer = partial(progress.answers, name)
            max_failed = run.recipe.collection.max_failed
            folder = collection.folder
            asyncio.run(collect(plan, questions, folder, server, on_answer, max_failed=max_failed))
        made = read_manifest(collection.file)
        cost.count(name, fingerprint, made["got"], made["tokens"], served=path is not None)

    # On a CPU one server for each core at most: each generates on one thread. On GPUs one after
    # the other, as each takes them all.
    one_by_one = not on_cpu and len(missing) > len(servers)
    workers = 1 if one_by_one else min(len(missing), os.cpu_count() or 1)
    pool, wait = ThreadPoolExecutor(max_workers=workers), True
    try:
        jobs = [pool.submit(copy_context().run, collect_model, each) for each in missing]
        for job in jobs:
            job.result()
    except KeyboardInterrupt:  # the threads would go on for days; the command line ends them
        wait = False
        raise
    finally:
        pool.shutdown(wait, cancel_futures=not wait)


def check_collection(
    recipe: Recipe, collection: ModelCollection, questions: Sequence[Question], progress: Progress
) -> None:
    """Check that every response is accounted for, also if another run collected them.

    Raises:
        UserError: responses are missing, or more than ``collection.max_failed`` of them failed.
    """
    name, index = collection.plan.model, collection.index(questions)
    log.info("%s: %d responses in %s", name, len(index.row), collection.file)
    if missing := index.missing(recipe.collection.max_failed):
        raise UserError(
            f"{collection.file} lacks {len(missing)} of {index.total} responses (first: to "
            f"{missing[0][0]!r}); run again with --resume to collect them"
        )
    if index.reasoned:
        kept = "is a part of them" if collection.plan.keep_reasoning else "was left out"
        note(
            f"{name} reasoned before {index.reasoned} of {index.total} responses: its reasoning "
            f"{kept} (collection.keep_reasoning)",
            progress,
        )
    if failed := index.failed:
        kinds = ", ".join(f"{kind} {n}" for kind, n in failed.items())
        note(
            f"{name}: {sum(failed.values())} of {index.total} responses failed ({kinds})", progress
        )
