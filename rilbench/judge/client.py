"""Ask a judge behind an OpenAI-compatible server whether a response is right.

A verdict that cannot be had is missing (``None``): never 0, never a guess. The caller decides what
a missing verdict means; :attr:`JudgeClient.counts` says how many there were.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from rilbench.api_keys import NO_KEY, without_query_values
from rilbench.errors import UserError
from rilbench.jsonl_log import append_jsonl, read_jsonl
from rilbench.judge.prompt import judge_messages, parse_verdict
from rilbench.judge.reply import answer_of, read_reply, told_content
from rilbench.serving.endpoints import all_checked
from rilbench.serving.reply import LIMITS, Completion
from rilbench.serving.transport import NoReplyError, Transport

_LONGER = (1, 4, 16)
"""Times ``max_tokens``: a reply that is cut is asked for again with more tokens."""

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A judge's verdict on one response.

    Attributes:
        value: 1 right, 0 wrong, None missing (the judge failed or its reply cannot be read).
        judge: name of the model that judged.
        cached: the same question was asked before; this call sent no request.
        text: the judge's reply, or why there is none.
    """

    value: int | None
    judge: str
    cached: bool
    text: str


class JudgeClient:
    """A client with bounded concurrency, retries and a cache, for one judge.

    It may be made before there is an event loop and used from one loop after another; within one
    loop it is safe to call from any number of tasks. Use it as an async context manager, or call
    :meth:`close`.

    Args:
        base_url: the server's address, ending in ``/v1``, or those of several.
        model: the judge's name; None takes the only model that the server lists.
        api_key: sent as the bearer token, or those of the servers in order; never logged.
        concurrency: requests in flight at one time.
        retries: further attempts after a connection error, a time-out, HTTP 429 or 5xx.
        backoff: seconds before the first retry; it doubles each time, with jitter.
        timeout: seconds for one attempt.
        patience: see `rilbench.serving.transport.Transport`.
        max_tokens: length of the judge's reply. The paper leaves decoding open: greedy here. A
            reply that is cut gives no verdict: it is asked for again with 4 and 16 times as many,
            and from then on every reply may be as long.
        fields: the request's fields, instead of a temperature of 0 and ``max_tokens``.
        cache: file that keeps the verdicts, for this client and later ones; several may share it.

    Raises:
        UserError: the address is not valid.
    """

    def __init__(
        self,
        base_url: str | Sequence[str],
        model: str | None = None,
        api_key: str | Sequence[str] = NO_KEY,
        concurrency: int = 32,
        retries: int = 4,
        *,
        backoff: float = 0.5,
        timeout: float = 120.0,
        patience: float = 300.0,
        max_tokens: int = 512,
        fields: Mapping[str, Any] | None = None,
        cache: Path | None = None,
    ) -> None:
        self._urls = all_checked(base_url)
        self.base_url = without_query_values(", ".join(self._urls))
        self.counts = {"asked": 0, "cached": 0, "missing": 0, "retried": 0}
        self._model = model
        self._key = api_key or NO_KEY
        self._concurrency = concurrency
        self._retries = retries
        self._backoff = backoff
        self._timeout = timeout
        self._patience = patience
        self._fields = fields or {"temperature": 0.0, "max_tokens": max_tokens}
        self._cache = cache
        self._verdicts: dict[str, Verdict] = {}
        for line in [] if cache is None else read_jsonl(cache):
            verdict = Verdict(int(line["value"]), str(line["judge"]), False, "from the cache")
            self._verdicts[line["key"]] = verdict
        self._link: _Link | None = None
        self._longer: tuple[int, ...] = _LONGER

    async def verdict(self, question: str, truth: str, response: str) -> Verdict:
        """Return the judge's verdict on ``response``; ``value`` is None when it is missing.

        Calls with the same texts share one request. Missing verdicts are not cached: the next call
        asks again.

        Raises:
            UserError: no model was named and the server does not tell which one it serves.
        """
        judge = await self.name()
        body = self._body(judge, judge_messages(question, truth, response))
        key = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
        self.counts["asked"] += 1
        verdict = self._verdicts.get(key)
        shared = verdict is not None
        if verdict is None:
            in_flight = self._connect().in_flight
            shared = key in in_flight
            if not shared:
                in_flight[key] = asyncio.ensure_future(self._ask(body, key))
            # Shielded: a caller that gives up must not take the others' verdict with it.
            verdict = await asyncio.shield(in_flight[key])
        self.counts["cached"] += shared
        self.counts["missing"] += verdict.value is None
        return dataclasses.replace(verdict, cached=shared)

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

    async def content(self) -> dict[str, str]:
        """Return what the server tells about the model behind the judge's name, asking it a word.

        It has ``model``, the name; ``served``, the name under which it replies (a dated one where
        ``model`` is an alias); and ``root`` and ``revision`` where its list of models has them.

        Raises:
            UserError: see `name`.
            NoReplyError: the judge does not reply.
        """
        judge, request = await self.name(), self._connect().transport.request
        body = self._body(judge, [{"role": "user", "content": "hello"}])
        completion = await request("POST", "/chat/completions", body, json.loads)
        found = {"model": judge, "served": str(completion.get("model") or judge)}
        try:
            return found | told_content(await request("GET", "/models", None, json.loads), judge)
        except NoReplyError:
            return found

    async def close(self) -> None:
        """Close the connections; the verdicts stay and the client may be used again."""
        link, self._link = self._link, None
        if link is not None:
            await link.transport.close()

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
            transport = Transport(
                self._urls,
                self._key,
                concurrency=self._concurrency,
                retries=self._retries,
                backoff=self._backoff,
                timeout=self._timeout,
                patience=self._patience,
                counts=self.counts,
            )
            self._link = _Link(loop, transport, asyncio.Lock(), {})
        return self._link

    def _body(self, judge: str, messages: list[dict[str, str]]) -> dict[str, Any]:
        return {"model": judge, "messages": messages, **self._fields}

    async def _ask(self, body: dict[str, Any], key: str) -> Verdict:
        """Ask once for all who wait for ``key``; cache the verdict unless it is missing."""
        judge = body["model"]
        try:
            text = answer_of(await self._whole_reply(body))
            verdict = Verdict(parse_verdict(text), judge, False, text)
        except NoReplyError as error:
            verdict = Verdict(None, judge, False, str(error))
        finally:
            self._connect().in_flight.pop(key, None)
        if verdict.value is None:
            _log.info("no verdict of the judge %s: %.200s", judge, verdict.text)
        else:
            self._verdicts[key] = verdict
            if self._cache is not None:
                line = {"key": key, "judge": judge, "value": verdict.value}
                await asyncio.to_thread(append_jsonl, self._cache, [line])
        return verdict

    async def _whole_reply(self, body: dict[str, Any]) -> Completion:
        """Ask, and again with more tokens while the reply is cut.

        Raises:
            NoReplyError: there is none, or the longest is cut as well.
        """
        limits = {name: body[name] for name in LIMITS if name in body}
        for times in self._longer if limits else (1,):
            asked = body | {name: times * limit for name, limit in limits.items()}
            transport = self._connect().transport
            reply = await transport.request("POST", "/chat/completions", asked, read_reply)
            if not reply.is_cut:
                self._longer = tuple(each for each in self._longer if each >= times)
                return reply
        most = " and ".join(f"{name}={times * limit}" for name, limit in limits.items())
        raise NoReplyError(f"the reply is cut at {most or 'the longest'}")

    async def _only_model(self) -> str:
        try:
            listing = await self._connect().transport.request("GET", "/models", None, json.loads)
            names = [str(model["id"]) for model in listing["data"]]
        except NoReplyError as error:
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


@dataclasses.dataclass(frozen=True)
class _Link:
    """What is bound to one event loop: connections, and the requests in flight by their key."""

    loop: asyncio.AbstractEventLoop
    transport: Transport
    naming: asyncio.Lock
    in_flight: dict[str, asyncio.Future[Verdict]]
