"""The user's servers of the models whose responses are collected: found, and tried out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from rilbench.api_keys import (
    ENDPOINT_KEY,
    endpoint_key,
    endpoint_variable,
    without_query_values,
)
from rilbench.config import Recipe
from rilbench.data.question import Question
from rilbench.data.response_collector import ModelServer, request
from rilbench.data.response_store import Plan, ResponseIndex, index_responses, seed_for
from rilbench.data.stored_questions import QuestionScan
from rilbench.errors import UserError
from rilbench.paths import locate_files
from rilbench.serving import (
    ChatClient,
    Completion,
    RequestRefusedError,
    UnansweredError,
    UnlistedError,
    UnreachedError,
    is_transformers,
    listed_models,
    servers_of_model,
    vllm_python,
)

log = logging.getLogger(__name__)

PROBES = 3
"""Questions with which a server is tried; it may refuse one for its content."""


@dataclass(frozen=True)
class ModelCollection:
    """The responses of one model that a run needs."""

    plan: Plan
    path: Path | None
    """The model's folder; None if the user serves it, or if it was collected elsewhere."""
    folder: Path
    """Folder of the collection."""
    asks_source: Callable[[str], bool] = lambda _: True
    """Whether the model is asked the questions of a source (``teachers.routes``)."""

    def asks(self, questions: Sequence[Question]) -> list[Question]:
        """The questions to which responses are needed."""
        return [question for question in questions if self.asks_source(question.source)]

    @property
    def file(self) -> Path:
        """The collection's Parquet file."""
        return self.plan.file(self.folder)

    def index(self, questions: Sequence[Question]) -> ResponseIndex:
        """Which responses to the questions there are, checked against the plan."""
        return index_responses(self.plan, questions, self.folder)


def read_endpoints(recipe: Recipe, name: str) -> tuple[str, list[str]]:
    """Return the model that a teacher's endpoints name (empty if none does), and their addresses.

    Raises:
        UserError: one is malformed, or they name several models.
    """
    return servers_of_model(f"collection.endpoints.{name}", recipe.collection.endpoints[name])


def first_questions(recipe: Recipe, questions: Sequence[Question]) -> list[Question]:
    """Return a few of a run's questions with their pictures, which need not be stored yet."""
    wanted = {question.id for question in questions}
    scan = QuestionScan(locate_files(recipe.data.train), Path(), 0)
    return list(islice((question for question in scan if question.id in wanted), PROBES))


def find_servers(
    recipe: Recipe,
    collections: list[ModelCollection],
    questions: Sequence[Question],
    probes: Sequence[Question] = (),
) -> dict[str, ModelServer]:
    """Check everything that would stop the collecting, before any of it is paid for.

    Args:
        recipe: of the run.
        collections: of the models.
        questions: to which responses are needed.
        probes: questions with their pictures; each server is asked for a response to one of them,
            exactly as it will be asked for all others. None: it is not.

    Returns:
        The user's servers that are needed, by the models' names.

    Raises:
        UserError: a collection was made with other settings; a model is neither on this machine
            nor served; its server does not answer, refuses, or serves another model.
    """
    servers = {}
    for collection in collections:
        plan = collection.plan
        asked = collection.asks(questions)
        missing = collection.index(asked).missing(recipe.collection.max_failed)
        if missing and collection.path is not None:
            _check_own(recipe, plan)
        elif missing:
            if not recipe.collection.endpoints.get(plan.model):
                raise UserError(
                    f"{plan.source} is needed to collect {len(missing)} responses and is not on "
                    "this machine; download it, or serve it and set "
                    f"collection.endpoints.{plan.model}=URL"
                )
            servers[plan.model] = _find_server(recipe, plan, probes)
    return servers


def _check_own(recipe: Recipe, plan: Plan) -> None:
    """Refuse what the server that the run starts cannot do."""
    if recipe.hardware.device == "cpu" and plan.fields is not None:
        raise UserError(
            f"collection.fields.{plan.model} is for a server of yours, and the run would start "
            "its own, which samples by the recipe's settings; leave it out"
        )
    if recipe.hardware.device == "cuda" and vllm_python() is None:
        raise UserError(
            f"{plan.model} is served by vLLM, which is not installed; install rilbench[gpu], or "
            f"give an address: collection.endpoints.{plan.model}=URL"
        )


