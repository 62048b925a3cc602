"""The number of requests in flight, against servers on a clock of their own."""

import heapq
import random
from collections.abc import Callable

from rilbench.serving.concurrency import GrowingConcurrency


class SimulatedServer:
    """Answers ``slots`` requests at a time, each after about ``latency`` seconds, in order.

    Above ``limit`` in flight it refuses a request, which is sent again a second later.
    """

    def __init__(self, slots: int, latency: float = 0.2, limit: int = 10**9) -> None:
        self.slots, self.latency, self.limit = slots, latency, limit
        self.slowed: Callable[[int], float] = lambda _: 1.0
        """Times the latency, by the number in flight."""
        self.clock, self.overloads = 0.0, 0
        self._free = [0.0] * slots
        self._rng = random.Random(0)

    def answer(self, grown: GrowingConcurrency, responses: int) -> list[int]:
        """Let a client ask that many questions; the number in flight at each response."""
        in_flight: list[float] = []
        numbers = []
        for _ in range(responses):
            while len(in_flight) < grown.number:
                refused = len(in_flight) >= self.limit
                self.overloads += refused
                start = max(heapq.heappop(self._free), self.clock + refused)
                takes = self.latency * self.slowed(grown.number) * self._rng.uniform(0.8, 1.2)
                heapq.heappush(self._free, start + takes)
                heapq.heappush(in_flight, start + takes)
            self.clock = max(self.clock, heapq.heappop(in_flight))
            grown.note(self.clock, self.overloads)
            numbers.append(grown.number)
        return numbers


def test_grows_to_where_the_rate_stops_growing() -> None:
    for slots, expected in ((10, 32), (32, 32), (64, 64), (100, 128), (200, 256), (10_000, 256)):
        numbers = SimulatedServer(slots).answer(GrowingConcurrency(32, 256), 60_000)
        stays = max(set(numbers), key=numbers.count)
        assert stays == expected, slots
        assert numbers.count(stays) > 0.8 * len(numbers), slots


def test_a_fixed_number_stays() -> None:
    assert set(SimulatedServer(100).answer(GrowingConcurrency(4, 4), 5000)) == {4}
    assert set(SimulatedServer(100, limit=8).answer(GrowingConcurrency(32, 0), 5000)) == {32}


def test_a_server_that_is_slower_with_more_is_left_alone_at_once() -> None:
    server = SimulatedServer(10_000)
    server.slowed = lambda number: 100.0 if number > 64 else 1.0
    numbers = server.answer(GrowingConcurrency(32, 256), 4000)
    assert max(numbers) == 128
    assert numbers[-1] == 64
    assert numbers.count(128) < 128, "not as many as a measurement takes"


def test_a_server_that_refuses_gets_fewer() -> None:
    server = SimulatedServer(10_000, limit=20)
    numbers = server.answer(GrowingConcurrency(32, 256), 20_000)
    assert numbers[-1] == 16
    assert numbers.count(16) > 0.8 * len(numbers)
    # Not below an eighth, however much it refuses: it also says when to come back.
    server = SimulatedServer(10_000, limit=1)
    assert min(server.answer(GrowingConcurrency(32, 256), 5000)) == 4


def test_later_questions_get_more_where_that_helps() -> None:
    server, grown = SimulatedServer(40), GrowingConcurrency(32, 256)
    assert server.answer(grown, 20_000)[-1] in (32, 64)
    server._free += [server.clock] * 1000
    assert 256 in server.answer(grown, 60_000)
