"""Ask an OpenAI-compatible server for completions, with bounded concurrency and retries.

What ``transformers serve`` 5.10 does with a request, as read in its source and measured:

- It generates one request at a time for vision-language models (its continuous batching is for
  text models only), so concurrency only hides the image processing.
- ``temperature`` alone does not sample: ``do_sample`` comes from the model's generation config.
  The client therefore sends a ``generation_config`` of its own; what that leaves open (end token,
  repetition penalty) is filled in from the model's. ``n`` is ignored, an unknown field refused.
- ``seed`` seeds torch when the request *arrives*: it decides the text only at concurrency 1.
- Special tokens are removed from the text; the end token counts in ``completion_tokens``.
"""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rilbench.api_keys import NO_KEY
from rilbench.errors import UserError
from rilbench.serving.concurrency import GrowingConcurrency
from rilbench.serving.endpoints import all_checked, joined
from rilbench.serving.reply import Completion, NoCompletionError, failure, read_completions

if TYPE_CHECKING:
    from rilbench.serving.transport import NoReplyError, Transport

Message = dict[str, Any]
"""One OpenAI chat message: role, and content as text or as a list of parts."""

LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
"""Names of the longest response in a request; servers know one of them."""

_Key = TypeVar("_Key")


@dataclass(frozen=True)
class Sampling:
    """How to sample a completion. ``top_k`` 0 means all tokens; -1 says so to a server that may
    have a default of its own. ``extra`` goes to transformers' ``generation_config`` (or, for other
    servers, into the request) as it is.

    With ``fields`` nothing else of this is sent: they are the request's own, as the server takes
    them.
    """

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    fields: Mapping[str, Any] | None = None

    def with_limit(self) -> "Sampling":
        """Return it with ``max_tokens`` among the fields, unless they name a limit."""
        if self.fields is None or any(name in self.fields for name in LIMITS):
            return self
        return replace(self, fields={"max_tokens": self.max_tokens, **self.fields})

    def limited(self, most: int) -> "Sampling":
        """Return it for responses of so many tokens at most."""
        shorter = replace(self, max_tokens=min(self.max_tokens, most)).with_limit()
        if shorter.fields is None:
            return shorter
        fields = {
            name: most if name in LIMITS and value is not None and value > most else value
            for name, value in shorter.fields.items()
        }
        return replace(shorter, fields=fields)


PROBE = "hello"
"""The question with which a server is tried; VLMEvalKit asks a judge the same."""
_PATH = "/chat/completions"
_REFUSALS = frozenset({400, 413, 415, 422})
"""HTTP statuses for a request that a server cannot serve, such as a prompt too long for it."""


class RequestRefusedError(UserError):
    """The server refused this request, or its reply is no completion; it may serve others."""


class UnansweredError(UserError):
    """The server did not answer this request in any attempt."""


def text_part(text: str) -> dict[str, Any]:
    """Return an OpenAI content part with text."""
    return {"type": "text", "text": text}


_MEDIA_TYPES = {
    b"\xff\xd8": "jpeg",
    b"RIFF": "webp",
    b"GIF8": "gif",
    b"BM": "bmp",
    b"II*\0": "tiff",
    b"MM\0*": "tiff",
}
"""By the first bytes of an image file; strict servers refuse another's name."""


def image_part(image: Path | bytes) -> dict[str, Any]:
    """Return an OpenAI content part with an image file (or its bytes) as a ``data:`` URL."""
    data = image if isinstance(image, bytes) else image.read_bytes()
    kind = next((kind for start, kind in _MEDIA_TYPES.items() if data.startswith(start)), "png")
    encoded = base64.b64encode(data).decode("ascii")
    return {"type": "image_url", "image_url": {"url": f"data:image/{kind};base64,{encoded}"}}


