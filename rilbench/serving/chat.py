"""Ask an OpenAI-compatible server for completions: bounded, patient, resumable.

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
import random
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from rilbench.api_keys import NO_KEY, without_key
from rilbench.errors import UserError
from rilbench.serving.endpoints import checked, proxy_for, read_body

Message = dict[str, Any]
"""One OpenAI chat message: role, and content as text or as a list of parts."""

_Key = TypeVar("_Key")


@dataclass(frozen=True)
class Sampling:
    """How to draw a completion. ``top_k`` 0 means all tokens; ``extra`` goes to transformers'
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
    """One answer: its text, ``stop`` or ``length``, token counts, seconds until it was there.

    Where there is none, the finish reason is ``error: `` and why.
    """

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    seconds: float

    @property
    def failed(self) -> bool:
        """There is no answer."""
        return self.finish_reason.startswith(_FAILED)


_FAILED = "error: "
_REFUSALS = frozenset({400, 413, 415, 422})
"""What a server says to one request that it cannot serve, such as a prompt too long for it."""
_LONGEST = 4 * 1024**2  # bytes of a reply; the longest answers have thousands
_LONGEST_DETAIL = 64 * 1024  # bytes of a refusal that are read
_LONGEST_PAUSE = 30.0  # seconds between tries, of our own accord
_LONGEST_ASKED_FOR = 60.0  # and as the server asks


def failure(why: str) -> Completion:
    """What stands in the place of an answer that cannot be had."""
    return Completion("", _FAILED + why, 0, 0, 0.0)


class RefusedError(UserError):
    """The server refused this request, or its answer is none; it may serve others."""


class UnansweredError(UserError):
    """The server did not answer this request, however often it was tried."""


@dataclass(frozen=True)
class _Trouble:
    """Why a try brought no answer and may be repeated."""

    why: str
    busy: bool = False
    """The server is well but has too much to do."""
    pause: float = 0.0
    """Seconds for which it asks to be left alone."""


def text_part(text: str) -> dict[str, Any]:
    """An OpenAI content part with text."""
    return {"type": "text", "text": text}


def image_part(image: Path | bytes) -> dict[str, Any]:
    """An OpenAI content part that carries an image file (or its bytes) as a ``data:`` URL."""
    data = image if isinstance(image, bytes) else image.read_bytes()
    kind = "jpeg" if data.startswith(b"\xff\xd8") else "png"
    encoded = base64.b64encode(data).decode("ascii")
    return {"type": "image_url", "image_url": {"url": f"data:image/{kind};base64,{encoded}"}}


