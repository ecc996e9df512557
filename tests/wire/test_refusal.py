"""The cheap no, on real sockets: who is checked at, what is answered, and that nobody is made to wait."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from service.web.early_reject import EarlyReject, Verdict

GET = b"GET /data?n=1 HTTP/1.1\r\nHost: t\r\n\r\n"


class Gate:
    """Says what a test wants it to say."""

    def __init__(self, refusal: int | None, *, at_capacity: bool = True) -> None:
        self.at_capacity, self.says = at_capacity, refusal
        self.expected, self.rejected = 0, list[str]()

    def is_queueing(self) -> bool:
        return self.at_capacity

    def refusal(self) -> int | None:
        return self.says

    def expect(self) -> None:
        self.expected += 1

    def reject(self, path: str) -> None:
        self.rejected.append(path)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A client's socket and its server's, which blocks as an accepted one does."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname(), timeout=5)
        served, _ = listener.accept()
    with client, contextlib.closing(served):
        yield client, served


def arrived(client: socket.socket, served: socket.socket, data: bytes) -> None:
    client.sendall(data)
    served.recv(1, socket.MSG_PEEK)


def test_a_request_is_answered_and_ends_in_order(pair: tuple[socket.socket, socket.socket]) -> None:
    client, served = pair
    arrived(client, served, GET)
    gate = Gate(7)
    assert EarlyReject(["/data"], gate)(served) is Verdict.REFUSED
    served.close()
    answer = b"".join(iter(lambda: client.recv(1000), b""))
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nRetry-After: 7\r\n" in answer
    assert gate.rejected == ["/data"]


@pytest.mark.parametrize(
    ("sent", "gate", "paths", "check", "expected"),
    [
        (GET, Gate(None), ["/data"], Verdict.PASSED, 1),
        (GET, Gate(7, at_capacity=False), ["/data"], Verdict.PASSED, 0),
        (GET, Gate(7), [], Verdict.PASSED, 0),
        (GET.replace(b"/data", b"/other"), Gate(7), ["/data"], Verdict.PASSED, 0),
        (GET.replace(b"/data", b"/other"), Gate(None), ["/data"], Verdict.PASSED, 0),
        (GET[:-2], Gate(7), ["/data"], Verdict.PASSED, 0),
        (b"", Gate(7), ["/data"], Verdict.SILENT, 0),
        (b"", Gate(None), ["/data"], Verdict.PASSED, 0),
    ],
)
def test_everybody_else_takes_the_long_way_with_all_that_was_sent(
    pair: tuple[socket.socket, socket.socket],
    sent: bytes,
    gate: Gate,
    paths: list[str],
    check: Verdict,
    expected: int,
) -> None:
    client, served = pair
    if sent:
        arrived(client, served, sent)
    assert EarlyReject(paths, gate)(served) is check
    assert (gate.expected, gate.rejected) == (expected, [])
    if sent:
        assert served.recv(1000) == sent


def test_a_client_that_has_reset_is_left_to_others(pair: tuple[socket.socket, socket.socket]) -> None:
    client, served = pair
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()
    with contextlib.suppress(ConnectionError):
        served.recv(1, socket.MSG_PEEK)
    gate = Gate(7)
    assert EarlyReject(["/data"], gate)(served) is not Verdict.REFUSED
    assert not gate.rejected
