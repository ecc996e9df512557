"""All connections that have a protocol: holds their clients to the deadlines, evicts idle ones, drains.

Knows deadlines and protocols. Accepts nothing and hands nothing over (connection.py).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping

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


class Supervisor:
    """Makes the protocols, sweeps their deadlines, and tells them what happens to all.

    Args:
        manager: aiohttp's server, which knows its protocols.
        seconds: how long a client may take in each stage.
    """

    def __init__(
        self,
        manager: web.Server,
        connection_limit: ConnectionLimit,
        seconds: Mapping[Stage, float],
        metrics: Metrics,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._manager = manager
        manager.request_factory = conforming(manager.request_factory, Protocol.refuse)
        self._connection_limit = connection_limit
        self.deadlines: Deadlines[Driver] = Deadlines(seconds)
        self._metrics = metrics
        self._evicted = 0
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

    def evict_idle(self, count: int) -> None:
        """Close the connections that have been idle for longest, until `count` are on their way out."""
        self._wanted = count
        leaving = self._evicted - self._metrics.connections.snapshot().completed[ConnectionEnd.EVICTED]
        for driver in self.deadlines.longest(Stage.IDLE, max(count - leaving, 0), EVICTABLE_SECONDS):
            driver.happened(Event.EVICT)
            self._evicted += 1

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
        if self._connection_limit.at_capacity:
            self.evict_idle(self._wanted)
