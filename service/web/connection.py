"""One record per connection, from accept to its end, and the hand-over of accepted sockets.

Knows the accepted socket, its permit, TLS and the book of connections. Accepted and completed are counted
here, where a connection really begins and ends, and not in a handler: counted in the handler the two
curves of the experiment would be equal by construction.

Why a record beside the protocol: protocol callbacks alone are not enough. After a failed TLS handshake
or hand-over neither `connection_made` nor `connection_lost` is ever called. The record exists from accept
on and is ended by whichever comes first; the second call changes nothing. A connection that is refused in the
turn in which it is accepted has none: it is counted as both at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from metrics.instruments import ConnectionEnd, Metrics
from service.log.setup import bound
from service.net import tcp
from service.net.client_limit import Client, ClientLimit
from service.net.connection_limit import Permit
from service.offload.classes import Place
from service.web.deadlines import Stage
from service.web.early_reject import Verdict
from service.web.identity import connection_ids
from service.web.protocol import Protocol
from service.web.supervisor import SWEEP_SECONDS, Supervisor

log = structlog.get_logger("offloop.connection")

PATIENCE = (0.0, 0.005)
"""Seconds until a socket without a request is checked again while requests are being rejected. Clients send
a moment after they are connected, and a rejection by a handler costs ten times the early one."""

TLS_SHUTDOWN_SECONDS = 24 * 3600.0
"""The event loop's own time limit from close to close_notify. It would cut off an answer that is still being
read, so it is set out of the way: the stages LEAVE and WRITE end a client that neither reads nor closes."""

HINT = "if many are behind this address, raise --max-connections-per-client; if it is a balancer, set it off"

CLIENTS_FAULTS = (ssl.SSLError, ConnectionError, TimeoutError)  # garbage, gone, too slow


@dataclass(frozen=True, slots=True)
class Tls:
    """How connections are encrypted."""

    context: ssl.SSLContext
    handshake_seconds: float


class Record:
    """Owns one accepted socket and its permit until the connection's end, and counts that end once."""

    __slots__ = ("_client", "_clients", "_metrics", "_permit", "arrived", "host", "place", "socket")

    def __init__(
        self,
        sock: socket.socket,
        permit: Permit,
        clients: ClientLimit,
        client: Client | None,
        host: str,
        metrics: Metrics,
    ) -> None:
        self.socket = sock
        self.host = host
        """The address of its peer; empty if that has none."""
        self._clients = clients
        self._client = client
        self._permit = permit
        self._metrics = metrics
        self.arrived: float | None = None
        """When its first request came, by `time.monotonic()`, if that lay in the kernel at accept."""
        self.place: Place | None = None
        """The place in the queue that is kept for its first request."""
        metrics.connections.opened(self)

    @property
    def is_over_limit(self) -> bool:
        """Whether its client has too many connections already."""
        return self._client is None

    def end(self, reason: ConnectionEnd) -> None:
        """The connection is over, for this reason if it is the first one told."""
        if self._metrics.connections.ended(self, reason):
            self._permit.release()
            if self._client is not None:
                self._clients.leave(self._client)
            if self.place is not None:
                self.place.release()


class HandOver:
    """Hands accepted sockets over to the HTTP protocol, but for those that are rejected at once.

    A hand-over is never cancelled: under uvloop a cancel right after it gives `connection_made` without
    `connection_lost`. Each one ends by itself, or because its socket is shut down.

    Args:
        tls: how to encrypt; None for plain HTTP.
        clients: who may have how many connections.
        check: answers a socket by itself if its request, which came then, cannot be admitted; keeps a place
            for one that can.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        tls: Tls | None,
        clients: ClientLimit,
        metrics: Metrics,
        check: Callable[[socket.socket, float | None, str], Verdict | Place] = lambda *_: Verdict.PASSED,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._supervisor = supervisor
        self.tls = tls
        """How new connections are encrypted; may be replaced by another at any time, not by None."""
        self._clients = clients
        self._metrics = metrics
        self._check = check if tls is None else lambda *_: Verdict.PASSED  # nothing to be read yet
        self._under_way: dict[asyncio.Task[None], Record] = {}
        self._ids, self._id = connection_ids(), bound("connection")

    def take(self, sock: socket.socket, permit: Permit, host: str) -> None:
        """Count the connection and start its hand-over; socket and permit are the record's from here on.

        Args:
            host: of the peer.
        """
        waited, has_bytes = tcp.accept_wait(sock)
        self._metrics.accept_wait.observe(waited)
        # A TLS client's request comes after the handshake.
        arrived = time.monotonic() - waited if has_bytes and self.tls is None else None
        verdict = self._check(sock, arrived, host) if self._clients.has_room(host) else Verdict.PASSED
        if verdict is Verdict.REFUSED:  # before anything is made for a connection that does not stay
            sock.close()
            self._metrics.connections.passed(ConnectionEnd.CLOSED)
            permit.release()
            return
        record = Record(sock, permit, self._clients, self._clients.enter(host), host, self._metrics)
        record.arrived = arrived
        if not isinstance(verdict, Verdict):
            record.place, verdict = verdict, Verdict.PASSED
        if record.is_over_limit:
            sock.close()
            record.end(ConnectionEnd.CLIENT_LIMIT)
            log.warning(
                "one client has too many connections", client=host, most=self._clients.most, hint=HINT
            )
            return
        task = self._loop.create_task(self._hand_over(record, verdict))
        self._under_way[task] = record
        task.add_done_callback(self._under_way.pop)

    async def settled(self, deadline: float) -> None:
        """Wait until every hand-over under way has ended; at the deadline the rest is cut off.

        So is it if none has ended in the time that a request has to arrive: these clients say nothing.
        Only what the loop listened counts, as with any deadline: a thousand handshakes can keep it busy for
        seconds in which none is finished.
        """
        silence, longest = 0.0, self._supervisor.deadlines.seconds[Stage.ARRIVE]
        while self._under_way and silence < longest:
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

    def _checked(self, record: Record) -> Verdict:
        """Check a socket that was silent."""
        verdict = self._check(record.socket, record.arrived, record.host)
        if not isinstance(verdict, Verdict):
            record.place = verdict
            return Verdict.PASSED
        if verdict is Verdict.REFUSED:
            record.socket.close()
            record.end(ConnectionEnd.CLOSED)
        return verdict

    async def _hand_over(self, record: Record, verdict: Verdict) -> None:
        # In this task's context, of which transport, protocol and every request of the connection get copies.
        self._id.set(next(self._ids))
        try:
            for pause in PATIENCE:
                if verdict is not Verdict.SILENT:
                    break
                await asyncio.sleep(pause)
                verdict = self._checked(record)
            if verdict is Verdict.REFUSED:
                return
            # What the loop returns is not always it: under uvloop with TLS it is the loop's own protocol.
            protocol = self._supervisor.protocol(record.socket, record.end)
            protocol.driver.place, protocol.driver.arrived = record.place, record.arrived
            if self.tls is None:
                await self._loop.connect_accepted_socket(lambda: protocol, record.socket)
            else:
                await self._shake_hands(protocol, record.socket, self.tls)
            self._supervisor.connected(protocol)
        except Exception as error:
            # One connection is lost, never the listener. The socket may or may not have reached a
            # transport that closes it; closing twice is harmless, not closing leaks a descriptor.
            record.socket.close()
            is_clients = self.tls is not None and isinstance(error, CLIENTS_FAULTS)
            record.end(ConnectionEnd.TLS if is_clients else ConnectionEnd.HANDOVER)
            if not is_clients:  # any client can send garbage: that is counted, not logged
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
