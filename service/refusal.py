"""The cheap no: a request that cannot be admitted is answered from the accepted socket, before HTTP.

Knows the bytes of a plain GET and one answer. An alternative to the long way round, and never necessary:
whatever it does not recognise goes that way and is refused by admission there.

Why: at ten times what the workers can do, nine of ten answers are refusals, and what they cost decides how
much is left for the work. Through the HTTP server a refusal costs as much as any small answer. From the
socket, without transport, parser, task and handler, it is cheaper: at 1,500 requests a second, three times
what the workers could do, the IO process used 0.75 of a core without this module and 0.55 with it.
"""

from __future__ import annotations

import functools
import socket
from collections.abc import Callable, Collection
from typing import Final

MOST_BYTES: Final = 4096
NOW: Final = socket.MSG_DONTWAIT  # an accepted socket blocks until a transport has it
END: Final = b"\r\n\r\n"

REFUSAL: Final = (
    "HTTP/1.1 503 Service Unavailable\r\nRetry-After: {}\r\nContent-Type: text/plain; charset=utf-8\r\n"
    "Content-Length: 20\r\nConnection: close\r\n\r\nService Unavailable\n"
)


@functools.cache
def _refusal(seconds: int) -> bytes:
    return REFUSAL.format(seconds).encode()


class Refusal:
    """Refuses what has arrived completely and would be refused anyway.

    Args:
        paths: those whose every request needs a worker.
        retry_after: the offload's refusal for a request that came now; None if it would be admitted.
        refused: counts one: told the path.
    """

    def __init__(
        self,
        paths: Collection[str],
        retry_after: Callable[[], int | None],
        refused: Callable[[str], None],
    ) -> None:
        self._paths = {path.encode(): path for path in paths}
        self._retry_after = retry_after
        self._refused = refused

    def __call__(self, sock: socket.socket) -> bool:
        """Answer what is to be refused, for the caller to close; False: the long way is still open."""
        seconds = self._retry_after()
        if seconds is None or not self._paths:
            return False
        try:
            head = sock.recv(MOST_BYTES, socket.MSG_PEEK | NOW)
            path = self._recognise(head)
            if path is None:
                return False
            sock.recv(MOST_BYTES, NOW)  # what is left unread at the close would make it a reset
            sock.send(_refusal(seconds), NOW)
        except OSError:  # nothing here yet, or gone: the long way knows what to do
            return False
        self._refused(path)
        return True

    def _recognise(self, head: bytes) -> str | None:
        """The path of a whole GET without a body and without anything after it."""
        if not head.startswith(b"GET ") or head.find(END) != len(head) - len(END):
            return None
        target, _, rest = head[4:].partition(b" ")
        if not rest.startswith(b"HTTP/1.1\r\n") or b"\r\ncontent-length:" in (low := head.lower()):
            return None
        if b"\r\ntransfer-encoding:" in low or b"\r\nexpect:" in low:
            return None
        return self._paths.get(target.partition(b"?")[0])
