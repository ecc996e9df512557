"""Where an HTTP answer ends.

Knows the framing of RFC 9112 (section 6.3), and whether the connection can be reused (9.3), through llhttp,
the parser of Node.js. Touches nothing. Never keeps a body: a load generator only needs to know that it was
complete.
"""

import contextlib
from email.utils import parsedate_to_datetime

import httptools


class Answer:
    """Bytes in, `complete` and `status` out."""

    __slots__ = ("_final_head", "_head", "_head_only", "_parser", "complete", "status")

    def __init__(self, *, head_only: bool) -> None:
        self._head_only = head_only
        self._final_head = self.complete = False
        self.status = 0  # known once it is complete
        self._head = b""
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> bool:
        """Take the next bytes; returns False if they are not HTTP."""
        if not self._final_head:
            self._head += data
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            return self.complete  # what follows a complete answer is not judged
        return True

    def end(self) -> None:
        """Note that the server has closed, which completes an answer without a length."""
        self.complete = self.complete or (self._final_head and not _Head(self._head).framed)

    @property
    def retry_after_seconds(self) -> float | None:
        """For how long the server asks the client to stay away; None if it does not say.

        Seconds or a date (RFC 9110, 10.2.3), which the answer's own Date makes a time to wait whatever the
        clock here says.
        """
        return None if not self._final_head else _Head(self._head).retry_after_seconds

    def release(self) -> None:
        """Release the parser, which refers to this object; the last call.

        The reference cycle would be work for the GC, whose pauses count as lateness.
        """
        del self._parser

    def on_headers_complete(self) -> None:
        """Note the end of a head; interim answers (1xx) are followed by the real one."""
        if not self.complete:  # what follows is not judged, not even a complete second answer
            self.status = self._parser.get_status_code()
            self._final_head = self.status >= 200
            self.complete = self._final_head and self._head_only

    def on_message_complete(self) -> None:
        """Note the end of a message."""
        self.complete = self._final_head


class KeptAnswer(Answer):
    """An answer, and what becomes of its connection.

    `keeps`: it can be reused. `ends`: the server closes it. Neither: bytes follow that belong to no request.
    """

    __slots__ = ("ends", "keeps")

    def __init__(self, *, head_only: bool) -> None:
        super().__init__(head_only=head_only)
        self.ends = self.keeps = False

    def on_message_begin(self) -> None:
        """Note the start of a message."""
        if self.complete:
            self.keeps = False

    def on_headers_complete(self) -> None:
        """Note the end of a head, which is also the end of an answer to HEAD."""
        if not self.complete:
            super().on_headers_complete()
            self._note_end()

    def on_message_complete(self) -> None:
        """Note the end of a message."""
        if not self.complete:
            super().on_message_complete()
            self._note_end()

    def _note_end(self) -> None:
        if self.complete:
            self.keeps = self._parser.should_keep_alive() or (self._head_only and self._is_bare())
            self.ends = not self.keeps

    def _is_bare(self) -> bool:
        """Whether an answer to HEAD has no length: llhttp then expects a body until the close."""
        head = _Head(self._head)
        return not head.framed and not head.closes and self._parser.get_http_version() == "1.1"


class _Head:
    """Whether the final head among these bytes says where the answer ends, and that the connection closes.

    Used only in the rare cases that need it: looking at each header of each answer costs more than the rest
    of the parsing.
    """

    def __init__(self, data: bytes) -> None:
        self.framed = self.closes = False
        self._date = self._retry_after = ""
        with contextlib.suppress(httptools.HttpParserError):  # what follows the answer is not judged
            httptools.HttpResponseParser(self).feed_data(data)

    @property
    def retry_after_seconds(self) -> float | None:
        value = self._retry_after
        if value.isascii() and value.isdecimal():
            return float(value)
        try:
            wait = parsedate_to_datetime(value) - parsedate_to_datetime(self._date)
        except (TypeError, ValueError, OverflowError):  # the last one for a year or a zone of twenty digits
            return None
        return max(0.0, wait.total_seconds())

    def on_message_begin(self) -> None:
        self.framed = self.closes = False
        self._date = self._retry_after = ""

    def on_header(self, name: bytes, value: bytes) -> None:
        match name.lower():
            case b"content-length" | b"transfer-encoding":
                self.framed = True
            case b"connection":
                self.closes = self.closes or b"close" in value.lower()
            case b"date":
                self._date = value.decode("latin-1")
            case b"retry-after":
                self._retry_after = value.decode("latin-1")
