"""How many requests are in flight at one time: as many as bring more responses per second."""

from __future__ import annotations

import logging

_GAIN = 1.08
"""Times the rate before that twice as many requests must bring; less may be noise."""
_ROUNDS = 4
"""Responses to each request in flight over which a rate is measured."""
_SECONDS = 4.0
"""The shortest measurement."""
_SLOW = 4.0
"""Times its time at the rate before, after which a try has failed without being finished."""
_WAIT, _LONGEST_WAIT = 2, 32
"""Measurements between two tries: at first, and at most."""
_log = logging.getLogger(__name__)


class GrowingConcurrency:
    """The number of requests in flight, doubled while that brings more responses per second.

    A rate is measured once the requests that were sent before a change are answered. If twice as
    many requests bring less than 8 % more, the number before returns. Later questions may be
    shorter or longer, so they are tried again, after a longer wait each time. A server that is
    overloaded gets half as many at once, but no fewer than an eighth of the first number.

    Args:
        first: requests in flight at first.
        most: limit of the doubling; no more than ``first``: the number is fixed.

    Attributes:
        number: requests in flight now.
    """

    def __init__(self, first: int, most: int) -> None:
        self.number = first
        self._first, self._least, self._most = first, max(1, first // 8), most
        self._tried_from: tuple[int, float] | None = None
        """The number and rate before a doubling that is being tried."""
        self._waits, self._wait = 0, _WAIT
        self._overloads, self._halved = 0, False
        self._began = self._since = 0.0
        """When this measurement began, and when the requests before it were answered."""
        self._settles, self._seen = first, 0
        """Responses to wait for before it, and responses since then."""

    def note(self, now: float, overloads: int = 0) -> None:
        """Note a response.

        Args:
            now: seconds of a clock that never runs backwards.
            overloads: how often a server has had too much to do so far, see
                `rilbench.serving.transport.Transport`.
        """
        if self._most <= self._first:
            return
        self._seen += 1
        settled = self._seen > self._settles
        if overloads > self._overloads:
            self._overloads = overloads
            # Requests that were sent before say it again.
            if settled or not self._halved:
                self._back_off(now)
                return
        if not settled:
            self._since = now
        responses, wanted = self._seen - self._settles, _ROUNDS * self.number
        if self._tried_from is not None:
            expected = (self._settles + wanted) / self._tried_from[1]
            if now - self._began > _SLOW * max(expected, _SECONDS):
                self._give_up(*self._tried_from, now)
                return
        if responses >= wanted and now - self._since >= _SECONDS:
            self._measured(responses / (now - self._since), now)

    def _begin(self, now: float, settles: int) -> None:
        """Begin a measurement after so many responses."""
        self._began, self._since = now, now
        self._settles, self._seen = settles, 0

    def _change(self, number: int, now: float) -> None:
        before, self.number = self.number, number
        self._begin(now, settles=before)

    def _measured(self, rate: float, now: float) -> None:
        """Take the next step after a measurement."""
        if self._tried_from is not None:
            number, before = self._tried_from
            if rate < _GAIN * before:
                self._give_up(number, before, now, rate)
                return
            self._tried_from, self._wait = None, _WAIT
            _log.info("%d requests in flight: %.1f responses/s", self.number, rate)
        if self._waits or 2 * self.number > self._most:
            self._waits = max(0, self._waits - 1)
            self._begin(now, settles=0)
            return
        self._tried_from, self._halved = (self.number, rate), False
        self._change(2 * self.number, now)

    def _give_up(self, number: int, before: float, now: float, rate: float | None = None) -> None:
        """Return from a doubling that brought too little."""
        found = "they are slower" if rate is None else f"{rate:.1f} responses/s"
        _log.info("%d requests in flight: %s; %d: %.1f", self.number, found, number, before)
        self._tried_from = None
        self._rest()
        self._change(number, now)

    def _back_off(self, now: float) -> None:
        self._tried_from, self._halved = None, True
        self._rest()
        fewer = max(self.number // 2, min(self._least, self.number))
        _log.info("the server is overloaded: %d requests in flight, not %d", fewer, self.number)
        self._change(fewer, now)

    def _rest(self) -> None:
        self._waits, self._wait = self._wait, min(2 * self._wait, _LONGEST_WAIT)
