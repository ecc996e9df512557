"""Whether a client does enough within a deadline: sends a body fast enough, or reads an answer.

Knows the socket and the transport's buffer, and asks the kernel. Holds no deadline itself (deadlines.py).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from typing import Final

from service.net import tcp
from service.web.deadlines import Stage

SLOWEST_BYTES_PER_SECOND: Final = 500
"""The least average rate of a body, or of an answer being read, over one deadline (mod_reqtimeout's MinRate).
A deadline for the whole would cut off honest uploads, one between two bytes would let a client drip for ever.
"""


class Progress:
    """What the client has done since the present deadline began.

    Args:
        sock: the connection's socket.
        seconds: how long each stage lasts.
    """

    __slots__ = ("_moved", "_seconds", "_sock")

    def __init__(self, sock: socket.socket, seconds: Mapping[Stage, float]) -> None:
        self._sock = sock
        self._seconds = seconds
        self._moved = 0  # bytes: of a body since BODY began; acknowledged when WRITE began

    def begin(self, stage: Stage | None) -> None:
        """A deadline of this stage begins."""
        self._moved = (tcp.acknowledged(self._sock) or 0) if stage is Stage.WRITE else 0

    def received(self, count: int) -> None:
        """So many bytes of a body have come."""
        self._moved += count

    def is_enough(self, stage: Stage | None, wire: asyncio.Transport) -> bool:
        """Whether the client did enough since `begin`, or had nothing to do."""
        if stage is Stage.BODY:
            # Nothing can come while we do not read: then the handler is slower than the client.
            return not wire.is_reading() or self._moved >= self._least(stage)
        if stage is Stage.WRITE:
            if not tcp.unacknowledged(self._sock) and not wire.get_write_buffer_size():
                return True  # it has read all there is: whatever produces the rest is slow
            acknowledged = tcp.acknowledged(self._sock)
            return acknowledged is not None and acknowledged - self._moved >= self._least(stage)
        return False

    def has_unread(self) -> bool:
        """Whether the kernel still holds bytes that the client has not read."""
        return tcp.unacknowledged(self._sock) > 0

    def _least(self, stage: Stage) -> float:
        return SLOWEST_BYTES_PER_SECOND * self._seconds[stage]