class ChatClient:
    """A client of an OpenAI-compatible server, with ``concurrency`` requests in flight.

    Use it as an async context manager. Passing trouble is tried again, at another server where
    there are several, and ``Retry-After`` is kept to (`rilbench.serving.transport`). The user's
    proxies are honoured, except for a server on this machine.

    Args:
        base_url: the address, up to and with ``/v1``, or those of several servers of the model.
        model: the name that the server knows.
        transformers: the server is ``transformers serve``, whose sampling fields differ.
        api_key: sent as a bearer token, or those of the servers in order; never written anywhere.
        concurrency: requests in flight, at first.
        most: to which they may grow in `complete_all` while that brings more responses per second
            (`rilbench.serving.concurrency`); 0: they stay.
        retries: further attempts after the first.
        timeout: seconds for one attempt.
        patience: seconds for which a server that is busy (429, or 503 with ``Retry-After``) and
            answers nobody is tried again, however often.
        leave_out: names of fields that the servers refuse.
        adapts: find them, see `rilbench.serving.transport.Transport`.

    Raises:
        UserError: the address is not valid.
    """

    def __init__(
        self,
        base_url: str | Sequence[str],
        model: str,
        *,
        transformers: bool = False,
        api_key: str | Sequence[str] = NO_KEY,
        concurrency: int = 8,
        most: int = 0,
        retries: int = 4,
        timeout: float = 600.0,
        patience: float = 300.0,
        leave_out: Iterable[str] = (),
        adapts: bool = False,
    ) -> None:
        self.urls = all_checked(base_url)
        self.model, self.transformers = model, transformers
        self.concurrency, self.most = concurrency, max(concurrency, most)
        self.retries = retries
        self._timeout, self._patience, self._api_key = timeout, patience, api_key
        self._leave_out, self._adapts = set(leave_out), adapts
        self._connected: Transport | None = None

    async def __aenter__(self) -> "ChatClient":
        from rilbench.serving.transport import Transport

        self._connected = Transport(
            self.urls,
            self._api_key,
            concurrency=self.most,
            retries=self.retries,
            backoff=0.5,
            timeout=self._timeout,
            patience=self._patience,
            adapts=self._adapts,
        )
        self._connected.left_out |= self._leave_out
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._transport.close()

    @property
    def _transport(self) -> "Transport":
        if self._connected is None:
            raise RuntimeError("a ChatClient is used within its context")
        return self._connected

    @property
    def left_out(self) -> list[str]:
        """Names of the fields that are left out, within the context."""
        return sorted(self._transport.left_out)

    async def complete(self, messages: Sequence[Message], sampling: Sampling) -> Completion:
        """Return one completion; raises as `choices`."""
        return (await self.choices(messages, sampling))[0]

    async def probe(self, sampling: Sampling) -> str:
        """Ask for one word as in a real request; return the name under which the model replies.

        Raises:
            UserError: as `choices`.
        """
        from rilbench.serving.transport import NoReplyError

        body = self._body([{"role": "user", "content": PROBE}], sampling)
        try:
            reply = await self._transport.request("POST", _PATH, body, _decoded)
        except NoReplyError as error:
            raise _in_words(error) from error
        return str(reply.get("model") or "")

    async def choices(self, messages: Sequence[Message], sampling: Sampling) -> list[Completion]:
        """Return as many completions as ``sampling.fields`` ask for (``n``), or as the server has.

        Raises:
            UserError: the server refused the request, or still failed after all attempts.
        """
        from rilbench.serving.transport import NoReplyError

        start, body = time.monotonic(), self._body(messages, sampling)
        try:
            reply = await self._transport.request("POST", _PATH, body, _decoded)
        except NoReplyError as error:
            raise _in_words(error) from error
        try:
            return read_completions(reply, time.monotonic() - start)
        except NoCompletionError as error:
            raise RequestRefusedError(f"the server's answer is {error}") from error

    async def complete_all(
        self,
        requests: Iterable[tuple[_Key, Sequence[Message], Sampling]],
        *,
        keep_refused: bool = False,
    ) -> AsyncIterator[tuple[_Key, list[Completion]]]:
        """Yield ``(key, completions)`` as responses arrive, in no fixed order.

        The iterable is read only as far as requests are sent, so images can be read lazily.
        The first error ends it, after the responses that came with it, and cancels the requests in
        flight. With ``keep_refused`` a request that the server refuses yields a failure instead,
        and so does one that it never answers (always with 500, say) while it answers others.
        """
        pending: set[asyncio.Task[tuple[_Key, list[Completion]]]] = set()
        # Not asyncio.wait, which looks at all that are pending each time.
        ended: asyncio.Queue[asyncio.Task[tuple[_Key, list[Completion]]]] = asyncio.Queue()
        in_flight = GrowingConcurrency(self.concurrency, self.most)
        source = iter(requests)
        try:
            while True:
                while len(pending) < in_flight.number:
                    request = next(source, None)
                    if request is None:
                        break
                    task = asyncio.ensure_future(self._keyed(keep_refused, *request))
                    task.add_done_callback(ended.put_nowait)
                    pending.add(task)
                if not pending:
                    return
                done = [await ended.get()]
                while not ended.empty():
                    done.append(ended.get_nowait())
                pending.difference_update(done)
                errors = [error for task in done if (error := task.exception()) is not None]
                for task in done:
                    if task.exception() is None:
                        in_flight.note(time.monotonic(), self._transport.overloads)
                        yield task.result()
                if errors:
                    raise errors[0]
        finally:
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)

    async def _keyed(
        self, keep_refused: bool, key: _Key, messages: Sequence[Message], sampling: Sampling
    ) -> tuple[_Key, list[Completion]]:
        try:
            return key, await self.choices(messages, sampling)
        except (RequestRefusedError, UnansweredError) as error:
            if not keep_refused or (isinstance(error, UnansweredError) and await self._is_down()):
                raise
            return key, [failure(str(error))]

    async def _is_down(self) -> bool:
        """Return whether the server neither answers nor refuses one word in three attempts or more.

        One attempt is not enough: with a flaky server it fails as often as any other request, which
        is certain to happen among hundreds of thousands.
        """
        from rilbench.serving.transport import NoReplyError

        body = self._body([{"role": "user", "content": PROBE}], Sampling(max_tokens=1))
        try:
            most = 2 + len(self.urls)
            await self._transport.request("POST", _PATH, body, _decoded, most=most)
        except NoReplyError as error:
            return error.passing
        return False

    def _body(self, messages: Sequence[Message], sampling: Sampling) -> dict[str, Any]:
        body: dict[str, Any] = {"model": self.model, "messages": list(messages)}
        if sampling.fields is not None:
            return {**body, **{k: v for k, v in sampling.fields.items() if v is not None}}
        body |= {
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
        }
        if sampling.seed is not None:
            body["seed"] = sampling.seed
        if self.transformers:
            config = {
                "do_sample": sampling.temperature > 0,
                "temperature": sampling.temperature,
                "top_p": sampling.top_p,
                "top_k": max(sampling.top_k, 0),
                **sampling.extra,
            }
            body["generation_config"] = json.dumps(config)
        else:
            if sampling.top_k:
                body["top_k"] = sampling.top_k
            body.update(sampling.extra)
        return body


def _decoded(content: bytes) -> dict[str, Any]:
    try:
        return dict(json.loads(content))
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(content[:100].decode("utf-8", "replace")) from error


def _in_words(error: "NoReplyError") -> UserError:
    """The error for the user of a request that brought no reply."""
    if error.passing:
        return UnansweredError(
            f"{error.url} did not answer after {error.tries} tries ({error}); look at the server, "
            "then run again"
        )
    kind = RequestRefusedError if error.status in (0, *_REFUSALS) else UserError
    why = str(error).removeprefix("HTTP ")
    return kind(f"{joined(error.url, _PATH)} refused a request with {why}")
