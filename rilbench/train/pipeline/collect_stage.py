"""The collect stage: the teachers' responses, and the student's for the discriminator."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from contextvars import copy_context
from functools import partial
from pathlib import Path

from filelock import FileLock, Timeout

from rilbench.checkpoint import Checkpoint, inspect_checkpoint
from rilbench.config import Recipe
from rilbench.data.question_files import Question
from rilbench.data.response_collector import ModelServer, collect
from rilbench.data.response_store import Plan, read_manifest
from rilbench.errors import UserError
from rilbench.paths import locate, public_name
from rilbench.plan.servers import plan_teacher
from rilbench.processes import tree_cpu_seconds
from rilbench.train.pipeline.cost import CollectionCost, metered
from rilbench.train.pipeline.run_folder import Run
from rilbench.train.pipeline.stage import Progress, note, running, skipped
from rilbench.train.pipeline.started_servers import started
from rilbench.train.pipeline.teacher_servers import (
    PROBES,
    ModelCollection,
    find_servers,
    read_endpoints,
)

log = logging.getLogger(__name__)

BATCH_SIZE = 128
"""Requests in flight to our own server on a CPU, which answers them in one batch."""

STUDENT = "student"
"""Name of the student's own responses in a collection."""


def teacher_collections(run: Run) -> list[ModelCollection]:
    """The teachers' responses that the run needs; none if its method uses no teachers.

    Raises:
        UserError: a teacher is missing, broken or unfit.
    """
    recipe = run.recipe
    if not recipe.uses_saved_responses:
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
    file = run.collection / f"{name}.parquet"
    manifest = read_manifest(file) if file.exists() and folder is None else {}
    if "imported" in manifest:
        weights = manifest["weights"]
    elif recipe.collection.endpoints.get(name) and folder is None:
        weights = read_endpoints(recipe, name)[0] or source
    else:
        try:
            checkpoint = checkpoint or inspect_checkpoint(locate(source))
            weights, path = checkpoint.fingerprint, checkpoint.path
        except UserError:
            # A collection that was made elsewhere no longer needs its teacher.
            if manifest.get("source") not in (source, public_name(source)):
                raise
            weights = manifest["weights"]
    shared = folder is None and bool(recipe.collection.folder) and "imported" not in manifest
    digest = hashlib.sha256(weights.encode()).hexdigest()[:8]
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
        recipe.collection.fields.get(name),
        # Runs of other students share the folder, and each student has its own responses.
        f"{STUDENT}-{digest}" if name == STUDENT and shared else "",
    )

    def asks_source(source: str) -> bool:
        return name == STUDENT or name in recipe.teachers_of(source)

    return ModelCollection(plan, path, folder or run.collection, asks_source)


def collect_all(
    run: Run,
    collections: list[ModelCollection],
    questions: Sequence[Question],
    progress: Progress,
    *,
    probed: bool = False,
) -> None:
    """Collect what is missing of collections in one folder, and check all of it.

    Args:
        run: whose folder exists.
        collections: of the models.
        questions: with their pictures.
        progress: shows it to the user.
        probed: `preflight` has just asked every server for a response.

    Raises:
        UserError: as `find_servers`; or a model or its server failed, and what it answered is kept.
    """
    if not collections:
        return
    (folder,) = {collection.folder for collection in collections}
    allowed = run.recipe.collection.max_failed

    def missing() -> list[ModelCollection]:
        return [each for each in collections if each.index(each.asks(questions)).missing(allowed)]

    # A whole collection is only read: it may be read-only, or be added to by another run.
    with _folder_alone(folder, progress) if missing() else nullcontext():
        probes = [] if probed else questions[:PROBES]
        servers = find_servers(run.recipe, collections, questions, probes)
        if wanted := missing():
            with running("collect", progress):
                _collect(run, wanted, servers, questions, progress)
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
        asked, fingerprint = collection.asks(questions), plan.fingerprint
        log.info("%s: %d responses to each of %d questions", name, plan.responses, len(asked))
        with ExitStack() as stack:
            if path is None:
                log.info("%s: the user's server", name)
                server = servers[name]
            else:
                log.info("%s: serving %s", name, path)
                layout = plan_teacher(run.recipe, name, str(path))
                served = stack.enter_context(started(run, name, path, layout, progress))
                server = ModelServer(
                    served.base_url,
                    served.model,
                    served.transformers,
                    # Of each copy.
                    concurrency=BATCH_SIZE if on_cpu else plan.concurrency * layout.data_parallel,
                )
                book = partial(cost.book, plan.name, fingerprint)
                spent = partial(tree_cpu_seconds, served.pid)
                stack.enter_context(metered(book, spent, from_start=True))
            on_answer = partial(progress.answers, name)
            max_failed = run.recipe.collection.max_failed
            folder = collection.folder
            asyncio.run(collect(plan, asked, folder, server, on_answer, max_failed=max_failed))
        made = read_manifest(collection.file)
        cost.count(plan.name, fingerprint, made["got"], made["tokens"], served=path is not None)

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
    questions = collection.asks(questions)
    name, index = collection.plan.model, collection.index(questions)
    log.info("%s: %d responses in %s", name, len(index.row), collection.file)
    if index.imported:
        there = len(set(index.question.tolist()))
        note(
            f"{name}: {len(index.row)} imported responses of {collection.plan.weights} to {there} "
            f"of {len(questions)} questions; no others are collected",
            progress,
        )
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
