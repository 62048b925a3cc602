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
import logging
import random
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from rilbench.api_keys import NO_KEY
from rilbench.errors import UserError
from rilbench.serving.endpoints import checked, proxy_for, read_body, refusal

Message = dict[str, Any]
"""One OpenAI chat message: role, and content as text or as a list of parts."""

_Key = TypeVar("_Key")


@dataclass(frozen=True)
class Sampling:
    """How to sample a completion. ``top_k`` 0 means all tokens; ``extra`` goes to transformers'
    ``generation_config`` (or, for other servers, into the request) as it is.
    """

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Completion:
    """One response: its text, ``stop`` or ``length``, token counts, and seconds to get it.

    Where there is none, the finish reason is ``error: `` and why.
    """

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    reasoning: str = ""
    """What a thinking model's server returns apart from the text."""

    @property
    def failed(self) -> bool:
        """Whether there is no response."""
        return self.finish_reason.startswith(_FAILED)


_FAILED = "error: "
_REFUSALS = frozenset({400, 413, 415, 422})
"""HTTP statuses for a request that a server cannot serve, such as a prompt too long for it."""
_LONGEST = 4 * 1024**2  # bytes of a reply; the longest responses have thousands
_LONGEST_DETAIL = 64 * 1024  # bytes of a refusal that are read
_LONGEST_PAUSE = 30.0  # seconds between attempts by default
_LONGEST_RETRY_AFTER = 60.0  # seconds that a server may ask for

_log = logging.getLogger(__name__)


def failure(why: str) -> Completion:
    """Return the completion that takes the place of a response that cannot be had."""
    return Completion("", _FAILED + why, 0, 0, 0.0)


class RequestRefusedError(UserError):
    """The server refused this request, or its reply is no completion; it may serve others."""


class UnansweredError(UserError):
    """The server did not answer this request in any attempt."""


