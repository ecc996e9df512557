"""Where an HTTP answer ends.

Knows the framing of RFC 9112 (section 6.3) by way of llhttp, node.js's parser. Touches nothing.
Never keeps a body: a load generator only needs to know that it was whole.
"""

import httptools


class Answer:
    """Bytes in, `complete` and `status` out."""

    __slots__ = ("_final_head", "_head", "_head_only", "_parser", "complete")

    def __init__(self, *, head_only: bool) -> None:
        self._head_only = head_only
        self._final_head = self.complete = False
        self._head = b""
        self._parser = httptools.HttpResponseParser(self)

    @property
    def status(self) -> int:
        """The status of the answer; call it only when complete."""
        status: int = self._parser.get_status_code()
        return status

    def feed(self, data: bytes) -> bool:
        """Take the next bytes; False when they are not HTTP."""
        if not self._final_head:
            self._head += data
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            return self.complete  # what follows a complete answer is not ours to judge
        return True

    def end(self) -> None:
        """Take note that the server closed: that completes an answer that named no length."""
        self.complete = self.complete or (self._final_head and not _Framing.is_in(self._head))

    def release(self) -> None:
        """Let go of the parser, which holds our callbacks; the last call.

        The circle would be work for the GC, and the GC's pauses would show up as lateness.
        """
        del self._parser

    def on_headers_complete(self) -> None:
        """Note the end of a head; interim answers (1xx) are followed by the real one."""
        self._final_head = self.status >= 200
        self.complete = self._final_head and self._head_only

    def on_message_complete(self) -> None:
        """Note the end of a message."""
        self.complete = self._final_head


class _Framing:
    """Whether the final head among these bytes says where the answer ends.

    Asked only when a server closes before the answer is complete: to look at each header of each answer costs
    more than all the rest of the parsing.
    """

    def __init__(self) -> None:
        self._framed = False

    @classmethod
    def is_in(cls, data: bytes) -> bool:
        framing = cls()
        httptools.HttpResponseParser(framing).feed_data(data)
        return framing._framed

    def on_message_begin(self) -> None:
        self._framed = False

    def on_header(self, name: bytes, _value: bytes) -> None:
        if name.lower() in (b"content-length", b"transfer-encoding"):
            self._framed = True
