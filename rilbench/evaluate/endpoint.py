"""An endpoint: a server, or several of one model, that already serves the model to evaluate."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from rilbench.api_keys import ENDPOINT_KEY, endpoint_key, without_query_values
from rilbench.checkpoint import Checkpoint, Labels, inspect_checkpoint
from rilbench.errors import UserError
from rilbench.serving import (
    ChatClient,
    Sampling,
    UnansweredError,
    UnlistedError,
    UnreachedError,
    is_transformers,
    servers_of_model,
    several,
)
from rilbench.serving.endpoints import listed_by_all, models_list

_PROBE_TOKENS = 512
_TELLS = ("root", "revision", "parent")
"""What the list of models of some servers (vLLM's) has about the model behind its name."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Endpoint:
    """OpenAI-compatible servers of one model."""

    urls: tuple[str, ...]
    """Up to ``/v1``."""
    model: str
    """Its name there."""
    transformers: bool = False
    """Whether it is ``transformers serve``, which deviates from the OpenAI API."""
    left_out: tuple[str, ...] = ()
    """Fields of a request that the server refuses."""
    served: Mapping[str, str] = field(default_factory=dict)
    """What it tells about the model behind the name: where it was loaded from, its revision, the
    name under which it replies."""
    since: str = ""
    """When another model took this one's place behind the name; empty for the first one."""
    fingerprint: str = ""
    """By which the ledger knows the model; empty: of its name and address."""
    answers: bool = True
    """Whether any of the servers answered the probe."""

    @property
    def url(self) -> str:
        """All addresses, for people and records."""
        return ", ".join(self.shown_urls)

    @property
    def shown_urls(self) -> list[str]:
        """All addresses without what may be a key in them."""
        return [without_query_values(url) for url in self.urls]

    @property
    def name(self) -> str:
        """The model's name, with the date where it has belonged to another model before."""
        return f"{self.model} since {self.since}" if self.since else self.model

    @property
    def checkpoint(self) -> Checkpoint:
        """The model's labels, and its fingerprint."""
        known = f"{self.model}@{min(self.shown_urls)}" + (f" {self.since}" if self.since else "")
        fingerprint = self.fingerprint or hashlib.sha256(known.encode()).hexdigest()[:16]
        labels = Labels(student=self.model.rsplit("/", 1)[-1], method="base", teacher="none")
        return Checkpoint(Path(self.model), fingerprint, "a model known by its name only", labels)

    def client(self, concurrency: int, most: int = 0) -> ChatClient:
        """Return a client of all its servers; arguments as there."""
        return ChatClient(
            self.urls,
            self.model,
            transformers=self.transformers,
            api_key=[self.key(url) for url in self.urls],
            concurrency=concurrency,
            most=most,
            leave_out=self.left_out,
        )

    def key(self, url: str) -> str:
        """Return the key for one of its servers."""
        return endpoint_key(self.model, url)


def find_endpoint(option: str) -> Endpoint:
    """Read ``[MODEL@]URL``, or several divided by commas; without a name the first listed model.

    Raises:
        UserError: it is neither, or no server lists a model.
    """
    model, urls = servers_of_model("--endpoint", several(option))
    transformers = any(map(is_transformers, urls))
    if not model:
        model = listed_by_all(urls, [endpoint_key(url=url) for url in urls])
    return Endpoint(tuple(urls), model, transformers)


def probed(endpoint: Endpoint, sampling: Sampling) -> Endpoint:
    """Ask each server one word with the fields of the real requests; what they refuse and tell.

    Where some do not answer, the others go on, with a warning. Where none does, ``answers`` is
    False.

    Raises:
        UserError: a server refuses: a wrong key, an unknown model, a field.
    """
    found = [_probe(endpoint, url, sampling) for url in endpoint.urls]
    down = [each for each in found if isinstance(each, UserError)]
    for error in down:
        others = "the other servers go on" if len(down) < len(found) else "no server answers"
        _log.warning("%s; %s", error, others)
    up = [each for each in found if not isinstance(each, UserError)]
    left_out = sorted({name for each in up for name in each[0]})
    if left_out:
        _log.warning("%s refuses %s: left out", endpoint.model, ", ".join(left_out))
    served = {key: value for each in up for key, value in each[1].items()}
    return replace(endpoint, left_out=tuple(left_out), served=served, answers=bool(up))


def _probe(
    endpoint: Endpoint, url: str, sampling: Sampling
) -> tuple[list[str], dict[str, str]] | UnansweredError:
    """Return what a server refuses, and what it tells about its model; or why it does not answer.

    Raises:
        UserError: it refuses.
    """

    async def ask() -> tuple[list[str], str]:
        client = ChatClient(
            url,
            endpoint.model,
            transformers=endpoint.transformers,
            api_key=endpoint.key(url),
            retries=2,
            adapts=sampling.fields is None,
        )
        async with client:
            replied_as = await client.probe(sampling.limited(_PROBE_TOKENS))
            return client.left_out, replied_as

    try:
        left_out, replied_as = asyncio.run(ask())
    except UnansweredError as error:
        return error
    except UserError as error:
        raise UserError(f"{error}{_what_helps(endpoint, url)}") from error
    served = _listed(endpoint, url)
    return left_out, {**served, "replies_as": replied_as} if replied_as else served


def _listed(endpoint: Endpoint, url: str) -> dict[str, str]:
    """Return what a server's list of models tells about the model."""
    if endpoint.transformers:  # It lists a cache.
        return {}
    try:
        listed = models_list(url, api_key=endpoint.key(url), remedy="")
    except (UnlistedError, UnreachedError):
        return {}
    entry = next((each for each in listed if each["id"] == endpoint.model), {})
    return {key: str(entry[key]) for key in _TELLS if entry.get(key)}


def _what_helps(endpoint: Endpoint, url: str) -> str:
    """Return the remedy for a refused probe: the names that the server knows, key or fields."""
    try:
        names = [str(each["id"]) for each in models_list(url, api_key=endpoint.key(url), remedy="")]
    except (UnlistedError, UnreachedError):
        names = [endpoint.model]
    if endpoint.model not in names:
        return f"; it serves {', '.join(names[:5])}, not {endpoint.model}"
    return (
        f"; check the model's name ({endpoint.model}), the key ({ENDPOINT_KEY}), or give the "
        "fields that it takes: --fields '{max_completion_tokens: 4096}'"
    )


def check_served(endpoint: Endpoint, checkpoint: Checkpoint) -> str:
    """Check that a server serves a checkpoint; return what cannot be known, empty if nothing.

    vLLM tells the folder that it has loaded, which counts where it is on this machine.

    Raises:
        UserError: it serves another model.
    """
    root = Path(endpoint.served.get("root", ""))
    if not (root.is_absolute() and root.is_dir()):
        told = endpoint.served.get("root") or endpoint.model
        return f"whether {endpoint.url} serves {checkpoint.path} is not known; it tells {told}"
    if root.resolve() == checkpoint.path or inspect_checkpoint(root).content == checkpoint.content:
        return ""
    raise UserError(
        f"{endpoint.url} serves {root}, which is another model than {checkpoint.path}; serve that, "
        f"or evaluate what is served: --model {root}"
    )
