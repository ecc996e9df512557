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

LONGEST_HEAD: Final = 32 * 1024
"""Bytes of a request line with all its headers; a longer head gets 431 while it comes. As much as nginx takes
(large_client_header_buffers: 4 of 8 KiB); h11 and Node take 16 KiB, Apache and aiohttp limit each line to
8 KiB and their number, which is a megabyte for every connection that has sent nothing yet."""


class Pipeline:
    """What a connection has received and no handler has claimed yet."""

    __slots__ = ("_body_left", "_counted", "_last", "is_too_long", "waiting")

    def __init__(self) -> None:
        self.waiting = b""
        """Bytes of requests to come; empty if none has begun."""
        self.is_too_long = False
        """Whether the first of them has a head of more than `LONGEST_HEAD` bytes; there is no way back."""
        self._body_left: int | None = 0
        self._counted = 0  # bytes of that head; 0: not looked at yet, -1: it has ended
        self._last = b""  # of these, in which its end may have begun

    def receive(self, data: bytes) -> bool:
        """Take bytes outside a body; whether a request begins with them.

        Empty lines before a request belong to none (RFC 9112, 2.2).
        """
        if self.waiting:
            if not self._counted:
                self._count(self.waiting)
            self._count(data)
            self.waiting += data[: MOST_BYTES - len(self.waiting)]
            return False
        self.waiting = data[:MOST_BYTES].lstrip(EMPTY_LINE)
        if len(data) > MOST_BYTES:  # else a head that ends here need never be looked at
            self._count(data)
        return bool(self.waiting)

    def claim_head(self) -> None:
        """The first request has a handler, and no body."""
        self._counted = 0
        self.waiting = self.waiting.partition(END_OF_HEAD)[2].lstrip(EMPTY_LINE)

    def claim(self, *, body: int | None, is_whole: bool) -> None:
        """The first request has a handler: its head is claimed, and its body as far as it has come.

        Args:
            body: bytes; None for a chunked body.
            is_whole: whether all of the body has come.
        """
        self._counted = 0
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

    def _count(self, data: bytes) -> None:
        """Count the bytes of the first head, until it has ended or is too long."""
        if self._counted < 0 or self.is_too_long:
            return
        before, self._counted = self._counted - len(self._last), self._counted + len(data)
        data = self._last + data
        end = data.find(END_OF_HEAD)
        self._last = data[1 - len(END_OF_HEAD) :]
        if end >= 0 and before + end + len(END_OF_HEAD) <= LONGEST_HEAD:
            self._counted, self._last = -1, b""
        else:
            self.is_too_long = self._counted > LONGEST_HEAD


def _after_body(received: bytes, left: int | None) -> bytes:
    """What follows a body of which `left` bytes were still to come; None for a chunked one."""
    if left is not None:
        return received[max(left, 0) :].lstrip(EMPTY_LINE)
    # Without the mark, the body ended with trailers or an extension. What looks like a whole head behind it
    # may be trailers, and the mark a part of the body.
    _, mark, rest = received.rpartition(LAST_CHUNK)
    return rest.lstrip(EMPTY_LINE) if mark and END_OF_HEAD not in rest else b""
