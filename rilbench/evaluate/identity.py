"""Whether the same model still answers at an endpoint: stored questions, asked again.

An endpoint's model is known by its name only, and a developer may serve each new checkpoint under
one name. So a few questions are kept with their responses in the work folder. Before stored
responses are used, the server is asked again; where it tells another folder or answers otherwise,
it serves another model, whose responses are kept apart from then on.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rilbench.api_keys import without_query_values
from rilbench.checkpoint import Checkpoint
from rilbench.errors import UserError
from rilbench.evaluate.endpoint import Endpoint, check_served, probed
from rilbench.evaluate.prompts import BenchmarkQuestion
from rilbench.ledger.records import utc_now
from rilbench.paths import whole_file
from rilbench.serving import Completion, Message, Sampling

STORED = 16
"""Questions that are kept."""
TOKENS = 48
"""Of a response that is asked for again; longer ones would diverge by rounding alone."""
_TOLERATED = 1  # of `STORED`: in a batch a server may round otherwise
_LARGEST = 512 * 1024  # characters of a question with its pictures
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stored:
    """A question and its response."""

    messages: list[Message]
    response: str
    is_cut: bool = False
    """Whether the response reached its limit."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    fields: Mapping[str, Any] | None = None
    """As it was sampled; see `rilbench.serving.Sampling`."""

    @property
    def sampling(self) -> Sampling:
        """How it is asked again."""
        return Sampling(TOKENS, extra=self.extra, fields=self.fields).limited(TOKENS)

    def is_answered_by(self, again: Completion) -> bool | None:
        """Whether a response is the same as far as both go; None if it says nothing."""
        said = again.reasoning + again.text
        if again.failed or not said:
            return None
        if again.finish_reason == "length" and self.response.startswith(said):
            return True
        return said.startswith(self.response) if self.is_cut else said == self.response


@dataclass(frozen=True)
class Model:
    """A model that answered at the endpoint."""

    since: str = ""
    urls: Sequence[str] = ()
    fingerprint: str = ""
    served: Mapping[str, str] = field(default_factory=dict)
    left_out: Sequence[str] = ()
    stored: Sequence[Stored] = ()
    at: str = ""
    """When the questions were stored."""


class IdentityFile:
    """The models that have answered to one name, newest last.

    Args:
        work: folder of the evaluation.
        endpoint: whose model it is.
        content: of the checkpoint that it is said to serve; empty if none is named.
    """

    def __init__(self, work: Path, endpoint: Endpoint, content: str = "") -> None:
        known = hashlib.sha256(f"{endpoint.model} {content}".encode()).hexdigest()[:16]
        self.path = work / "endpoints" / f"{known}.json"

    def read(self) -> list[Model]:
        """Return the models, oldest first.

        Raises:
            UserError: the file holds something else.
        """
        if not self.path.is_file():
            return []
        try:
            return [
                Model(**{**line, "stored": [Stored(**each) for each in line["stored"]]})
                for line in json.loads(self.path.read_text(encoding="utf-8"))
            ]
        except (ValueError, TypeError, LookupError) as error:
            raise UserError(f"{self.path} cannot be read ({error}); delete it") from error

    def store(self, since: str, questions: Sequence[Stored]) -> None:
        """Keep questions with the responses of the model that has been served since then.

        What it has stays where that is more.
        """
        (model,) = [each for each in self.read() if each.since == since]
        if len(questions) >= len(model.stored):
            self.write(replace(model, stored=questions, at=utc_now()))

    def write(self, model: Model) -> None:
        """Enter a model, in place of the one with the same date."""
        models = [each for each in self.read() if each.since != model.since] + [model]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(self.path) as part:
            part.write_text(json.dumps([asdict(each) for each in models]), encoding="utf-8")


@dataclass(frozen=True)
class ServedModel:
    """The model that an endpoint serves now."""

    endpoint: Endpoint
    file: IdentityFile
    notes: Mapping[str, str]
    """For people: ``identity``, why it is taken for one from before, or not; ``unknown``, what
    cannot be known."""


def serving_model(
    endpoint: Endpoint,
    work: Path,
    checkpoints: Sequence[Checkpoint],
    sampling: Sampling,
    *,
    fresh: bool = False,
) -> ServedModel:
    """Probe an endpoint, and find out which model it serves.

    Args:
        endpoint: as the user gave it.
        work: folder of the evaluation.
        checkpoints: the one that it is said to serve, if one is named.
        sampling: of the evaluation.
        fresh: every question is asked again.

    Raises:
        UserError: it refuses, serves another model than the named one, or never answered; or does
            not answer now and is to be asked everything again.
    """
    file = IdentityFile(work, endpoint, checkpoints[0].content if checkpoints else "")
    endpoint = probed(endpoint, sampling)
    if fresh and not endpoint.answers and file.read():
        raise UserError(
            f"no server answers at {endpoint.url}, so that nothing can be asked again; start it, "
            "or leave out --fresh to use the stored responses"
        )
    endpoint, said = recognise(endpoint, file)
    unknown = ""
    if checkpoints and endpoint.answers:
        unknown = check_served(endpoint, checkpoints[0])
    notes = {key: text for key, text in (("identity", said), ("unknown", unknown)) if text}
    return ServedModel(endpoint, file, notes)


