"""Where one request ends and the next begins in the bytes of a connection. Pure.

aiohttp's parser keeps the beginning of a request that came in one packet with the end of another, and does
not say so. Two things depend on it: which deadline runs (between two requests a client may take a minute,
within a head ten seconds), and whether a drain waits for the rest. Where the end cannot be told (a chunked
body that holds its own end mark, more bytes than are kept here) the guess is that nothing follows: a client
that has begun the next request gets the longer deadline, but none that is idle gets a 408.
"""

from __future__ import annotations

from typing import Final

END_OF_HEAD: Final = b"\r\n\r\n"
LAST_CHUNK: Final = b"0\r\n\r\n"
EMPTY_LINE: Final = b"\r\n"

MOST_BYTES: Final = 4096
"""Bytes kept of requests that no handler has yet: a few heads. A WebSocket's frames end up here, too."""


class Pipeline:
    """What a connection has received and no handler has claimed yet."""

    __slots__ = ("_body_left", "waiting")

    def __init__(self) -> None:
        self.waiting = b""
        """Bytes of requests to come; empty if none has begun."""
        self._body_left: int | None = 0

    def receive(self, data: bytes) -> bool:
        """Take bytes outside a body; whether a request begins with them.

        Empty lines before a request belong to none (RFC 9112, 2.2).
        """
        if self.waiting:
            self.waiting += data[: MOST_BYTES - len(self.waiting)]
            return False
        self.waiting = data[:MOST_BYTES].lstrip(EMPTY_LINE)
        return bool(self.waiting)

    def claim_head(self) -> None:
        """The first request has a handler, and no body."""
        self.waiting = self.waiting.partition(END_OF_HEAD)[2].lstrip(EMPTY_LINE)

    def claim(self, *, body: int | None, is_whole: bool) -> None:
        """The first request has a handler: its head is claimed, and its body as far as it has come.

        Args:
            body: bytes; None for a chunked body.
            is_whole: whether all of the body has come.
        """
        is_cut = len(self.waiting) == MOST_BYTES
        rest = self.waiting.partition(END_OF_HEAD)[2]
        self._body_left = None if body is None else body - len(rest)
        self.waiting = _after_body(rest, body) if is_whole and not is_cut else b""

    def receive_body(self, data: bytes, *, is_whole: bool) -> bool:
        """Take bytes that begin within a body; whether another request begins with them.

        Args:
            is_whole: whether the body has ended in them.
        """
        if is_whole:
            self.waiting = _after_body(data, self._body_left)[:MOST_BYTES]
        elif self._body_left is not None:
            self._body_left -= len(data)
        return bool(self.waiting)


def _after_body(received: bytes, left: int | None) -> bytes:
    """What follows a body of which `left` bytes were still to come; None for a chunked one."""
    if left is not None:
        return received[max(left, 0) :].lstrip(EMPTY_LINE)
    # Without the mark, the body ended with trailers or an extension. What looks like a whole head behind it
    # may be trailers, and the mark a part of the body.
    _, mark, rest = received.rpartition(LAST_CHUNK)
    return rest.lstrip(EMPTY_LINE) if mark and END_OF_HEAD not in rest else b""
