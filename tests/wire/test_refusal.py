"""The cheap no, on real sockets: who is looked at, what is answered, and that nobody is made to wait."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from service.refusal import Look, Refusal

GET = b"GET /data?n=1 HTTP/1.1\r\nHost: t\r\n\r\n"


class Door:
    """Says what a test wants it to say."""

    def __init__(self, refusal: int | None, *, crowded: bool = True) -> None:
        self.crowded, self.says = crowded, refusal
        self.expected, self.rejected = 0, list[str]()

    def is_crowded(self) -> bool:
        return self.crowded

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
    door = Door(7)
    assert Refusal(["/data"], door)(served) is Look.REFUSED
    served.close()
    answer = b"".join(iter(lambda: client.recv(1000), b""))
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nRetry-After: 7\r\n" in answer
    assert door.rejected == ["/data"]


@pytest.mark.parametrize(
    ("sent", "door", "paths", "look", "expected"),
    [
        (GET, Door(None), ["/data"], Look.PASSED, 1),
        (GET, Door(7, crowded=False), ["/data"], Look.PASSED, 0),
        (GET, Door(7), [], Look.PASSED, 0),
        (GET.replace(b"/data", b"/other"), Door(7), ["/data"], Look.PASSED, 0),
        (GET.replace(b"/data", b"/other"), Door(None), ["/data"], Look.PASSED, 0),
        (GET[:-2], Door(7), ["/data"], Look.PASSED, 0),
        (b"", Door(7), ["/data"], Look.SILENT, 0),
        (b"", Door(None), ["/data"], Look.PASSED, 0),
    ],
)
def test_everybody_else_takes_the_long_way_with_all_that_was_sent(
    pair: tuple[socket.socket, socket.socket],
    sent: bytes,
    door: Door,
    paths: list[str],
    look: Look,
    expected: int,
) -> None:
    client, served = pair
    if sent:
        arrived(client, served, sent)
    assert Refusal(paths, door)(served) is look
    assert (door.expected, door.rejected) == (expected, [])
    if sent:
        assert served.recv(1000) == sent


def test_a_client_that_has_reset_is_left_to_others(pair: tuple[socket.socket, socket.socket]) -> None:
    client, served = pair
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()
    with contextlib.suppress(ConnectionError):
        served.recv(1, socket.MSG_PEEK)
    door = Door(7)
    assert Refusal(["/data"], door)(served) is not Look.REFUSED
    assert not door.rejected
