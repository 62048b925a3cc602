"""Ask a judge behind an OpenAI-compatible server whether a response is right.

A verdict that cannot be had is missing (``None``): never 0, never a guess. The caller decides what
a missing verdict means and :attr:`JudgeClient.counts` says how many there were.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import random
from pathlib import Path
from types import TracebackType
from typing import Any

import aiohttp

from rilbench.api_keys import NO_KEY, without_key
from rilbench.errors import UserError
from rilbench.jsonl_log import append_jsonl, read_jsonl
from rilbench.judge.prompt import judge_messages, parse_verdict
from rilbench.serving.endpoints import checked, proxy_for, read_body

_TRANSIENT = frozenset({408, 409, 425, 429, *range(500, 600)})
_LONGEST_PAUSE = 20.0  # seconds


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What a judge said.

    Attributes:
        value: 1 right, 0 wrong, None missing (the judge failed or could not be understood).
        judge: name of the model that judged.
        cached: the same question was already asked; no request was made for this call.
        text: the judge's reply, or why there is none.
    """

    value: int | None
    judge: str
    cached: bool
    text: str


class _NoReplyError(Exception):
    """The judge gave no reply; the message says why."""


class JudgeClient:
    """A client with bounded concurrency, retries and a cache, for one judge.

    It may be made before there is an event loop and used from one loop after another; within one
    loop it is safe to call from any number of tasks. Use it as an async context manager, or call
    :meth:`close`.

    Args:
        base_url: the server's address, ending in ``/v1``.
        model: the judge's name; None takes the only model that the server lists.
        api_key: sent as the bearer token; never logged.
        concurrency: requests in flight at one time.
        retries: further attempts after a connection error, a time-out, HTTP 429 or 5xx.
        backoff: seconds before the first retry; it doubles each time, with jitter.
        timeout: seconds for one attempt.
        max_tokens: length of the judge's reply. The paper leaves decoding open: greedy here.
        cache: file that keeps the verdicts, for this client and later ones; several may share it.

    Raises:
        UserError: the address is none.
    """

    def __init__(
        self,
        base_url: str,
        model: str | None = None,
        api_key: str = NO_KEY,
        concurrency: int = 32,
        retries: int = 4,
        *,
        backoff: float = 0.5,
        timeout: float = 120.0,
        max_tokens: int = 512,
        cache: Path | None = None,
    ) -> None:
        self.base_url = checked(base_url)
        self.counts = {"asked": 0, "cached": 0, "missing": 0, "retried": 0}
        self._model = model
        self._key = api_key or NO_KEY
        self._concurrency = concurrency
        self._retries = retries
        self._backoff = backoff
        self._timeout = timeout
        self._max_tokens = max_tokens
        self._cache = cache
        self._verdicts = {} if cache is None else _kept(cache)
        self._jitter = random.Random()  # Its own: the run's seeded generators stay untouched.
        self._link: _Link | None = None

    async def verdict(self, question: str, truth: str, response: str) -> Verdict:
        """Return the judge's verdict on ``response``; ``value`` is None when it is missing.

        Calls with the same texts share one request. Missing verdicts are not kept: the next call
        asks again.

        Raises:
            UserError: no model was named and the server does not tell which one it serves.
        """
        judge = await self.name()
        messages = judge_messages(question, truth, response)
        key = hashlib.sha256(json.dumps([judge, messages]).encode()).hexdigest()
        self.counts["asked"] += 1
        found = self._verdicts.get(key)
        shared = found is not None
        if found is None:
            asking = self._connect().asking
            shared = key in asking
            if not shared:
                asking[key] = asyncio.ensure_future(self._ask(judge, messages, key))
            # Shielded: a caller that gives up must not take the others' verdict with it.
            found = await asyncio.shield(asking[key])
        self.counts["cached"] += shared
        self.counts["missing"] += found.value is None
        return dataclasses.replace(found, cached=shared)

    async def name(self) -> str:
        """Return the judge's name, asking the server once if none was given.

        Raises:
            UserError: the server does not answer, or serves more or fewer than one model.
        """
        if self._model is None:
            async with self._connect().naming:
                if self._model is None:
                    self._model = await self._only_model()
        return self._model

    async def close(self) -> None:
        """Close the connections; the verdicts stay and the client may be used again."""
        link, self._link = self._link, None
        if link is not None:
            await link.session.close()

    async def __aenter__(self) -> JudgeClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def _connect(self) -> _Link:
        """Return what belongs to the running event loop, made on first use."""
        loop = asyncio.get_running_loop()
        if self._link is None or self._link.loop is not loop:
            session = aiohttp.ClientSession(
                headers={"Authorization": f"Bearer {self._key}"},
                timeout=aiohttp.ClientTimeout(total=self._timeout),
                connector=aiohttp.TCPConnector(limit=self._concurrency),
                proxy=proxy_for(self.base_url),
            )
            limit = asyncio.Semaphore(self._concurrency)
            self._link = _Link(loop, session, limit, asyncio.Lock(), {})
        return self._link

    async def _ask(self, judge: str, messages: list[dict[str, str]], key: str) -> Verdict:
        """Ask once for all who wait for ``key``; keep the verdict unless it is missing."""
        body = {
            "model": judge,
            "messages": messages,
            "temperature": 0.0,
            "max_tokens": self._max_tokens,
        }
        try:
            text = _reply_text(await self._request("POST", "/chat/completions", body))
            verdict = Verdict(parse_verdict(text), judge, False, text)
        except _NoReplyError as error:
            verdict = Verdict(None, judge, False, str(error))
        finally:
            self._connect().asking.pop(key, None)
        if verdict.value is not None:
            self._verdicts[key] = verdict
            if self._cache is not None:
                line = {"key": key, "judge": judge, "value": verdict.value}
                append_jsonl(self._cache, [line])
        return verdict

    async def _only_model(self) -> str:
        try:
            listing = await self._request("GET", "/models")
            names = [str(model["id"]) for model in listing["data"]]
        except _NoReplyError as error:
            raise UserError(
                f"the judge at {self.base_url} does not answer ({error}); start it, or give another"
            ) from error
        except (KeyError, TypeError) as error:
            raise UserError(
                f"{self.base_url} does not list its models as OpenAI's API does; name the judge"
            ) from error
        if len(names) != 1:
            raise UserError(
                f"{self.base_url} serves {len(names)} models ({', '.join(names[:5])}); "
                "name the one that judges"
            )
        return names[0]

    async def _request(self, method: str, path: str, body: object = None) -> Any:
        """Return the JSON of a reply, trying again after passing trouble."""
        for attempt in range(self._retries + 1):
            if attempt:
                self.counts["retried"] += 1
                pause = min(_LONGEST_PAUSE, self._backoff * 2 ** (attempt - 1))
                await asyncio.sleep(pause * self._jitter.uniform(0.5, 1.5))
            link = self._connect()
            try:
                async with (
                    link.limit,
                    link.session.request(method, self.base_url + path, json=body) as reply,
                ):
                    if reply.status == 200:
                        return await reply.json(content_type=None)
                    # Some servers repeat a wrong key in their refusal.
                    said = (await read_body(reply, 65536)).decode("utf-8", "replace")
                    why = f"HTTP {reply.status}: {without_key(said, self._key)[:200]}"
                    if reply.status not in _TRANSIENT:
                        break
            except ValueError as error:
                why = f"not JSON: {error}"
            except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
                why = f"{type(error).__name__}: {error}".rstrip(": ")
        raise _NoReplyError(" ".join(why.split()))


@dataclasses.dataclass(frozen=True)
class _Link:
    """What is bound to one event loop: connections, limits, and the requests under way."""

    loop: asyncio.AbstractEventLoop
    session: aiohttp.ClientSession
    limit: asyncio.Semaphore
    naming: asyncio.Lock
    asking: dict[str, asyncio.Future[Verdict]]


def _kept(cache: Path) -> dict[str, Verdict]:
    """The verdicts in a file, by what was asked."""
    return {
        row["key"]: Verdict(int(row["value"]), str(row["judge"]), False, "kept from before")
        for row in read_jsonl(cache)
    }


def _reply_text(reply: Any) -> str:
    """Return the text of a chat completion."""
    try:
        text = reply["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError) as error:
        raise _NoReplyError("the reply is not a chat completion") from error
    if not isinstance(text, str):
        raise _NoReplyError("the reply has no text")
    return text