class ChatClient:
    """Asks an OpenAI-compatible server, at most ``concurrency`` requests at a time.

    Use it as an async context manager. Connection errors, time-outs, 429 and 5xx are tried again
    with growing, jittered pauses, as long as ``Retry-After`` says (a minute at most). The user's
    proxies are honoured, except for a server on this machine.

    Args:
        base_url: up to and with ``/v1``.
        model: name that the server knows.
        transformers: the server is ``transformers serve``, whose sampling fields differ.
        api_key: sent as a bearer token, never written anywhere.
        concurrency: requests in flight.
        retries: further tries after the first.
        timeout: seconds for one try.
        patience: seconds for which a server that is busy (429, or 503 with ``Retry-After``) is
            tried again, however often; giving it up would save nothing but time.

    Raises:
        UserError: the address is none.
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
            UserError: the server refused the request, or still failed after all tries.
        """
        body = self._body(messages, sampling)
        begun, tries, failures = time.monotonic(), 0, 0
        while True:
            start = time.monotonic()
            answer = await self._post(body)
            if not isinstance(answer, _Trouble):
                return _completion(answer, time.monotonic() - start)
            pause = max(min(0.5 * 2**tries, _LONGEST_PAUSE), answer.pause)
            pause *= random.uniform(1.0, 1.25)
            tries, failures = tries + 1, failures + (not answer.busy)
            late = time.monotonic() + pause > begun + self._patience
            if failures > self.retries or (answer.busy and late):
                raise UnansweredError(
                    f"{self.base_url} did not answer after {tries} tries ({answer.why}); "
                    "look at the server, then run again"
                )
            await asyncio.sleep(pause)

    async def complete_all(
        self,
        requests: Iterable[tuple[_Key, Sequence[Message], Sampling]],
        *,
        keep_refused: bool = False,
    ) -> AsyncIterator[tuple[_Key, Completion]]:
        """Yield ``(key, completion)`` as answers arrive, in no fixed order.

        The iterable is drawn only as far as ``concurrency`` allows, so images can be read lazily.
        The first error ends it, after the answers that came with it, and cancels the requests in
        flight; but with ``keep_refused`` a request that the server refuses yields a failure, and so
        does one that it never answers, such as always with 500, if it still answers another.
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
        except (RefusedError, UnansweredError) as error:
            if not keep_refused or (isinstance(error, UnansweredError) and await self._is_down()):
                raise
            return key, failure(str(error))

    async def _is_down(self) -> bool:
        """Whether not even a word is answered, nor refused, in a few tries.

        One try would not do: of a flaky server it fails as often as any other request, and over
        hundreds of thousands of them that is certain to come.
        """
        word: list[Message] = [{"role": "user", "content": "hello"}]
        body = self._body(word, Sampling(max_tokens=1))
        for pause in (0.0, 0.5, 1.0):
            await asyncio.sleep(pause)
            try:
                if not isinstance(await self._post(body), _Trouble):
                    return False
            except RefusedError:
                return False
        return True

    async def _post(self, body: dict[str, Any]) -> dict[str, Any] | _Trouble:
        """One try: the decoded answer, or why there is none and it may be tried again."""
        import aiohttp

        url = f"{self.base_url}/chat/completions"
        try:
            async with self._session.post(url, json=body) as response:
                if response.status == 200:
                    return _decoded(url, await read_body(response, _LONGEST))
                content = await read_body(response, _LONGEST_DETAIL)
        except (aiohttp.ClientError, asyncio.TimeoutError) as error:
            return _Trouble(f"{type(error).__name__} {error}".strip())
        detail = without_key(content.decode("utf-8", "replace"), self._api_key)
        detail = " ".join(detail.split())[:300]
        status, after = response.status, _seconds(response.headers.get("Retry-After"))
        if status == 429 or status >= 500:
            busy = status == 429 or (status == 503 and after is not None)
            pause = min(after or 0.0, _LONGEST_ASKED_FOR) if busy else 0.0
            return _Trouble(f"{status} {detail}".strip(), busy, pause)
        kind = RefusedError if status in _REFUSALS else UserError
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
            body.update({"top_k": sampling.top_k} if sampling.top_k else {}, **sampling.extra)
        return body


def _decoded(url: str, content: bytes) -> dict[str, Any] | _Trouble:
    if len(content) > _LONGEST:
        raise RefusedError(f"{url} replied with more than {_LONGEST} bytes")
    try:
        return dict(json.loads(content))
    except (ValueError, TypeError, RecursionError):
        return _Trouble(f"no JSON: {content[:100].decode('utf-8', 'replace')}")


def _seconds(retry_after: str | None) -> float | None:
    """What the header says; a date, which few servers send, is as good as a moment."""
    if retry_after is None:
        return None
    return float(retry_after) if retry_after.isdecimal() else 0.0


def _completion(answer: dict[str, Any], seconds: float) -> Completion:
    try:
        choice, usage = answer["choices"][0], answer.get("usage") or {}
        text = choice["message"].get("content") or ""
        return Completion(
            # Half of a surrogate pair is legal in JSON, but no file or database takes it.
            text=text.encode("utf-8", "replace").decode("utf-8"),
            finish_reason=str(choice.get("finish_reason") or "unknown"),
            prompt_tokens=int(usage.get("prompt_tokens") or 0),
            completion_tokens=int(usage.get("completion_tokens") or 0),
            seconds=seconds,
        )
    except (LookupError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise RefusedError(
            f"the server's answer is not an OpenAI chat completion: {str(answer)[:200]}"
        ) from error
