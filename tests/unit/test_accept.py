"""The accept loop's decisions, on a listener and a loop that only pretend."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import Any, cast

import pytest
from prometheus_client import generate_latest

from metrics.exposition import parse
from metrics.instruments import Metrics
from service.accept import PAUSE_SECONDS, TRIES_BEFORE_BROKEN, AcceptLoop, Fate, fate

CONNECTION = [
    "ECONNABORTED",
    "ECONNRESET",
    "ECONNREFUSED",
    "EPROTO",
    "ENETDOWN",
    "ENOPROTOOPT",
    "EHOSTDOWN",
    "ENONET",
    "EHOSTUNREACH",
    "EOPNOTSUPP",
    "ENETUNREACH",
    "EPERM",
    "EINTR",
    "ETIMEDOUT",
]
SHORTAGE = ["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM"]
BROKEN = ["EBADF", "EINVAL", "ENOTSOCK", "EFAULT"]


class FakeLoop:
    """Records what the accept loop asks of the event loop; time moves when a test says so."""

    def __init__(self) -> None:
        self.reading: Callable[[], None] | None = None
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def add_reader(self, _: object, callback: Callable[[], None]) -> None:
        self.reading = callback

    def remove_reader(self, _: object) -> None:
        self.reading = None

    def call_later(self, delay: float, callback: Callable[[], None]) -> Any:
        self.timers.append((delay, callback))
        return self

    def cancel(self) -> None:
        self.timers.clear()


class FakeListener:
    """Plays a script: an errno is raised, anything else is accepted; then the queue is empty."""

    def __init__(self, *script: int | str) -> None:
        self.script = list(script)
        self.closed = False

    def accept(self) -> tuple[str, None]:
        if not self.script:
            raise BlockingIOError(errno.EAGAIN, "empty")
        step = self.script.pop(0)
        if isinstance(step, int):
            raise OSError(step, "injected")
        return step, None

    def getsockopt(self, *_: object) -> bytes:
        return bytes(32)

    def close(self) -> None:
        self.closed = True


class Bench:
    """An accept loop on fakes, already started."""

    def __init__(self, *script: int | str, batch: int = 64) -> None:
        self.loop, self.listener, self.metrics = FakeLoop(), FakeListener(*script), Metrics()
        self.taken: list[object] = []
        self.broken: list[OSError] = []
        self.accepting = AcceptLoop(
            cast("asyncio.AbstractEventLoop", self.loop),
            cast("socket.socket", self.listener),
            batch,
            self.taken.append,
            self.broken.append,
            self.metrics,
        )
        self.accepting.start()

    def turn(self) -> None:
        assert self.loop.reading is not None
        self.loop.reading()

    def value(self, name: str) -> float:
        return parse(generate_latest(self.metrics.registry).decode())[name]


@pytest.mark.parametrize("code", sorted(errno.errorcode), ids=errno.errorcode.get)
def test_every_errno_has_one_fate(code: int) -> None:
    name = errno.errorcode[code]
    expected = (
        Fate.CONNECTION
        if code in {getattr(errno, n) for n in CONNECTION}
        else Fate.SHORTAGE
        if name in SHORTAGE
        else Fate.BROKEN
        if name in BROKEN
        else Fate.UNKNOWN
    )
    assert fate(code) is expected


def test_a_turn_takes_at_most_one_batch() -> None:
    bench = Bench("a", "b", "c", batch=2)
    bench.turn()
    assert bench.taken == ["a", "b"]
    bench.turn()
    assert bench.taken == ["a", "b", "c"]


def test_a_lost_connection_does_not_delay_the_next() -> None:
    bench = Bench(errno.ECONNABORTED, errno.EPROTO, "a")
    bench.turn()
    assert bench.taken == ["a"]
    assert not bench.loop.timers
    assert bench.value("listener_accept_errors_total{class=connection,errno=EPROTO}") == 1


def test_a_shortage_pauses_exactly_half_a_second_and_recovers() -> None:
    bench = Bench(errno.EMFILE, "a")
    bench.turn()
    assert bench.loop.reading is None
    assert [delay for delay, _ in bench.loop.timers] == [PAUSE_SECONDS] == [0.5]
    assert bench.value("listener_accept_paused") == 1
    bench.loop.timers.pop()[1]()
    assert bench.value("listener_accept_paused") == 0
    bench.turn()
    assert bench.taken == ["a"]
    assert bench.value("listener_accept_pauses_total") == 1


def test_a_broken_listener_is_reported_once_and_not_read_again() -> None:
    bench = Bench(errno.EBADF)
    bench.turn()
    assert [error.errno for error in bench.broken] == [errno.EBADF]
    assert bench.loop.reading is None
    assert not bench.loop.timers


def test_an_unknown_errno_is_a_shortage_until_it_has_failed_too_often() -> None:
    bench = Bench(*[errno.EXDEV] * TRIES_BEFORE_BROKEN)
    for _ in range(TRIES_BEFORE_BROKEN - 1):
        bench.turn()
        assert not bench.broken
        bench.loop.timers.pop()[1]()
    bench.turn()
    assert len(bench.broken) == 1


def test_one_success_clears_the_count_of_an_unknown_errno() -> None:
    bench = Bench(*[errno.EXDEV] * (TRIES_BEFORE_BROKEN - 1), "a", errno.EXDEV)
    while bench.listener.script:
        bench.turn()
        if bench.loop.timers:
            bench.loop.timers.pop()[1]()
    assert bench.taken == ["a"]
    assert not bench.broken


def test_closing_in_a_shortage_pauses_nothing_and_ends() -> None:
    bench = Bench(errno.EMFILE, "a", errno.EMFILE)
    bench.turn()
    assert bench.accepting.close() == (1, 0)
    assert bench.taken == ["a"]
    assert not bench.loop.timers
    assert bench.value("listener_accept_paused") == 0


def test_closing_empties_the_queue_first() -> None:
    bench = Bench("a", errno.ECONNABORTED, "b", batch=1)
    assert bench.accepting.close() == (2, 0)
    assert bench.taken == ["a", "b"]
    assert bench.listener.closed
    assert bench.loop.reading is None
