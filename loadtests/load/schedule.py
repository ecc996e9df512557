"""When each request is meant to start: an open schedule, or clients in a closed loop. Pure.

Knows rates, gaps, a seed and a number of clients. Touches nothing and never reads the clock: the loop passes
the time with each call.

There are two policies, which answer different questions. An *open* schedule is fixed before the first request
is sent and does not depend on the answers: it shows how long clients wait under a given offered load, and it
avoids *coordinated omission* (Gil Tene, "How NOT to Measure Latency"): a client that waits for an answer
before it sends the next request stops measuring exactly while the server stalls. *Closed* clients do just
that. They never offer more than the server takes, so they keep it busy without a growing queue: this measures
a capacity, and not a latency.
"""

import heapq
import math
import random
from collections.abc import Sequence
from typing import Final, Protocol

from loadtests.load.phase import Phase

# A client whose connection fails at once (refused, or no descriptor left) would retry within microseconds,
# and the loop would do nothing but count refusals. After a tenth of a second it still finds a listener that
# is back soon enough.
RETRY_SECONDS: Final = 0.1


class Arrivals(Protocol):
    """Which requests are due, as the loop sees it. Moments are those of the loop's clock."""

    @property
    def planned(self) -> int:
        """The number of requests to send; for closed clients, the number sent so far."""

    @property
    def next_due(self) -> float:
        """When `take` next returns a request; inf while that depends on answers, and at the end."""

    @property
    def finished(self) -> bool:
        """Whether no request comes due any more; closed clients find out in `take`."""

    def take(self, now: float) -> float | None:
        """Return the intended start of a request that is due by `now`, each once; None if there is none."""

    def on_ended(self, now: float, *, stood: bool) -> None:
        """Note that a request has ended; `stood`: its connection was established."""

    def never_due(self) -> Sequence[float]:
        """Return the intended starts of the requests that were not taken."""


class OpenSchedule:
    """Requests due at fixed moments (seconds after `started`, ascending)."""

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
        """Return the next intended start that has passed, however long ago: a stall reschedules nothing."""
        intended = self.next_due
        if intended > now:
            return None
        self._taken += 1
        self._note_next()
        return intended

    def on_ended(self, now: float, *, stood: bool) -> None:
        """Do nothing: the load is open, so answers do not change it."""

    def never_due(self) -> Sequence[float]:
        """Return the intended starts that were not taken."""
        return [self._started + offset for offset in self._offsets[self._taken :]]

    def _note_next(self) -> None:
        # Attributes, because the loop reads both several times in each turn.
        self.finished = self._taken == len(self._offsets)
        self.next_due = math.inf if self.finished else self._started + self._offsets[self._taken]


class ClosedClients:
    """`clients` clients, each with one request under way, until `end`.

    A client sends its next request when its last one has ended, so intended and started are the same moment,
    and lateness has no meaning: a generator that is late in a closed loop merely sends less.
    """

    def __init__(self, clients: int, end: float) -> None:
        self._end = end
        self._free = [-math.inf] * clients  # heap: the moment from which each idle client may send
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
        """Make a client idle again: at once, or after a pause if its connection was never established."""
        heapq.heappush(self._free, now if stood else now + RETRY_SECONDS)

    def never_due(self) -> Sequence[float]:
        """Return nothing: requests that were not sent were not planned either."""
        return ()


def intended_offsets(rate: float, duration: float, arrivals: str, seed: int) -> list[float]:
    """Return the intended starts in seconds from the start of the phase, ascending.

    `constant`: n / rate for each n in range(round(rate * duration)). `poisson`: independent
    exponential gaps with mean 1 / rate, like those of many independent users; their number varies from
    seed to seed around the same mean, and the same seed gives the same list.
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
    if phase.rate is not None:
        return intended_offsets(phase.rate, phase.duration_seconds, phase.arrivals, phase.seed)
    offsets, begin = [], 0.0
    for number, (rate, seconds) in enumerate(phase.segments):
        part = intended_offsets(rate, seconds, phase.arrivals, phase.seed + number)
        offsets += [begin + offset for offset in part]
        begin += seconds
    return offsets
