"""While requests are refused, the kernel hands connections over with their first bytes."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator

import pytest

from service.net import refusing, tcp
from service.net.listener import listen
from service.net.refusing import Refusing
from tests.support.waiting import eventually

pytestmark = pytest.mark.skipif(tcp.TCP_DEFER_ACCEPT is None, reason="asks for Linux's TCP_DEFER_ACCEPT")

FIRST_BYTES = b"GET /data HTTP/1.1\r\n"


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with contextlib.closing(listen("127.0.0.1", 0, 16)) as opened:
        yield opened


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What the kernel was asked for: seconds, 0 to hold nothing back."""
    told: list[int] = []
    ask = tcp.wait_for_data

    def noted(listener: socket.socket, seconds: int) -> None:
        told.append(seconds)
        ask(listener, seconds)

    monkeypatch.setattr(tcp, "wait_for_data", noted)
    return told


def is_held(listener: socket.socket) -> bool:
    """Whether no connection waits for its accept."""
    return tcp.backlog(listener)[0] == 0


async def test_from_a_refusal_on_a_connection_comes_with_its_first_bytes(listener: socket.socket) -> None:
    state = Refusing(listener)
    with socket.create_connection(listener.getsockname()):
        await eventually(lambda: not is_held(listener), "nothing has been refused yet")
        listener.accept()[0].close()
    state.note()
    with socket.create_connection(listener.getsockname()) as client:
        assert is_held(listener)
        client.sendall(FIRST_BYTES)
        await eventually(lambda: not is_held(listener))
        served, _ = listener.accept()
        with served:
            assert served.recv(100, socket.MSG_DONTWAIT) == FIRST_BYTES
    state.close()


async def test_what_is_held_back_at_the_end_comes_all_the_same(listener: socket.socket) -> None:
    state = Refusing(listener)
    state.note()
    with (
        socket.create_connection(listener.getsockname()) as silent,
        socket.create_connection(listener.getsockname()) as client,
    ):
        state.close()
        client.sendall(FIRST_BYTES)
        await eventually(lambda: tcp.backlog(listener)[0] == 2, "the silent one too, a second later")
        for _ in range(2):
            served, _ = listener.accept()
            served.close()
        assert silent.recv(1) == b""


async def test_it_lasts_for_as_long_as_requests_are_refused(
    listener: socket.socket, asked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusing, "LASTS_SECONDS", 0.05)
    state = Refusing(listener)
    began = time.monotonic()
    state.note()
    state.note()
    state.note()
    await eventually(lambda: asked == [refusing.HELD_SECONDS, 0])
    # Twice, because the second refusal came within the time of the first; uvloop's timers are early by a
    # millisecond or two.
    assert time.monotonic() - began >= 0.09
    state.note()
    assert asked == [refusing.HELD_SECONDS, 0, refusing.HELD_SECONDS]
    state.close()
    assert asked[-1] == 0
    state.note()
    assert len(asked) == 4, "a drain has begun"


async def test_with_a_shared_listener_nothing_is_held_back(listener: socket.socket, asked: list[int]) -> None:
    Refusing(listener, is_shared=True).note()
    assert asked == []