@dataclass(frozen=True)
class _Trouble:
    """Why an attempt failed and may be repeated."""

    why: str
    busy: bool = False
    """The server works but has too much to do."""
    pause: float = 0.0
    """Seconds after which it asks to be tried again."""


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
    """A client of an OpenAI-compatible server, with at most ``concurrency`` requests in flight.

    Use it as an async context manager. Connection errors, time-outs, 429 and 5xx are tried again
    after growing, jittered pauses, or as long as ``Retry-After`` says (a minute at most). The
    user's proxies are honoured, except for a server on this machine.

    Args:
        base_url: the address, up to and with ``/v1``.
        model: the name that the server knows.
        transformers: the server is ``transformers serve``, whose sampling fields differ.
        api_key: sent as a bearer token, never written anywhere.
        concurrency: requests in flight.
        retries: further attempts after the first.
        timeout: seconds for one attempt.
        patience: seconds for which a server that is busy (429, or 503 with ``Retry-After``) is
            tried again, however often.

    Raises:
        UserError: the address is not valid.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        transformers: bool = False,
        api_key: str = NO_KEY,
        concurrency: int = 8,
        retries: int = 4,
        timeout: float = 600.0,
        patience: float = 300.0,
    ) -> None:
        self.base_url, self.model = checked(base_url), model
        self.transformers = transformers
        self.concurrency, self.retries = concurrency, retries
        self._timeout, self._patience, self._api_key = timeout, patience, api_key
        self._session: Any = None

    async def __aenter__(self) -> "ChatClient":
        import aiohttp

        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=self._timeout),
            connector=aiohttp.TCPConnector(limit=self.concurrency),
            headers={"Authorization": f"Bearer {self._api_key}"},
            proxy=proxy_for(self.base_url),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def complete(self, messages: Sequence[Message], sampling: Sampling) -> Completion:
        """Return one completion.

        Raises:
            UserError: the server refused the request, or still failed after all attempts.
        """
        body = self._body(messages, sampling)
        begun, attempts, failures = time.monotonic(), 0, 0
        while True:
            start = time.monotonic()
            reply = await self._post(body)
            if not isinstance(reply, _Trouble):
                return _completion(reply, time.monotonic() - start)
            pause = max(min(0.5 * 2**attempts, _LONGEST_PAUSE), reply.pause)
            pause *= random.uniform(1.0, 1.25)
            # A busy server is no failure: it gets its patience, others their number of retries.
            attempts, failures = attempts + 1, failures + (not reply.busy)
            late = time.monotonic() + pause > begun + self._patience
            if failures > self.retries or (reply.busy and late):
                raise UnansweredError(
                    f"{self.base_url} did not answer after {attempts} tries ({reply.why}); "
                    "look at the server, then run again"
                )
            _log.debug("%s: %s; trying again in %.1f s", self.base_url, reply.why, pause)
            await asyncio.sleep(pause)

    async def complete_all(
        self,
        requests: Iterable[tuple[_Key, Sequence[Message], Sampling]],
        *,
        keep_refused: bool = False,
    ) -> AsyncIterator[tuple[_Key, Completion]]:
        """Yield ``(key, completion)`` as responses arrive, in no fixed order.

        The iterable is read only as far as ``concurrency`` allows, so images can be read lazily.
        The first error ends it, after the responses that came with it, and cancels the requests in
        flight. With ``keep_refused`` a request that the server refuses yields a failure instead,
        and so does one that it never answers (always with 500, say) while it answers others.
        """
        pending: set[asyncio.Task[tuple[_Key, Completion]]] = set()
        source = iter(requests)
        try:
            while True:
                while len(pending) < self.concurrency:
                    request = next(source, None)
                    if request is None:
                        break
                    pending.add(asyncio.ensure_future(self._keyed(keep_refused, *request)))
                if not pending:
                    return
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                errors = [error for task in done if (error := task.exception()) is not None]
                for task in done:
                    if task.exception() is None:
                        yield task.result()
                if errors:
                    raise errors[0]
        finally:
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)

    async def _keyed(
        self, keep_refused: bool, key: _Key, messages: Sequence[Message], sampling: Sampling
    ) -> tuple[_Key, Completion]:
        try:
            return key, await self.complete(messages, sampling)
        except (RequestRefusedError, UnansweredError) as error:
            if not keep_refused or (isinstance(error, UnansweredError) and await self._is_down()):
                raise
            return key, failure(str(error))

    async def _is_down(self) -> bool:
        """Return whether the server neither answers nor refuses one word in three attempts.

        One attempt is not enough: with a flaky server it fails as often as any other request, which
        is certain to happen among hundreds of thousands.
        """
        body = self._body([{"role": "user", "content": "hello"}], Sampling(max_tokens=1))
        for pause in (0.0, 0.5, 1.0):
            await asyncio.sleep(pause)
            try:
                if not isinstance(await self._post(body), _Trouble):
                    return False
            except RequestRefusedError:
                return False
        return True

    async def _post(self, body: dict[str, Any]) -> dict[str, Any] | _Trouble:
        """Send the request once: the decoded reply, or why there is none and it may be repeated."""
        import aiohttp

        url = f"{self.base_url}/chat/completions"
        try:
            async with self._session.post(url, json=body) as response:
                if response.status == 200:
                    content = await read_body(response, _LONGEST)
                    if len(content) > _LONGEST:
                        raise RequestRefusedError(f"{url} replied with more than {_LONGEST} bytes")
                    try:
                        return dict(json.loads(content))
                    except (ValueError, TypeError, RecursionError):
                        return _Trouble(f"no JSON: {content[:100].decode('utf-8', 'replace')}")
                content = await read_body(response, _LONGEST_DETAIL)
        except (aiohttp.ClientError, asyncio.TimeoutError) as error:
            return _Trouble(f"{type(error).__name__} {error}".strip())
        detail = refusal(content, self._api_key)[:300]
        status, retry_after = response.status, response.headers.get("Retry-After")
        if status == 429 or status >= 500:
            busy = status == 429 or (status == 503 and retry_after is not None)
            # A date instead of seconds, which few servers send, is read as "any time".
            after = float(retry_after) if retry_after and retry_after.isdecimal() else 0.0
            pause = min(after, _LONGEST_RETRY_AFTER) if busy else 0.0
            return _Trouble(f"{status} {detail}".strip(), busy, pause)
        kind = RequestRefusedError if status in _REFUSALS else UserError
        raise kind(f"{url} refused a request with {status}: {detail}")

    def _body(self, messages: Sequence[Message], sampling: Sampling) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.model,
            "messages": list(messages),
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
                "top_k": sampling.top_k,
                **sampling.extra,
            }
            body["generation_config"] = json.dumps(config)
        else:
            if sampling.top_k:
                body["top_k"] = sampling.top_k
            body.update(sampling.extra)
        return body


def _completion(reply: dict[str, Any], seconds: float) -> Completion:
    try:
        choice, usage = reply["choices"][0], reply.get("usage") or {}
        message = choice["message"]
        return Completion(
            text=_valid_text(message.get("content")),
            reasoning=_valid_text(message.get("reasoning_content") or message.get("reasoning")),
            finish_reason=str(choice.get("finish_reason") or "unknown"),
            prompt_tokens=int(usage.get("prompt_tokens") or 0),
            completion_tokens=int(usage.get("completion_tokens") or 0),
            seconds=seconds,
        )
    except (LookupError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise RequestRefusedError(
            f"the server's answer is not an OpenAI chat completion: {str(reply)[:200]}"
        ) from error


def _valid_text(text: str | None) -> str:
    # Half of a surrogate pair is legal in JSON, but no file or database takes it.
    return (text or "").encode("utf-8", "replace").decode("utf-8")
