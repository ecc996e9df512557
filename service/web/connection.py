"""One record per connection, from accept to its end, and the hand-over of accepted sockets.

Knows the accepted socket, its permit, TLS and the book of connections. Accepted and completed are counted
here, where a connection really begins and ends, and not in a handler: counted in the handler the two
curves of the experiment would be equal by construction.

Why a record beside the protocol: protocol callbacks alone are not enough. After a failed TLS handshake
or hand-over neither `connection_made` nor `connection_lost` is ever called. The record exists from accept
on and is ended by whichever comes first; the second call changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog
from aiohttp import web
from structlog.contextvars import bind_contextvars

from metrics.instruments import ConnectionEnd, Metrics
from service.net.connection_limit import ConnectionLimit, Permit
from service.web.deadlines import Deadlines, Stage
from service.web.early_reject import Verdict
from service.web.identity import connection_ids
from service.web.protocol import Protocol

log = structlog.get_logger("offloop.connection")

SWEEP_SECONDS = 0.02
"""How often late connections are checked for: what a deadline may be exceeded by. A check at five queue heads
costs microseconds. Rarer looks find many late ones at once, and whoever is served meanwhile waits for them.
"""

REST_SECONDS = 0.1
"""The same while nobody can be late for another second: fifty looks a second are half a percent of a core."""

PATIENCE = (0.0, 0.005)
"""Seconds until a socket without a request is checked at again while requests are being refused. Clients send
a moment after they are connected, and the long way round to a refusal costs ten times the short one."""

EVICTABLE_SECONDS = 0.5
"""Idle for less, a connection is left alone even if others wait: its client may have sent the next request
already, which closing would lose. Longer than a round trip to most clients."""

TLS_SHUTDOWN_SECONDS = 24 * 3600.0
"""The event loop's own patience from close to goodbye. It would cut off an answer that is still being read,
so it is set out of the way: the stages LEAVE and WRITE end whoever neither reads nor goes."""


CLIENTS_FAULTS = (ssl.SSLError, ConnectionError, TimeoutError)  # garbage, gone, too slow


@dataclass(frozen=True, slots=True)
class Tls:
    """How connections are encrypted."""

    context: ssl.SSLContext
    handshake_seconds: float


class Record:
    """Owns one accepted socket and its permit until the connection's end, and counts that end once."""

    __slots__ = ("_metrics", "_permit", "socket")

    def __init__(self, sock: socket.socket, permit: Permit, metrics: Metrics) -> None:
        self.socket = sock
        self._permit = permit
        self._metrics = metrics
        metrics.connections.opened(self)

    def end(self, reason: ConnectionEnd) -> None:
        """The connection is over, for this reason if it is the first one told."""
        if self._metrics.connections.ended(self, reason):
            self._permit.release()


