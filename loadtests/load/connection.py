"""One request on a connection of its own, from the moment it stands: send, read the answer, close.

Knows sockets and outcomes. Touches the socket that attempt.py has opened. Never waits.
"""

import ssl
from typing import Final

from loadtests.load.attempt import Attempt
from loadtests.load.sample import MALFORMED, OK, RESET, SHORT, STATUS, reason_of

# Larger than a TLS record (16 KiB), so OpenSSL never keeps back bytes that epoll cannot see.
RECEIVE_BYTES: Final = 65_536


class Connection(Attempt):
    """One request and its answer, on a connection that serves no other."""

    __slots__ = ()

    def _send(self, now: float) -> None:
        assert self._sock is not None
        try:
            sent = self._sock.send(self._unsent)
        except (BlockingIOError, ssl.SSLWantWriteError):
            sent = 0
        except OSError as error:
            self._take_early_answer(now, error)
            return
        self._note_sent(sent)

    def _note_sent(self, sent: int) -> None:
        if sent < len(self._unsent):
            self._unsent = memoryview(self._unsent)[sent:]
            self._next = Connection._send
            self._watch(write=True)
        else:
            self._next = Connection._receive
            self._watch(write=False)

    def _take_early_answer(self, now: float, error: OSError) -> None:
        """End a request that could not be sent whole: by the answer that came before the reset, if any.

        A server may refuse a large body as soon as it has read the head (413, 401, 503), and close. The
        bytes that it left unread turn the close into a RST, but the kernel keeps the answer that came first.
        """
        assert self._sock is not None
        try:
            data = self._sock.recv(RECEIVE_BYTES)
        except OSError:
            data = b""
        if data:
            self._first_byte = now
        if self._answer.feed(data) and self._answer.complete:
            self._finish_answered(now)
            self._close(now)
        else:
            self._fail(RESET, now, reason_of(error))

    def _receive(self, now: float) -> None:
        assert self._sock is not None
        try:
            data = self._sock.recv(RECEIVE_BYTES)
        except (BlockingIOError, ssl.SSLWantReadError):
            self._watch(write=False)
            return
        except OSError as error:
            self._fail(RESET, now, reason_of(error))
            return
        answer = self._answer
        if not data:
            answer.end()
        elif self._first_byte is None:
            self._first_byte = now
        if data and not answer.feed(data):
            self._fail(MALFORMED, now)
        elif answer.complete:
            self._finish_answered(now)
            self._after_the_answer(now, at_end=not data)
        elif not data:
            self._fail(SHORT, now)
        else:
            self._watch(write=False)

    def _after_the_answer(self, now: float, *, at_end: bool) -> None:
        """Leave the first FIN to the server: TIME_WAIT stays on the side that sends it (RFC 9293, 3.6).

        A client that closes first runs out of local ports at ports / 60 s; see `explain`. The owner decides
        when to look for the FIN (`step`): waking up for each FIN would cost as much as for each answer.
        """
        if at_end or not self._endpoint.server_closes:
            self._close(now)
        else:
            self._next = Connection._await_end
            self._owner.on_left_open(self, now)

    def _await_end(self, now: float) -> None:
        assert self._sock is not None
        try:
            at_end = not self._sock.recv(RECEIVE_BYTES)
        except (BlockingIOError, ssl.SSLWantReadError):
            at_end = False
        except OSError:
            at_end = True
        if at_end:
            self._close(now)
        else:
            self._watch(write=False)

    def _finish_answered(self, now: float) -> None:
        status = self._answer.status
        self._finish(OK if status in self._endpoint.expected else STATUS, now, status)
