"""When each request is meant to start: an open schedule, or clients in a closed loop. Pure.

Knows rates, gaps, a seed and a number of clients. Touches nothing and never reads the clock: the
loop brings the time with each question.

Two policies, which answer different questions. An *open* schedule is fixed before the first request
is sent and never learns how the answers fare: it tells how long clients wait under a given offered
load, and it is the cure for *coordinated omission* (Gil Tene, "How NOT to Measure Latency"): a client
that waits for an answer before it sends the next request stops measuring exactly while the server
stands still. *Closed* clients are just that kind. They never offer more than the server takes, so
they keep it busy without a queue that grows: the way to measure a capacity, and no way to measure
latency.
"""

import heapq
import math
import random
from collections.abc import Sequence
from typing import Final, Protocol

from loadtests.load.phase import Phase

# A client whose connection never stood (refused, or no descriptor left) would be back within
# microseconds, and the loop would do nothing but count refusals. A tenth of a second keeps a listener
# that comes back from being missed for long.
RETRY_SECONDS: Final = 0.1


class Arrivals(Protocol):
    """Who is due, as the loop sees it. Moments are those of the loop's clock."""

    @property
    def planned(self) -> int:
        """How many requests there are to send; of closed clients, how many were sent."""

    @property
    def next_due(self) -> float:
        """When `take` will next have something; inf while that depends on answers, or when it is over."""

    @property
    def finished(self) -> bool:
        """Whether nothing will come due any more, whatever the answers do; clients learn it in `take`."""

    def take(self, now: float) -> float | None:
        """Return the intended start of a request that is due by `now`, once each; None: none is."""

    def on_ended(self, now: float, *, stood: bool) -> None:
        """Take note that a request has ended; `stood`: its connection had been established."""

    def never_due(self) -> Sequence[float]:
        """Return the intended starts of those that were not taken."""


class OpenSchedule:
    """Requests due at moments that were fixed beforehand (seconds after `started`, ascending)."""

    def __init__(self, offsets: Sequence[float], started: float) -> None:
        self._offsets, self._started = offsets, started
        self._taken = 0
        self.finished = False
        self._note_next()

    @property
    def planned(self) -> int:
        """All of them."""
        return len(self._offsets)

    def take(self, now: float) -> float | None:
        """Return the next intended start that lies behind, however far: a stall reschedules nothing."""
        intended = self.next_due
        if intended > now:
            return None
        self._taken += 1
        self._note_next()
        return intended

    def on_ended(self, now: float, *, stood: bool) -> None:
        """Answers change nothing: that is what makes the load open."""

    def never_due(self) -> Sequence[float]:
        """Return what was not taken."""
        return [self._started + offset for offset in self._offsets[self._taken :]]

    def _note_next(self) -> None:
        # Attributes, because the loop asks for both several times in each turn.
        self.finished = self._taken == len(self._offsets)
        self.next_due = math.inf if self.finished else self._started + self._offsets[self._taken]


class ClosedClients:
    """So many clients, each with one request under way, until `end`.

    A client sends its next request when its last has ended, so intended and started are the
    same moment, and there is no lateness to speak of: who is late with a closed loop merely sends less.
    """

    def __init__(self, clients: int, end: float) -> None:
        self._end = end
        self._free = [-math.inf] * clients  # heap: from when on each idle client may send
        self.planned = 0
        self.finished = False

    @property
    def next_due(self) -> float:
        """When the next idle client may send; inf when all are busy."""
        return self._free[0] if self._free else math.inf

    def take(self, now: float) -> float | None:
        """Return `now` when a client is idle and sending has not ended."""
        if now >= self._end:
            self.finished = True
            self._free.clear()
        if self.next_due > now:
            return None
        heapq.heappop(self._free)
        self.planned += 1
        return now

    def on_ended(self, now: float, *, stood: bool) -> None:
        """Count a client as idle again: at once, or after a pause when it never was connected."""
        heapq.heappush(self._free, now if stood else now + RETRY_SECONDS)

    def never_due(self) -> Sequence[float]:
        """Return nothing: what was not sent was not planned either."""
        return ()


def intended_offsets(rate: float, duration: float, arrivals: str, seed: int) -> list[float]:
    """Return the intended starts in seconds from the start of the phase, ascending.

    `constant`: n / rate for each n in range(round(rate * duration)). `poisson`: independent
    exponential gaps with mean 1 / rate, as many independent users would make them; their number
    varies from seed to seed around the same mean, and the same seed gives the same list.
    """
    if arrivals == "constant":
        # n / rate, not a sum of gaps: a sum drifts by its rounding errors.
        return [n / rate for n in range(round(rate * duration))]
    draw = random.Random(seed).expovariate
    offsets = []
    offset = draw(rate)
    while offset < duration:
        offsets.append(offset)
        offset += draw(rate)
    return offsets


def offsets_of(phase: Phase) -> list[float]:
    """Return the intended starts of an open phase, in seconds from its start; none of a closed one."""
    if phase.rate is None:
        return []
    return intended_offsets(phase.rate, phase.duration_seconds, phase.arrivals, phase.seed)
