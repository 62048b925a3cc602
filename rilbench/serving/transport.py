"""Requests to a model's server, or to several servers of it.

A request goes to the server with the fewest in flight. Trouble that passes is tried again, with
growing pauses, at another server if there is one. A server that says ``Retry-After`` is left alone
by all requests until then; one that fails while others answer rests for a while, longer each time.
One that refuses ``max_tokens`` and names ``max_completion_tokens`` gets that; on request, fields
that a server refuses by name are left out.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import aiohttp

from rilbench.api_keys import without_query_values
from rilbench.serving.endpoints import (
    all_checked,
    joined,
    key_headers,
    proxy_for,
    read_body,
    refusal,
    seconds_to_wait,
    without_v1,
)

TRANSIENT = frozenset({408, 409, 425, 429, *range(500, 600)})
"""HTTP statuses after which the same request may succeed."""
LONGEST_REPLY = 4 * 1024**2
"""Bytes of a reply that are read; the longest responses have thousands."""
_LONGEST_REFUSAL = 64 * 1024  # bytes that are read of it
_LONGEST_REASON = 300  # characters of a refusal that are told
_LONGEST_PAUSE = 30.0  # seconds, where the server does not say how long
_UNSENT = 60.0  # seconds of patience, at least, for what was not sent yet
_CONNECT = 30.0  # seconds to connect: the host of a server that was lost may not refuse at all

_LIMIT, _OTHER_LIMIT = "max_tokens", "max_completion_tokens"
_NEEDED = frozenset({"model", "messages", _LIMIT, _OTHER_LIMIT})
_FIRST = ("top_p", "top_k", "seed", "repetition_penalty", "temperature")
"""Of several fields that a refusal names, the one that is left out first."""
_BAD_REQUEST = frozenset({400, 422})

_T = TypeVar("_T")
_log = logging.getLogger(__name__)


class NoReplyError(Exception):
    """There is no reply; the message says why.

    Attributes:
        passing: the trouble may pass, such as a busy server; a refusal will not.
        status: the HTTP status; 0 if there was none.
        url: the address that was asked last, without what may be a key in it.
        tries: how often the request was sent.
    """

    def __init__(
        self, why: str, *, passing: bool = False, status: int = 0, url: str = "", tries: int = 0
    ) -> None:
        super().__init__(without_query_values(" ".join(why.split())))
        self.passing, self.status, self.url, self.tries = passing, status, url, tries


class _BusyError(NoReplyError):
    """The server works but has too much to do.

    Attributes:
        pause: seconds after which it asks to be tried again; 0 if it does not say.
    """

    def __init__(self, why: str, status: int, pause: float) -> None:
        super().__init__(why, passing=True, status=status)
        self.pause = pause


@dataclass
class _Server:
    url: str
    proxy: str | None
    key: str
    in_flight: int = 0
    rests: int = 0
    """Without a reply in between."""
    rests_until: float = 0.0
    """Of the monotonic clock."""
    why: str = ""
    """Why it rests."""

    @property
    def shown(self) -> str:
        return without_query_values(self.url)

    @property
    def resting(self) -> bool:
        return self.rests_until > time.monotonic()

    def rest(self, seconds: float, why: object) -> None:
        self.why = str(why)
        self.rests += not self.resting
        self.rests_until = max(self.rests_until, time.monotonic() + seconds)


class Transport:
    """Connections to the servers of one model; bound to the event loop in which it is made.

    Args:
        base_urls: the server's address, up to ``/v1``, or those of several.
        api_key: sent as the bearer token, or those of the servers in order; never logged.
        concurrency: requests in flight at one time, at all servers together.
        retries: further attempts after a connection error, a time-out, HTTP 408 or 5xx; one more
            for each further server.
        backoff: seconds before the first retry; they double each time, with jitter.
        timeout: seconds for one attempt.
        patience: seconds for which busy servers (429, or 503 with ``Retry-After``) are waited for
            while they answer nobody.
        counts: its ``retried`` counts the retries.
        adapts: leave out of all requests what a server refuses by name, such as ``top_p``.

    Attributes:
        left_out: names of the fields that are left out.
        overloads: how often a server had too much to do: it said so (429, or 503 with
            ``Retry-After``), or had no reply in time.

    Raises:
        UserError: an address is not valid.
    """

    def __init__(
        self,
        base_urls: str | Sequence[str],
        api_key: str | Sequence[str],
        *,
        concurrency: int,
        retries: int,
        backoff: float,
        timeout: float,
        patience: float,
        counts: dict[str, int] | None = None,
        adapts: bool = False,
    ) -> None:
        urls = all_checked(base_urls)
        keys = [api_key] * len(urls) if isinstance(api_key, str) else api_key
        self.servers = [
            _Server(url, proxy_for(url), key) for url, key in zip(urls, keys, strict=True)
        ]
        self._retries, self._backoff = retries, backoff
        self.left_out: set[str] = set()
        self.overloads = 0
        self._adapts = adapts
        self._patience, self._counts = patience, {"retried": 0} if counts is None else counts
        self._jitter = random.Random()  # Its own: the run's seeded generators stay untouched.
        self._limit = asyncio.Semaphore(concurrency)
        self._other_limit = False
        """They refuse ``max_tokens`` and ask for ``max_completion_tokens`` instead."""
        self._answered = time.monotonic()
        """When a server served or refused a request last."""
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=timeout, sock_connect=min(timeout, _CONNECT)),
            connector=aiohttp.TCPConnector(limit=concurrency),
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        read: Callable[[bytes], _T],
        *,
        most: int | None = None,
    ) -> _T:
        """Send a request, again after passing trouble, and return what ``read`` makes of the reply.

        ``read`` gets at most `LONGEST_REPLY` bytes. Its ValueError counts as passing trouble, its
        `NoReplyError` as the last word.

        Args:
            method: of HTTP.
            path: below the servers' addresses.
            body: sent as JSON.
            read: what to make of the reply.
            most: tries, however busy the servers are; None: by the transport's retries.

        Raises:
            NoReplyError: a server refused, or every attempt failed.
        """
        retries = self._retries + len(self.servers) - 1
        begun, tries, failures = time.monotonic(), 0, 0
        failed, busy = None, True
        while True:
            async with self._limit:
                server, rest = self._choose(failed)
                if rest <= 0:
                    tries += 1
                    self._counts["retried"] += tries > 1
                    sent = {k: v for k, v in (body or {}).items() if k not in self.left_out}
                    if self._other_limit and _LIMIT in sent:
                        sent[_OTHER_LIMIT] = sent.pop(_LIMIT)
                    try:
                        return await self._send(server, method, path, sent, read)
                    except NoReplyError as error:
                        if error.status in _BAD_REQUEST and self._learns(sent, str(error)):
                            continue
                        failed, busy = server, isinstance(error, _BusyError)
                        self.overloads += busy
                        error.url, error.tries = server.shown, tries
                        failures += not busy
                        if not error.passing or failures > retries or tries == most:
                            raise
                        rest = self._pause_after(error, server, failures)
            if rest > 0:
                # Busy servers are worth the wait while they answer others.
                patience = self._patience if tries else max(self._patience, _UNSENT)
                until = max(begun, self._answered) + patience
                if busy and time.monotonic() + rest > until:
                    why = f"{server.why}; it asks to wait for {math.ceil(rest)} s"
                    raise NoReplyError(why, passing=True, url=server.shown, tries=tries)
                await asyncio.sleep(rest * self._jitter.uniform(1.0, 1.25))

    def _learns(self, sent: Mapping[str, Any], why: str) -> bool:
        """Note which field a server refuses; whether the next request differs from this one."""
        if _LIMIT in sent and (_OTHER_LIMIT in why or f"parameter: '{_LIMIT}'" in why):
            self._other_limit = True
            return True
        named = {name for name in sent if re.search(rf"\b{re.escape(name)}\b", why)} - _NEEDED
        refused = [name for name in (*_FIRST, *sorted(named)) if name in named]
        if not (self._adapts and refused):
            return False
        self.left_out.add(refused[0])
        return True

    def _choose(self, failed: _Server | None) -> tuple[_Server, float]:
        """The server to ask, and the seconds for which even that one rests.

        Args:
            failed: asked last by the same request; another goes before it.
        """
        now = time.monotonic()

        def rank(server: _Server) -> tuple[float, bool, bool, int]:
            # One that failed is tried by one request at a time: it may take all its time to fail.
            is_tried = server.rests > 0 and server.in_flight > 0
            rest = max(server.rests_until - now, 0.0)
            return rest, is_tried, server is failed, server.in_flight

        server = min(self.servers, key=rank)
        return server, server.rests_until - now

    def _pause_after(self, error: NoReplyError, server: _Server, failures: int) -> float:
        """Note that a server failed; return the seconds for which the request itself waits."""
        growing = min(self._backoff * 2 ** min(server.rests, 16), _LONGEST_PAUSE)
        if isinstance(error, _BusyError):
            if error.pause or not server.resting:
                server.rest(error.pause or growing, error)
            return 0.0  # as long as the server rests
        _log.debug("%s: %s; failure %d of a request", server.shown, error, failures)
        if len(self.servers) == 1:
            return min(self._backoff * 2.0 ** (failures - 1), _LONGEST_PAUSE)
        if not server.resting:
            server.rest(growing, error)
            if server.rests == 3:
                _log.warning("%s fails (%s); the other servers go on", server.shown, error)
        return 0.0

    async def _send(
        self, server: _Server, method: str, path: str, body: object, read: Callable[[bytes], _T]
    ) -> _T:
        """Send a request once."""
        url, server.in_flight = joined(server.url, path), server.in_flight + 1
        headers = key_headers(server.url, server.key)
        try:
            async with self._session.request(
                method, url, json=body or None, headers=headers, proxy=server.proxy
            ) as response:
                good = response.status == 200
                most = LONGEST_REPLY if good else _LONGEST_REFUSAL
                content = await read_body(response, most)
            if response.status not in TRANSIENT:
                self._answered = time.monotonic()
            if not good:
                raise _refused(server, response, content)
            if len(content) > most:
                raise NoReplyError(f"a reply of more than {most} bytes")
            reply = read(content)
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
            is_late = isinstance(error, asyncio.TimeoutError)
            self.overloads += is_late and not isinstance(error, aiohttp.ConnectionTimeoutError)
            why = f"{type(error).__name__}: {error}".rstrip(": ")
            raise NoReplyError(why, passing=True) from error
        except ValueError as error:
            raise NoReplyError(f"not JSON: {error}", passing=True) from error
        finally:
            server.in_flight -= 1
        server.rests = 0
        return reply


def _refused(server: _Server, response: aiohttp.ClientResponse, content: bytes) -> NoReplyError:
    """What a reply with another status than 200 means."""
    status, header = response.status, response.headers.get("Retry-After", "")
    why = f"HTTP {status}: {refusal(content, server.key)[:_LONGEST_REASON]}"
    if status == 404:
        why += without_v1(server.url)
    if status == 429 or (status == 503 and header):
        return _BusyError(why, status, seconds_to_wait(header))
    return NoReplyError(why, passing=status in TRANSIENT, status=status)