def _find_server(recipe: Recipe, plan: Plan, probes: Sequence[Question]) -> ModelServer:
    """The user's servers of a model, as one: of several, some may be down."""
    named, urls = read_endpoints(recipe, plan.model)
    keys = [endpoint_key(plan.model, url) for url in urls]
    server = ModelServer(urls, named or plan.source, any(map(is_transformers, urls)), keys)
    if server.transformers and plan.fields is not None:
        raise _not_for_transformers(plan)
    troubles = [_why_down(plan, server, bool(named), url, probes) for url in urls]
    down = [trouble for trouble in troubles if trouble]
    if len(down) == len(urls):
        raise down[0]
    for trouble in down:
        log.warning("%s; the other servers of %s go on", trouble, plan.model)
    return server


def _not_for_transformers(plan: Plan) -> UserError:
    return UserError(
        f"collection.fields.{plan.model} is for servers of OpenAI's API, and transformers serve "
        "does not sample by them; leave it out"
    )


def _why_down(
    plan: Plan, server: ModelServer, named: bool, url: str, probes: Sequence[Question]
) -> UserError | None:
    """Why nothing answers at an address; None if the right model does."""
    try:
        # transformers serve lists what is in a cache, whatever it serves.
        if not (named and server.transformers):
            _check_list(plan, server, url)
        if probes:
            _probe(plan, server, url, probes)
    except (UnreachedError, UnansweredError) as error:
        return error
    return None


def _check_list(plan: Plan, server: ModelServer, url: str) -> None:
    """Refuse a server that lists other models than the one to ask; some list none."""
    setting = f"collection.endpoints.{plan.model}"
    remedy = f"start it, or set {setting} to its address"
    try:
        served = listed_models(url, api_key=endpoint_key(plan.model, url), remedy=remedy)
    except UnlistedError as error:
        log.info("%s", error)
        return
    if server.name not in served:
        shown = without_query_values(url)
        same = served[0] if len(served) == 1 else "MODEL"
        raise UserError(
            f"{shown} serves {', '.join(served[:5])}, not {server.name}, which is the {plan.model} "
            f"of the recipe; serve that, or say which is the same model: {setting}={same}@{shown}"
        )


def _probe(plan: Plan, server: ModelServer, url: str, questions: Sequence[Question]) -> None:
    """Ask for responses as the collecting will, with a picture; one question may be refused.

    Raises:
        UserError: the server refuses, or returns fewer than are asked for.
    """

    async def ask() -> list[Completion]:
        refusal: UserError | None = None
        async with ChatClient(
            url,
            server.name,
            transformers=server.transformers,
            api_key=endpoint_key(plan.model, url),
            retries=2,
            timeout=server.timeout,
        ) as client:
            for question in questions:
                seed = seed_for(plan, question.id, 0)
                try:
                    return await client.choices(*request(plan, question, seed, plan.per_request))
                except RequestRefusedError as error:
                    refusal = error
        raise refusal or UserError("there is no question to ask")

    setting = f"collection.fields.{plan.model}"
    try:
        choices = asyncio.run(ask())
    except RequestRefusedError as error:
        raise UserError(
            f"{plan.model}: {error}; set {setting} to the fields that it takes, such as "
            f"{setting}='{{max_completion_tokens: {plan.max_tokens}, temperature: 1}}' "
            "(docs/teachers.md)"
        ) from error
    except UnansweredError:
        raise
    except UserError as error:
        raise UserError(
            f"{plan.model}: {error}; check the address, the model's name ({server.name}) and the "
            f"key ({endpoint_variable(plan.model)} or {ENDPOINT_KEY})"
        ) from error
    if len(choices) < plan.per_request:
        raise UserError(
            f"{plan.model}: {without_query_values(url)} returns {len(choices)} response for "
            f"n={plan.per_request}; leave n out of {setting}"
        )
    log.info("%s: %s answers", plan.model, url)
