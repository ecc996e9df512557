"""Until when a connection may stay in its present stage. Pure: it is told how time passes.

Knows the stages in which the *client* must do something, and how long each may last. Never touches a
connection: it returns those that are late.

One queue per stage instead of one timer per connection: within a stage all deadlines have the same
length, so the order of entering is the order of expiring, and only the head of each queue need be
looked at. Entering costs two dictionary operations, a timer an allocation in the event loop. The same
queue tells which idle connection has been idle for longest.
"""

from __future__ import annotations

import enum
import itertools
import math
from collections.abc import Iterable, Mapping
from typing import Final, Generic, Protocol, TypeVar

LEAVE_SECONDS: Final = 2.0
"""From our close to the client's under TLS: a few round trips. Many clients that pool their connections never
look at an idle one, and a drain would wait for their close_notify."""

ARRIVE_SECONDS: Final = 3.0
"""How long a drain waits for a request that may be on its way. If the SYN-ACK was lost and then the request,
the request comes again after 2.4 s: after a handshake with a retransmission the client's kernel has no round
trip to go by (Linux, TCP_TIMEOUT_FALLBACK; RFC 6298, 5.7). At 2 % loss and 100 connections a second a wait of
1 s cut off one request in ten drains (`make lossy`). Shorter than the patience of a deploy."""


class Stage(enum.StrEnum):
    """What we wait for. While the handler works there is no stage: the client has nothing to do.

    StrEnum, because a plain Enum hashes by a Python function, and each request looks stages up.
    """

    HEAD = "head"  # the request line and the headers
    BODY = "body"  # the rest of the request
    WRITE = "write"  # that the client reads what was written
    IDLE = "idle"  # the next request
    ARRIVE = "arrive"  # a request that may be on its way while we drain
    LEAVE = "leave"  # that the client ends the connection, too, which we have closed


class Timed(Protocol):
    """A connection, as far as this module knows it. Only `Deadlines` sets the stage."""

    stage: Stage | None


T = TypeVar("T", bound=Timed)


class Deadlines(Generic[T]):
    """Which connection is in which stage, and until when. `seconds` holds the length of each stage.

    The clock is one of its own: it moves only when `advance` says how long the loop was listening, so
    a loop that was blocked never counts its own delay against a client.
    """

    def __init__(self, seconds: Mapping[Stage, float]) -> None:
        self.seconds = seconds
        self.now = 0.0
        """Seconds of this clock."""
        self._due: dict[Stage, dict[T, float]] = {stage: {} for stage in Stage}

    def enter(self, connection: T, stage: Stage | None) -> None:
        """Leave the present stage and begin another (or the same anew), or none."""
        if connection.stage is not None:
            del self._due[connection.stage][connection]
        connection.stage = stage
        if stage is not None:
            self._due[stage][connection] = self.now + self.seconds[stage]

    def advance(self, seconds: float) -> list[T]:
        """Let time pass; returns the connections whose time is up, each stage's earliest first.

        They stay in their stage: what to do with them is for the caller.
        """
        self.now += seconds
        return [
            connection
            for due in self._due.values()
            for connection, _ in itertools.takewhile(lambda entry: entry[1] < self.now, due.items())
        ]

    def count(self, stages: Iterable[Stage]) -> int:
        """How many connections are in these stages."""
        return sum(len(self._due[stage]) for stage in stages)

    def staying(self, stage: Stage) -> list[T]:
        """The connections in `stage`, those that are to leave it first in front."""
        return list(self._due[stage])

    def since(self, connection: T) -> float:
        """When its present stage began, by the clock `now`; now, if it is in none."""
        stage = connection.stage
        return self.now if stage is None else self._due[stage][connection] - self.seconds[stage]

    def soonest(self) -> float:
        """Seconds until the next deadline of any connection; infinite if there is none."""
        firsts = (next(iter(due.values())) for due in self._due.values() if due)
        return min(firsts, default=math.inf) - self.now

    def longest(self, stage: Stage, count: int, at_least: float) -> list[T]:
        """At most `count` connections that have been in `stage` for `at_least` seconds, the longest first."""
        latest = self.now + self.seconds[stage] - at_least
        long = itertools.takewhile(lambda entry: entry[1] <= latest, self._due[stage].items())
        return [connection for connection, _ in itertools.islice(long, count)]
