"""All connections that have a protocol: holds their clients to the deadlines, evicts some, drains.

Knows deadlines and protocols. Accepts nothing and hands nothing over (connection.py).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable, Mapping

import structlog
from aiohttp import web

from metrics.instruments import ConnectionEnd, Metrics
from service.net.connection_limit import ConnectionLimit
from service.web.conformance import conforming
from service.web.deadlines import Deadlines, Stage
from service.web.driver import Driver
from service.web.exchange import Event
from service.web.protocol import Protocol

log = structlog.get_logger("offloop.connection")

SWEEP_SECONDS = 0.02
"""How often late connections are looked for: what a deadline may be exceeded by. A look at six queue heads
costs microseconds. Rarer sweeps find many late connections at once, and requests served meanwhile wait."""

REST_SECONDS = 0.1
"""The same while no deadline ends within a second: fifty sweeps a second are half a percent of a core."""

EVICTABLE_SECONDS = 0.5
"""Idle for less, a connection is not evicted: its client may have sent the next request already, which a
close would lose. Longer than a round trip to most clients."""

GRACE_SECONDS = 5.0
"""Nobody is slow before: a lost packet costs a second (RFC 6298, 2.1), and two in a row three."""

FAIR_BYTES_PER_SECOND = 16 * 1024
"""Who sends a body as fast is not evicted: what a poor mobile link does (EDGE). To hold ten thousand places
so takes an attacker a gigabit per second."""

LOOK_SECONDS = 0.5
"""How often slow connections are looked for at capacity: each look takes milliseconds for ten thousand."""

BODY_SECONDS = 0.1
"""How often all bodies that are being received are looked at, which takes as long."""

LARGEST_BODY = 2**20
"""What aiohttp reads into memory by default (`client_max_size`). A longer body is refused with 413, or its
application takes it piece by piece, or has raised that limit and answers for what it holds."""

MOST_BODY_BYTES = 256 * LARGEST_BODY
"""Of all bodies that are being received, each no longer than `LARGEST_BODY`; above it the slowest goes. They
lie in memory until they are whole. It is what a gigabit per second brings in two seconds: who needs more has
clients that send slowly, and the slowest is what holds most for longest."""


BEFORE_HANDLER = (Stage.HEAD, Stage.IDLE, Stage.ARRIVE)


class Supervisor:
    """Makes the protocols, sweeps their deadlines, and tells them what happens to all.

    Args:
        manager: aiohttp's server, which knows its protocols.
        seconds: how long a client may take in each stage.
        receive_seconds: how long it may take to send a whole request.
    """

    def __init__(
        self,
        manager: web.Server,
        connection_limit: ConnectionLimit,
        seconds: Mapping[Stage, float],
        receive_seconds: float,
        metrics: Metrics,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._manager = manager
        manager.request_factory = conforming(manager.request_factory, Protocol.refuse)
        self._connection_limit = connection_limit
        self.deadlines: Deadlines[Driver] = Deadlines(seconds)
        self._receive_seconds = receive_seconds
        self._metrics = metrics
        self._looked = 0.0  # for slow connections, by the deadlines' clock
        self._looked_at_bodies = 0.0  # by the same
        self._wanted = 0  # places that were asked for last
        self._closes_after_response = False
        self._draining = False
        self._swept = self._loop.time()
        self._pause = SWEEP_SECONDS
        self._timer = self._loop.call_later(self._pause, self._sweep)

    def protocol(self, sock: socket.socket, ended: Callable[[ConnectionEnd], None]) -> Protocol:
        """A protocol for `sock`, not yet connected; `ended` is told why its connection is over."""
        return Protocol(self._manager, sock, ended, self.deadlines, self._connection_limit, self._metrics)

    def connected(self, protocol: Protocol) -> None:
        """The protocol has its transport: what was said to all others is said to it, too."""
        if self._draining:
            protocol.driver.drain()
        elif self._closes_after_response:
            protocol.driver.closes_after_response = True

    def make_room(self, count: int) -> None:
        """Close connections until `count` are on their way out: those that have been idle for longest and, if
        there are too few of them, the slowest.
        """
        self._wanted = count
        missing = max(count - self.deadlines.count([Stage.LEAVE]), 0)
        idle = self.deadlines.longest(Stage.IDLE, missing, EVICTABLE_SECONDS)
        self._evict(idle)
        if missing > len(idle) and self.deadlines.now >= self._looked + LOOK_SECONDS:
            self._looked = self.deadlines.now
            self._evict(self._slow()[: missing - len(idle)])

    def _evict(self, drivers: Iterable[Driver]) -> None:
        for driver in drivers:
            driver.evict()

    def _slow(self) -> list[Driver]:
        """Those whose clients send at less than a fair rate, the slowest first: who is at the head of a
        request after the grace, before all bodies.
        """
        heads = self.deadlines.longest(Stage.HEAD, self._wanted, GRACE_SECONDS)
        latest = self.deadlines.now - GRACE_SECONDS
        bodies = [one for one in self.deadlines.staying(Stage.BODY) if one.began <= latest]
        slow = [one for one in bodies if one.rate() < FAIR_BYTES_PER_SECOND]
        return heads + sorted(slow, key=Driver.rate)

    def _bound_bodies(self, listened: float) -> None:
        """Hold the bodies that are being received to their time, and all together to their bytes."""
        held = {}
        for driver in self.deadlines.staying(Stage.BODY):
            if not driver.is_listening():
                driver.began += listened  # the handler is slower than the client
            elif self.deadlines.now - driver.began > self._receive_seconds:
                driver.happened(Event.LATE)
                continue
            count = driver.received()
            held[driver] = count if count <= LARGEST_BODY else 0
        above = sum(held.values()) - MOST_BODY_BYTES
        if above <= 0:
            return
        for driver in sorted(held, key=Driver.rate):
            self._evict([driver])
            above -= held[driver]
            if above <= 0:
                return

    def close_after_responses(self) -> None:
        """Let the next response on each connection be its last one, also on those still to come."""
        self._closes_after_response = True
        for driver in self._drivers():
            driver.closes_after_response = True

    def drain(self) -> None:
        """Close what is idle, and the rest after its response; see `Driver.drain`."""
        self._draining = True
        for driver in self._drivers():
            driver.drain()

    def awaited_requests(self) -> int:
        """Connections whose next request has no handler yet and may still come."""
        return self.deadlines.count(BEFORE_HANDLER)

    def pending_responses(self) -> int:
        """Connections whose clients have more to expect than a close."""
        return sum(driver.has_pending_response() for driver in self._drivers())

    def abandon(self) -> None:
        """End every connection that is left; called again, without waiting for its client."""
        for driver in self._drivers():
            driver.happened(Event.ABANDON)

    def close(self) -> None:
        """Sweep no more."""
        self._timer.cancel()

    def _drivers(self) -> list[Driver]:
        return [one.driver for one in self._manager.connections if isinstance(one, Protocol)]

    def _sweep(self) -> None:
        now = self._loop.time()
        # No more than this counts as listening: the rest of the time the loop was blocked, and what
        # clients sent meanwhile lies unread in the kernel.
        listened = min(now - self._swept, 2 * self._pause)
        self._swept = now
        near = self._connection_limit.at_capacity or self.deadlines.soonest() < 1.0
        self._pause = SWEEP_SECONDS if near else REST_SECONDS
        self._timer = self._loop.call_later(self._pause, self._sweep)  # first: it must go on
        for driver in self.deadlines.advance(listened):
            try:
                driver.expire()
            except Exception as error:
                log.error("deadline failed", error=repr(error))  # noqa: TRY400  # a line is enough
                self.deadlines.enter(driver, driver.stage)  # and again, one deadline later
        if (since := self.deadlines.now - self._looked_at_bodies) >= BODY_SECONDS:
            self._looked_at_bodies = self.deadlines.now
            self._bound_bodies(since)
        if self._connection_limit.at_capacity:
            self.make_room(self._wanted)
