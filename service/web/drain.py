"""Ends the connections of a service in order and within one deadline.

Knows the accept loop, the hand-over, the supervisor and the book of connections, and the order in which no
request is lost and the application hears of the end in time. The workers are stopped afterwards, by the part
that started them.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from metrics.instruments import Connections
from service.net.accept_loop import AcceptLoop
from service.net.refusing import Refusing
from service.net.tcp import backlog, drop_new_syns, half_open
from service.web.connection import HandOver
from service.web.supervisor import Supervisor

log = structlog.get_logger("offloop.drain")

HANDSHAKE_SECONDS = 1.5
"""How long a handshake that has begun is waited for, or a connection that the kernel holds back: the first
retransmission of either comes after a second (RFC 6298, 2.1), and then a round trip."""

GOODBYE_SECONDS = 0.1
"""For the 503 to clients that the deadline leaves without an answer."""


@dataclass(frozen=True, slots=True)
class Drain:
    """What has to be ended, in the order in which it is.

    Args:
        listener: what the accept loop reads.
        refusing: holds connections to it back, and then no longer.
        is_shared: other processes go on with the listener: it is left open for them.
        tell_application: sends the application its on_shutdown, until the deadline at most.
    """

    listener: socket.socket
    refusing: Refusing
    accept_loop: AcceptLoop
    hand_over: HandOver
    supervisor: Supervisor
    connections: Connections
    is_shared: bool
    tell_application: Callable[[], Awaitable[object]]

    async def run(self, deadline: float) -> int:
        """Close the listener, answer every client that has connected, and close the connections.

        Args:
            deadline: the moment of the loop's clock at which the connections that are left are abandoned.

        Returns:
            How many were: connections, and clients in the kernel's queue that could not be accepted.
        """
        clock = asyncio.get_running_loop().time
        log.info("draining", active=self._active(), waiting=backlog(self.listener)[0])
        self.supervisor.drain()  # what is idle first: in a shortage that frees the descriptors to accept with
        await asyncio.sleep(0)
        left = await self._empty_queue(deadline)
        await self.hand_over.settled(deadline)
        # The application is told now, and not at the signal: a WebSocket that is opened later would never
        # hear of the end, and from here on no handler can begin. The wait for that is bounded: a silent
        # client is given up after the stage ARRIVE. Requests that run go on meanwhile. It is aiohttp's own
        # order: listener closed, idle connections closed, on_shutdown, handlers end, on_cleanup.
        await _until(lambda: not self.supervisor.awaited_requests(), deadline)
        await self.tell_application()
        await self._until_none_active(deadline)
        late = self.supervisor.pending_responses()
        for _ in range(2):  # first with a 503, then without
            self.supervisor.abandon()
            await self._until_none_active(clock() + GOODBYE_SECONDS)
        log.info("connections ended", abandoned=late)
        return late + left

    async def _empty_queue(self, deadline: float) -> int:
        """Accept what waits in the kernel and close the listener; how many clients could not be accepted."""
        clock = asyncio.get_running_loop().time
        self.refusing.close()
        if not self.is_shared and drop_new_syns(self.listener):
            moment = min(clock() + HANDSHAKE_SECONDS, deadline)
            # To ask takes the loop 10 to 30 ms, which it has for others meanwhile.
            await _until(lambda: not half_open(self.listener), moment, every=0.1)
        taken, left = self.accept_loop.empty_queue(shared=self.is_shared)
        while left and self.accept_loop.is_short and clock() < deadline:  # each answer makes room
            await asyncio.sleep(0.05)
            more, left = self.accept_loop.empty_queue(shared=self.is_shared)
            taken += more
        self.accept_loop.close()
        log.info("listener closed", active=self._active(), from_queue=taken, left_in_queue=left)
        return left

    def _active(self) -> int:
        return self.connections.snapshot().active

    async def _until_none_active(self, moment: float) -> None:
        await _until(lambda: not self._active(), moment)


async def _until(condition: Callable[[], bool], moment: float, every: float = 0.01) -> None:
    # Polling, because an event would cost every connection something and this costs one drain.
    clock = asyncio.get_running_loop().time
    while not condition() and clock() < moment:  # noqa: ASYNC110
        await asyncio.sleep(every)