class Reception:
    """Hands accepted sockets over to the HTTP protocol, and holds their clients to the deadlines.

    Nobody here cancels a hand-over: under uvloop a cancel right after it gives `connection_made` without
    `connection_lost`. Each one ends by itself, or because its socket is shut down.

    Args:
        seconds: how long a client may take in each stage.
        tls: how to encrypt; None for plain HTTP.
        check: answers a socket by itself if its request cannot be admitted.
    """

    def __init__(
        self,
        manager: web.Server,
        connection_limit: ConnectionLimit,
        seconds: Mapping[Stage, float],
        tls: Tls | None,
        metrics: Metrics,
        check: Callable[[socket.socket], Verdict] = lambda _: Verdict.PASSED,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._manager = manager
        self._connection_limit = connection_limit
        self._deadlines: Deadlines[Protocol] = Deadlines(seconds)
        self.tls = tls
        """How new connections are encrypted; may be replaced by another at any time, not by None."""
        self._metrics = metrics
        self._check = check if tls is None else lambda _: Verdict.PASSED  # nothing to be read yet
        self._under_way: dict[asyncio.Task[None], Record] = {}
        self._ids = connection_ids()
        self._evicted = 0
        self._room = 0  # how many places were asked for last
        self._concluding = False
        self._draining = False
        self._swept = self._loop.time()
        self._pause = SWEEP_SECONDS
        self._sweep = self._loop.call_later(self._pause, self._end_the_late)

    def take(self, sock: socket.socket, permit: Permit) -> None:
        """Count the connection and start its hand-over; socket and permit are the record's from here on."""
        record = Record(sock, permit, self._metrics)
        check = self._checked(record)
        if check is Verdict.REFUSED:
            return
        task = self._loop.create_task(self._hand_over(record, check))
        self._under_way[task] = record
        task.add_done_callback(self._under_way.pop)

    def _checked(self, record: Record) -> Verdict:
        check = self._check(record.socket)
        if check is Verdict.REFUSED:
            record.socket.close()
            record.end(ConnectionEnd.CLOSED)
        return check

    def evict_idle(self, count: int) -> None:
        """Close connections that have been idle for longest, until `count` are on their way out."""
        self._room = count
        leaving = self._evicted - self._metrics.connections.snapshot().completed[ConnectionEnd.EVICTED]
        for protocol in self._deadlines.longest(Stage.IDLE, max(count - leaving, 0), EVICTABLE_SECONDS):
            protocol.evict()
            self._evicted += 1

    def conclude(self) -> None:
        """Let the next answer on each connection be its last one, also on those still to come."""
        self._concluding = True
        for protocol in self._protocols():
            protocol.conclude()

    def drain(self) -> None:
        """Close what is idle, and the rest after its answer; see `Protocol.drain`."""
        self._draining = True
        for protocol in self._protocols():
            protocol.drain()

    def unanswered(self) -> int:
        """Connections whose clients have more to expect of us than the end."""
        return sum(protocol.has_pending_response() for protocol in self._protocols())

    def abandon(self) -> None:
        """End every connection that is left, now."""
        for protocol in self._protocols():
            protocol.abandon()

    def _protocols(self) -> list[Protocol]:
        return [one for one in self._manager.connections if isinstance(one, Protocol)]

    async def settled(self, deadline: float) -> None:
        """Wait until every hand-over under way has ended; at the deadline the rest is let go.

        So is it if none has ended in the time that a request has to arrive: these clients say nothing.
        Only what the loop listened counts, as with any deadline: a thousand handshakes can keep it busy for
        seconds in which none is finished.
        """
        silence = 0.0
        while self._under_way and silence < self._deadlines.seconds[Stage.ARRIVE]:
            began, before = self._loop.time(), len(self._under_way)
            if began >= deadline:
                break
            await asyncio.wait(self._under_way, timeout=SWEEP_SECONDS)
            listened = min(self._loop.time() - began, 2 * SWEEP_SECONDS)
            silence = silence + listened if len(self._under_way) == before else 0.0
        for record in self._under_way.values():
            with contextlib.suppress(OSError):  # not connected any more
                record.socket.shutdown(socket.SHUT_RDWR)
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=1.0)

    def close(self) -> None:
        """Stop looking for the late."""
        self._sweep.cancel()

    def _end_the_late(self) -> None:
        now = self._loop.time()
        # No more than this counts as listening: the rest of the time the loop was blocked, and what
        # clients sent meanwhile lies unread in the kernel.
        listened = min(now - self._swept, 2 * self._pause)
        self._swept = now
        near = self._connection_limit.at_capacity or self._deadlines.soonest() < 1.0
        self._pause = SWEEP_SECONDS if near else REST_SECONDS
        self._sweep = self._loop.call_later(self._pause, self._end_the_late)  # first: it must go on
        for protocol in self._deadlines.advance(listened):
            try:
                protocol.expire()
            except Exception as error:
                log.error("deadline failed", error=repr(error))  # noqa: TRY400  # a line is enough
                self._deadlines.enter(protocol, protocol.stage)  # and again, one deadline later
        if self._connection_limit.at_capacity:
            self.evict_idle(self._room)

    async def _hand_over(self, record: Record, check: Verdict) -> None:
        # In this task's context, of which transport, protocol and every request of the connection get copies.
        bind_contextvars(connection=next(self._ids))

        try:
            for pause in PATIENCE:
                if check is not Verdict.SILENT:
                    break
                await asyncio.sleep(pause)
                check = self._checked(record)
            if check is Verdict.REFUSED:
                return
            # What the loop returns is not always it: under uvloop with TLS it is the loop's own protocol.
            protocol = Protocol(
                self._manager,
                record.socket,
                record.end,
                self._deadlines,
                self._connection_limit,
                self._metrics,
            )
            if self.tls is None:
                await self._loop.connect_accepted_socket(lambda: protocol, record.socket)
            else:
                await self._shake_hands(protocol, record.socket, self.tls)
            if self._draining:
                protocol.drain()
            elif self._concluding:
                protocol.conclude()
        except Exception as error:
            # One connection is lost, never the listener. The socket may or may not have reached a
            # transport that closes it; closing twice is harmless, not closing leaks a descriptor.
            record.socket.close()
            is_clients = self.tls is not None and isinstance(error, CLIENTS_FAULTS)
            record.end(ConnectionEnd.TLS if is_clients else ConnectionEnd.HANDOVER)
            if not is_clients:  # anybody can send garbage: what clients do wrong is counted, not logged
                log.warning("hand-over failed", error=repr(error))

    async def _shake_hands(self, protocol: Protocol, sock: socket.socket, tls: Tls) -> None:
        begun = self._loop.time()
        outcome = "failed"
        try:
            await self._loop.connect_accepted_socket(
                lambda: protocol,
                sock,
                ssl=tls.context,
                ssl_handshake_timeout=tls.handshake_seconds,
                ssl_shutdown_timeout=TLS_SHUTDOWN_SECONDS,
            )
            outcome = "ok"
        finally:
            self._metrics.handshake(outcome, self._loop.time() - begun)
