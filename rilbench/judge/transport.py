"""Requests to a judge's server: bounded concurrency, and retries after passing trouble."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import TypeVar

import aiohttp

from rilbench.serving.endpoints import proxy_for, read_body, refusal

_TRANSIENT = frozenset({408, 409, 425, 429, *range(500, 600)})
"""HTTP statuses after which the same request may succeed."""
_LONGEST_PAUSE = 20.0  # seconds
_LONGEST_REASON = 200  # characters of a refusal

LONGEST_REPLY = 1024**2
"""Bytes of a reply that are read; a judge's sentence has hundreds."""

_T = TypeVar("_T")
_log = logging.getLogger(__name__)


class NoReplyError(Exception):
    """The judge gave no reply; the message says why.

    Attributes:
        passing: the trouble may pass, such as a busy server; a refusal will not.
    """

    def __init__(self, why: str, *, passing: bool = False) -> None:
        super().__init__(why)
        self.passing = passing


class Transport:
    """Connections to one server; bound to the event loop in which it is made.

    Args:
        base_url: the server's address, up to ``/v1``.
        api_key: sent as the bearer token; never logged.
        concurrency: requests in flight at one time.
        retries: further attempts after a connection error, a time-out, HTTP 408, 429 or 5xx.
        backoff: seconds before the first retry; they double each time, with jitter.
        timeout: seconds for one attempt.
        counts: its ``retried`` counts the retries.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str,
        *,
        concurrency: int,
        retries: int,
        backoff: float,
        timeout: float,
        counts: dict[str, int],
    ) -> None:
        self._base_url, self._key, self._counts = base_url, api_key, counts
        self._retries, self._backoff = retries, backoff
        self._jitter = random.Random()  # Its own: the run's seeded generators stay untouched.
        self._limit = asyncio.Semaphore(concurrency)
        self._session = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {api_key}"},
            timeout=aiohttp.ClientTimeout(total=timeout),
            connector=aiohttp.TCPConnector(limit=concurrency),
            proxy=proxy_for(base_url),
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def request(
        self, method: str, path: str, body: object, read: Callable[[bytes], _T]
    ) -> _T:
        """Send a request, again after passing trouble, and return what ``read`` makes of the reply.

        ``read`` gets at most `LONGEST_REPLY` bytes and one more. Its ValueError counts as passing
        trouble, its `NoReplyError` as the last word.

        Raises:
            NoReplyError: the server refused, or every attempt failed.
        """
        why = ""
        for attempt in range(self._retries + 1):
            if attempt:
                self._counts["retried"] += 1
                pause = min(_LONGEST_PAUSE, self._backoff * 2 ** (attempt - 1))
                pause *= self._jitter.uniform(0.5, 1.5)
                _log.debug("%s: %s; retry %d in %.1f s", self._base_url, why, attempt, pause)
                await asyncio.sleep(pause)
            url = self._base_url + path
            try:
                async with (
                    self._limit,
                    self._session.request(method, url, json=body) as response,
                ):
                    content = await read_body(response, LONGEST_REPLY)
                    if response.status == 200:
                        return read(content)
                    reason = refusal(content, self._key)[:_LONGEST_REASON]
                    why = f"HTTP {response.status}: {reason}"
                    if response.status not in _TRANSIENT:
                        raise NoReplyError(why)
            except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
                why = f"{type(error).__name__}: {error}".rstrip(": ")
            except ValueError as error:
                why = f"not JSON: {error}"
        raise NoReplyError(" ".join(why.split()), passing=True)
