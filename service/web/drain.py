"""Ends the connections of a service in order and within one deadline.

Knows the accept loop, the reception and the book of connections, and the order in which nobody is lost. The
workers are stopped afterwards, by whoever started them.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import structlog

from metrics.instruments import Connections
from service.net.accept_loop import AcceptLoop
from service.net.tcp import backlog, drop_new_syns, half_open
from service.web.connection import Reception

log = structlog.get_logger("offloop.drain")

HANDSHAKE_SECONDS = 1.2
"""How long a handshake that has begun is waited for; its first retransmission comes after a second (RFC 6298,
2.1)."""

GOODBYE_SECONDS = 0.1
"""For the last words to whoever the deadline leaves without an answer."""


async def end_connections(
    listener: socket.socket,
    accepting: AcceptLoop,
    reception: Reception,
    connections: Connections,
    *,
    shared: bool,
    deadline: float,
) -> int:
    """Close the listener, answer whoever has connected, and see everybody off.

    Args:
        shared: others go on with the listener: it is left open for them.
        deadline: the moment of the loop's clock at which who is left is abandoned.

    Returns:
        How many were: connections, and clients in the kernel's queue who could not be accepted.
    """
    clock = asyncio.get_running_loop().time

    def active() -> int:
        return connections.snapshot().active

    async def emptied(moment: float) -> None:
        await _until(lambda: not active(), moment)

    log.info("draining", active=active(), waiting=backlog(listener)[0])
    reception.drain()  # what is idle first: in a shortage that frees the descriptors to accept with
    await asyncio.sleep(0)
    if not shared and drop_new_syns(listener):
        await _until(lambda: not half_open(listener), min(clock() + HANDSHAKE_SECONDS, deadline))
    taken, left = accepting.empty_queue(shared=shared)
    while left and accepting.is_short and clock() < deadline:  # whoever is answered makes room
        await asyncio.sleep(0.05)
        more, left = accepting.empty_queue(shared=shared)
        taken += more
    accepting.close()
    log.info("listener closed", active=active(), from_queue=taken, left_in_queue=left)
    await reception.settled(deadline)
    await emptied(deadline)
    late = reception.unanswered()
    for _ in range(2):  # first with a word, then without
        reception.abandon()
        await emptied(clock() + GOODBYE_SECONDS)
    log.info("connections ended", abandoned=late)
    return late + left


async def _until(condition: Callable[[], bool], moment: float) -> None:
    # Polling, because an event would cost every connection something and this costs one drain.
    clock = asyncio.get_running_loop().time
    while not condition() and clock() < moment:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