def recognise(endpoint: Endpoint, file: IdentityFile) -> tuple[Endpoint, str]:
    """Return the endpoint as one of the models that answered before, or as a new one, and why.

    Args:
        endpoint: probed.
        file: with the models so far.

    Raises:
        UserError: no server answers, and none ever did.
    """
    models = file.read()
    if not endpoint.answers:
        if not models:
            raise UserError(f"no server answers at {endpoint.url}; start it, or give its address")
        why = "no server answers, so that no question was asked again"
        return _as_before(endpoint, models[-1]), why
    if not models:
        file.write(_new(endpoint))
        return endpoint, ""
    told = []
    for model in reversed(models):
        same, said = _is_same(endpoint, model)
        if same:
            return _as_before(endpoint, model), said
        told.append(said)
    endpoint = replace(endpoint, since=utc_now())
    file.write(_new(endpoint))
    said = f"{told[0]}: another model is served, and everything is asked again"
    _log.warning("%s at %s: %s", endpoint.model, endpoint.url, said)
    return endpoint, said


def _new(endpoint: Endpoint) -> Model:
    return Model(
        endpoint.since,
        endpoint.shown_urls,
        endpoint.checkpoint.fingerprint,
        endpoint.served,
        endpoint.left_out,
    )


def _as_before(endpoint: Endpoint, model: Model) -> Endpoint:
    left_out = endpoint.left_out if endpoint.answers else tuple(model.left_out)
    return replace(endpoint, since=model.since, fingerprint=model.fingerprint, left_out=left_out)


def _is_same(endpoint: Endpoint, model: Model) -> tuple[bool, str]:
    """Whether a model from before still answers, and why."""
    for key, before in model.served.items():
        now = endpoint.served.get(key, before)
        if now != before:
            return False, f"the server tells {key} {now}, and {before} before"
    if not model.stored:
        why = "no question was stored that could be asked again"
        urls = {without_query_values(url) for url in model.urls}  # Older files have them whole.
        return not urls.isdisjoint(endpoint.shown_urls), why
    again = asyncio.run(_ask_again(endpoint, model.stored))
    compared = [
        same
        for each, completion in zip(model.stored, again, strict=True)
        if (same := each.is_answered_by(completion)) is not None
    ]
    other = compared.count(False)
    date = model.at[:16].replace("T", " ")
    if not compared:
        return True, f"no question stored on {date} could be compared"
    said = f"of {len(compared)} questions stored on {date}, {other} are answered otherwise now"
    tolerated = _TOLERATED if len(compared) >= STORED // 2 else 0
    return other <= tolerated, said


async def _ask_again(endpoint: Endpoint, stored: Sequence[Stored]) -> list[Completion]:
    found: dict[int, Completion] = {}
    requests = ((place, each.messages, each.sampling) for place, each in enumerate(stored))
    async with endpoint.client(STORED) as client:
        async for place, (completion, *_) in client.complete_all(requests, keep_refused=True):
            found[place] = completion
    return [found[place] for place in range(len(stored))]


def choose(
    candidates: Sequence[tuple[BenchmarkQuestion, Completion]],
    messages: Callable[[BenchmarkQuestion], list[Message]],
    sampling: Sampling,
    left_out: Sequence[str] = (),
) -> list[Stored]:
    """Return the questions to keep: those with the longest responses, which tell most.

    None where the responses are not greedy, and so differ each time.

    Args:
        candidates: questions with their responses.
        messages: returns a question's request.
        sampling: of the responses.
        left_out: fields that the server refuses.
    """
    fields = sampling.fields
    greedy = fields.get("temperature") == 0 if fields is not None else not sampling.temperature
    if not greedy or "temperature" in left_out:
        return []
    ordered = sorted(candidates, key=lambda each: -len(each[1].reasoning + each[1].text))
    kept: list[Stored] = []
    for question, completion in ordered[: 4 * STORED]:
        request, said = messages(question), completion.reasoning + completion.text
        if said and len(json.dumps(request)) <= _LARGEST:
            is_cut = completion.finish_reason == "length"
            kept.append(Stored(request, said, is_cut, sampling.extra, fields))
        if len(kept) == STORED:
            break
    return kept
