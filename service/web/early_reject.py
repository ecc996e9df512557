"""The early reject: a request that cannot be admitted is answered from the accepted socket, before HTTP.

Knows the bytes of a plain GET and one answer. A shortcut, and never necessary: a request that it does not
recognise goes through the HTTP server and is refused by admission there.

Why: at ten times what the workers can do, nine of ten answers are refusals, and what they cost decides how
much is left for the work. Through the HTTP server a refusal costs as much as any small answer. From the
socket, without transport, parser, task and handler, it is cheaper: with work of 4 ms and 1,500 requests a
second the IO process used 0.62 of a core without this module and 0.39 with it, and the workers did half as
much again.
"""

from __future__ import annotations

import enum
import functools
import re
import socket
import time
from collections.abc import Callable, Collection
from http import HTTPStatus
from typing import Final, Protocol

from metrics.instruments import Metrics
from service.offload.classes import Place
from service.offload.task import Rank
from service.web.priority import Ranks
from service.web.responses import Spread, plain

MOST_BYTES: Final = 4096
# As plain numbers: for flags of this type a single `|` costs as much as a system call.
NOW: Final = int(socket.MSG_DONTWAIT)  # an accepted socket blocks until a transport has it
PEEK: Final = int(socket.MSG_PEEK) | NOW
WITH_THE_END: Final = int(getattr(socket, "MSG_MORE", 0)) | NOW  # answer and end in one packet, on Linux
END: Final = b"\r\n\r\n"
PRIORITY: Final = re.compile(rb"\r\npriority:([^\r\n]*)", re.IGNORECASE)

LEAST_URGENT: Final = Rank(7)
"""Of a request that has not come yet. It is asked about as if it were of the last class that there is."""


@functools.lru_cache(maxsize=64)  # one per second and what it says; made anew, it would cost 10 us
def _refusal(retry_after: int, now: int) -> bytes:
    return plain(HTTPStatus.SERVICE_UNAVAILABLE, f"Retry-After: {retry_after}", at=now)


class Verdict(enum.Enum):
    """What came of checking a socket."""

    REFUSED = enum.auto()  # and answered: to be closed
    SILENT = enum.auto()  # its request has not come yet: worth another check
    PASSED = enum.auto()


class Gate(Protocol):
    """What is asked about a request before it is parsed; the offload is one (offload/offload.py)."""

    def may_refuse(self) -> bool:
        """Whether any request might be refused at present: if not, none need be checked."""

    def retry_after(self, deadline: float, arrived: float | None, rank: Rank) -> int | None:
        """Seconds for `Retry-After`; None: a request that `arrived` then, due in `deadline`, is admitted."""

    def expect(self, rank: Rank) -> Place:
        """A request that would be admitted is on its way: its place, to be released by its connection."""

    def reject(self, rank: Rank) -> None:
        """A request has been refused."""


class EarlyReject:
    """Refuses a request that has arrived completely and would be refused anyway.

    Args:
        paths: those whose every GET needs a worker.
        deadline: seconds within which a request must be answered.
        ranks: where each request stands in the queue.
        refusing: called when a request is refused, or would have been if it had come.
    """

    def __init__(
        self,
        paths: Collection[str],
        gate: Gate,
        deadline: float,
        metrics: Metrics,
        ranks: Ranks | None = None,
        refusing: Callable[[], object] = lambda: None,
    ) -> None:
        self._paths = {path.encode(): path for path in paths}
        self._gate = gate
        self._deadline = deadline
        self._metrics = metrics
        self._ranks = ranks or Ranks()
        self._refusing = refusing
        self._spread = Spread()

    def __call__(self, sock: socket.socket, arrived: float | None = None, host: str = "") -> Verdict | Place:
        """Check what has arrived, and answer it if it is to be refused.

        Args:
            arrived: when, by `time.monotonic()`; None: now.
            host: of the peer; empty if it has no address.

        Returns:
            The place of a request that would be admitted, else the verdict.
        """
        if not self._paths or not self._gate.may_refuse():
            return Verdict.PASSED
        try:
            head = sock.recv(MOST_BYTES, PEEK)
            path = self._recognise(head)
            if path is None:
                return Verdict.PASSED
            rank = self._ranks.of(path, host, functools.partial(_priority_in, head))
            seconds = self._gate.retry_after(self._deadline, arrived, rank)
            if seconds is None:
                return self._gate.expect(rank)
            sock.recv(MOST_BYTES, NOW)  # what is left unread at the close would make it a reset
            sock.send(_refusal(self._spread(seconds), int(time.time())), WITH_THE_END)
        except BlockingIOError:
            seconds = self._gate.retry_after(self._deadline, arrived, LEAST_URGENT)
            if seconds is None:
                return Verdict.PASSED
            self._refusing()
            return Verdict.SILENT
        except OSError:  # gone: the HTTP server knows what to do
            return Verdict.PASSED
        self._refusing()
        self._gate.reject(rank)
        self._metrics.request("GET", path, HTTPStatus.SERVICE_UNAVAILABLE, None)  # nobody looked at a clock
        return Verdict.REFUSED

    def _recognise(self, head: bytes) -> str | None:
        """The path of a whole GET without a body and without anything after it.

        What the HTTP server would answer 400 had better get that answer; but a mistake here costs nothing: a
        place is kept for as long as the answer takes.
        """
        if not head.startswith(b"GET ") or head.find(END) != len(head) - len(END):
            return None
        target, _, rest = head[4:].partition(b" ")
        if not rest.startswith(b"HTTP/1.1\r\n") or b"\r\ncontent-length:" in (low := head.lower()):
            return None
        if b"\r\ntransfer-encoding:" in low or b"\r\nexpect:" in low or low.count(b"\r\nhost:") != 1:
            return None
        return self._paths.get(target.partition(b"?")[0])


def _priority_in(head: bytes) -> str:
    """The Priority header of a request; several are one (RFC 9110, 5.3)."""
    return ",".join(value.decode("latin-1") for value in PRIORITY.findall(head))
