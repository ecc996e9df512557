"""What the accept loop and a shortage decide, on a fake listener and a fake event loop."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast
from unittest import mock

import pytest
from prometheus_client import generate_latest
from structlog.testing import capture_logs

from docs.reading import anchors
from metrics.exposition import parse
from metrics.instruments import Metrics
from metrics.places import MOST_CONNECTIONS
from service.net.accept_errors import ErrorClass, classify
from service.net.accept_loop import (
    LOOK_SECONDS,
    LOOKS_IN_VAIN,
    TRIES_BEFORE_BROKEN,
    TRIES_BEFORE_PAUSE,
    AcceptLoop,
    Callbacks,
)
from service.net.connection_limit import SPARE_DESCRIPTORS, ConnectionLimit, Permit
from service.net.refusing import Refusing
from service.net.shortage import PAUSE_SECONDS, ReserveDescriptors, Shortage
from tests.conftest import Logged

ROOT = Path(__file__).parents[2]

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


class FakeTimer:
    def __init__(self, due: float, callback: Callable[..., None], arguments: tuple[object, ...]) -> None:
        self.due, self.callback, self.arguments = due, callback, arguments
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class FakeLoop:
    """Records what the accept loop asks of the event loop; time moves when a test says so."""

    def __init__(self) -> None:
        self.reading: Callable[[], None] | None = None
        self.now = 0.0
        self._timers: list[FakeTimer] = []

    def time(self) -> float:
        return self.now

    def add_reader(self, _: object, callback: Callable[[], None]) -> None:
        self.reading = callback

    def remove_reader(self, _: object) -> None:
        self.reading = None

    def call_later(self, delay: float, callback: Callable[..., None], *arguments: object) -> FakeTimer:
        self._timers.append(FakeTimer(self.now + delay, callback, arguments))
        return self._timers[-1]

    @property
    def timers(self) -> list[FakeTimer]:
        return [timer for timer in self._timers if not timer.cancelled]

    def next_timer(self) -> float:
        """Let time pass to the next timer and run it; returns how long that took."""
        timer = min(self.timers, key=lambda timer: timer.due)
        self._timers.remove(timer)
        waited, self.now = timer.due - self.now, timer.due
        timer.callback(*timer.arguments)
        return waited


class FakeSocket:
    closed = False

    def close(self) -> None:
        self.closed = True


class FakeListener:
    """Plays a script: an errno is raised, anything else is accepted; then the queue is empty."""

    def __init__(self, *script: object) -> None:
        self.script = list(script)
        self.closed = False
        self.asked = 0

    def accept(self) -> tuple[object, None]:
        self.asked += 1
        if not self.script:
            raise BlockingIOError(errno.EAGAIN, "empty")
        step = self.script.pop(0)
        if isinstance(step, BaseException):
            raise step
        if isinstance(step, int):
            raise OSError(step, "injected")
        return step, None

    def getsockopt(self, *_: object) -> bytes:
        return struct.pack("=24x2I", len(self.script), 128)

    def close(self) -> None:
        self.closed = True


class FakeRefusing:
    now = False


class Bench:
    """An accept loop on fakes, already started."""

    def __init__(self, *script: object, batch: int = 64, limit: int = 1000) -> None:
        self.loop, self.listener, self.metrics = FakeLoop(), FakeListener(*script), Metrics()
        self.taken: list[object] = []
        self.held: list[Permit] = []
        self.room: list[int] = []
        self.broken: list[OSError] = []
        self.reserve, self.refusing = ReserveDescriptors(0), FakeRefusing()
        self.possible: Callable[[], int] = lambda: 1000
        self.connection_limit = ConnectionLimit(limit, self.open_files)
        with mock.patch("asyncio.get_running_loop", return_value=self.loop):
            self.accepting = AcceptLoop(
                cast("socket.socket", self.listener),
                batch,
                self.connection_limit,
                Shortage(self.connection_limit, self.reserve, self.metrics),
                cast("Refusing", self.refusing),
                Callbacks(self.take, self.room.append, self.broken.append),
                self.metrics,
            )
        self.accepting.start()

    def open_files(self) -> tuple[int, int]:
        """Counts that allow `possible` connections, however many there are now."""
        connections = sum(permit._limit is not None for permit in self.held)  # those not released
        return 10_000, 10_000 - SPARE_DESCRIPTORS - MOST_CONNECTIONS - self.possible() + connections

    def take(self, sock: object, permit: Permit, _: str) -> None:
        self.taken.append(sock)
        self.held.append(permit)

    def turn(self) -> None:
        assert self.loop.reading is not None
        self.loop.reading()

    def value(self, name: str) -> float:
        return parse(generate_latest(self.metrics.registry).decode())[name]


def polling(*script: object, **more: int) -> Bench:
    """Requests are refused; one connection was taken and has ended, and the queue was empty then."""
    bench = Bench("one", **more)
    bench.refusing.now = True
    bench.turn()
    bench.taken.clear()
    bench.held.pop().release()
    bench.listener.script.extend(script)
    return bench


def test_while_requests_are_refused_it_looks_by_the_clock_and_takes_all_that_have_come() -> None:
    bench = polling("a", "b")
    assert bench.loop.reading is None, "nobody wakes it"
    assert bench.loop.next_timer() == LOOK_SECONDS
    assert bench.taken == ["a", "b"]
    assert bench.loop.reading is None
    bench.refusing.now = False
    bench.listener.script.append("c")
    bench.loop.next_timer()
    assert bench.taken == ["a", "b", "c"]
    assert not bench.loop.timers
    bench.listener.script.append("d")
    bench.turn()
    assert bench.taken == ["a", "b", "c", "d"]


def test_looks_that_find_nobody_have_an_end() -> None:
    bench = polling()
    for _ in range(2):
        for _ in range(LOOKS_IN_VAIN):
            assert bench.loop.reading is None
            bench.loop.next_timer()
        assert len(bench.loop.timers) == 1
        bench.listener.script.append("a")
        bench.loop.next_timer()
    for _ in range(LOOKS_IN_VAIN + 1):
        bench.loop.next_timer()
    assert not bench.loop.timers
    bench.listener.script.append("b")
    bench.turn()
    assert bench.taken == ["a", "a", "b"]
    assert bench.loop.reading is None, "others may come soon"
    assert len(bench.loop.timers) == 1


def test_a_look_that_takes_a_whole_batch_does_not_wait_for_the_next() -> None:
    bench = polling("a", "b", batch=1)
    bench.loop.next_timer()
    assert bench.taken == ["a"]
    assert not bench.loop.timers
    bench.turn()
    assert bench.taken == ["a", "b"]


def test_a_look_without_a_permit_waits_for_one_and_not_for_the_clock() -> None:
    bench = polling("a", "b", batch=2, limit=1)
    bench.loop.next_timer()
    bench.turn()
    assert bench.taken == ["a"]
    assert bench.loop.reading is None
    assert not bench.loop.timers
    bench.held.pop().release()
    bench.turn()
    assert bench.taken == ["a", "b"]


def test_a_shortage_at_a_look_pauses_as_any_other() -> None:
    bench = polling(errno.EMFILE, "a")
    bench.loop.next_timer()
    assert bench.loop.reading is None
    assert len(bench.loop.timers) == 1
    assert bench.loop.next_timer() == PAUSE_SECONDS
    bench.turn()
    assert bench.taken == ["a"]


def test_a_look_that_breaks_is_not_the_last() -> None:
    bench = polling(MemoryError(), "a")
    with pytest.raises(MemoryError):
        bench.loop.next_timer()
    bench.turn()
    assert bench.taken == ["a"]


def test_a_drain_ends_the_looks() -> None:
    bench = polling("a")
    assert bench.accepting.empty_queue() == (1, 0)
    assert not bench.loop.timers
    assert bench.loop.reading is None


def test_every_errno_has_one_fate() -> None:
    named = {ErrorClass.CONNECTION: CONNECTION, ErrorClass.SHORTAGE: SHORTAGE, ErrorClass.BROKEN: BROKEN}
    for code, name in errno.errorcode.items():
        codes = {kind: {getattr(errno, known) for known in names} for kind, names in named.items()}
        expected = next((kind for kind, known in codes.items() if code in known), ErrorClass.UNKNOWN)
        assert classify(code) is expected, name


def test_a_turn_takes_at_most_one_batch() -> None:
    bench = Bench("a", "b", "c", batch=2)
    bench.turn()
    assert bench.taken == ["a", "b"]
    bench.turn()
    assert bench.taken == ["a", "b", "c"]


def test_it_asks_for_no_more_than_wait() -> None:
    bench = Bench("a", "b")
    bench.turn()
    assert (bench.taken, bench.listener.asked) == (["a", "b"], 2)
    bench.turn()
    assert bench.listener.asked == 3, "woken for a connection that another process has taken"


def test_where_the_kernel_does_not_tell_how_many_wait_it_asks_until_there_is_none() -> None:
    bench = Bench("a", "b")
    with mock.patch("service.net.tcp.TCP_INFO", None):
        bench.turn()
    assert (bench.taken, bench.listener.asked) == (["a", "b"], 3)


def test_a_lost_connection_does_not_delay_the_next() -> None:
    bench = Bench(errno.ECONNABORTED, errno.EPROTO, "a")
    bench.turn()
    assert bench.taken == ["a"]
    assert not bench.loop.timers
    assert bench.value("listener_accept_errors_total{class=connection,errno=EPROTO}") == 1
    assert bench.connection_limit.held == 1


def test_a_shortage_pauses_exactly_half_a_second_and_recovers() -> None:
    bench = Bench(errno.EMFILE, "a")
    bench.turn()
    assert bench.loop.reading is None
    assert bench.value("listener_accept_paused") == 1
    assert bench.loop.next_timer() == PAUSE_SECONDS == 0.5
    assert bench.value("listener_accept_paused") == 0
    bench.turn()
    assert bench.taken == ["a"]
    assert bench.value("listener_accept_pauses_total") == 1
    assert bench.connection_limit.held == 1


ERRNOS = sorted(set(errno.errorcode) - {errno.EAGAIN})  # EAGAIN is no error: the queue is empty


def test_a_burst_of_any_errno_costs_what_its_fate_says_and_no_token() -> None:
    for code in ERRNOS:
        name, bench = errno.errorcode[code], Bench(*[code] * 5, "a")
        pauses = []
        while bench.listener.script and not bench.broken:
            if bench.loop.reading is None:
                pauses.append(bench.loop.next_timer())
            else:
                bench.turn()
        expected = 5 if classify(code) in (ErrorClass.SHORTAGE, ErrorClass.UNKNOWN) else 0
        assert pauses == [PAUSE_SECONDS] * expected, name
        assert bool(bench.broken) == (classify(code) is ErrorClass.BROKEN), name
        assert bench.taken == ([] if bench.broken else ["a"]), name
        assert bench.connection_limit.held == len(bench.taken), name


def test_any_errno_for_three_seconds_never_spins() -> None:
    for code in ERRNOS:
        name, bench, turns = errno.errorcode[code], Bench(*[code] * 500), 0
        with capture_logs() as lines:
            while bench.loop.now < 3.0 and not bench.broken and bench.listener.script:
                if bench.loop.reading is None:
                    bench.loop.next_timer()
                else:
                    bench.turn()
                    turns += 1
        match classify(code):
            case ErrorClass.CONNECTION:  # each is out of the queue: all are skipped without a pause
                assert bench.loop.now == 0, name
                assert not bench.listener.script, name
            case ErrorClass.BROKEN:
                assert turns == 1, name
            case ErrorClass.SHORTAGE | ErrorClass.UNKNOWN:
                assert turns == 6, name
                assert bench.value("listener_accept_pauses_total") == 6, name
        assert bench.connection_limit.held == 0, name
        assert len(lines) <= 1, f"{name}: one line per episode"


def test_an_episode_is_one_line_at_its_beginning_with_a_hint_and_one_at_its_end(
    logged: Logged,
) -> None:
    bench = Bench(errno.EMFILE, "a", errno.EMFILE, "b", errno.EMFILE, "c")
    while bench.loop.timers or bench.listener.script:
        if bench.loop.reading is not None and bench.listener.script:
            bench.turn()
        else:
            bench.loop.next_timer()
    first, last = logged()
    assert first["event"] == "accept paused"
    assert first["errno"] == "EMFILE"
    assert first["reason"] == "Too many open files"
    assert "ulimit -n" in first["hint"]
    page, _, anchor = first["see"].partition("#")
    assert anchor in anchors((ROOT / page).read_text("utf-8"))
    assert last["event"] == "accept resumed"
    assert last["pauses"] == 3
    assert last["after_seconds"] == 1.5
    assert bench.taken == ["a", "b", "c"]


def test_at_the_limit_the_listener_is_left_alone_until_a_place_is_free() -> None:
    bench = Bench("a", "b", "c", "d", limit=2)
    bench.turn()
    assert bench.taken == ["a", "b"]
    assert bench.room == [], "nobody may be waiting: the next turn will say"
    bench.turn()
    assert bench.loop.reading is None
    assert not bench.loop.timers, "a full service is no shortage"
    assert bench.room == [2], "two clients wait"
    assert bench.connection_limit.at_capacity
    bench.held[0].release()
    bench.turn()
    assert bench.taken == ["a", "b", "c"]
    at_capacity = bench.connection_limit.at_capacity
    assert at_capacity, "one more still waits"
    assert bench.connection_limit.held == 2
    bench.turn()
    assert bench.loop.reading is None
    for permit in bench.held:
        permit.release()
    bench.turn()
    assert bench.taken == ["a", "b", "c", "d"]
    assert bench.connection_limit.at_capacity == False, "the queue is empty"  # noqa: E712  # mypy remembers it as True


def test_a_token_that_comes_free_during_a_pause_does_not_end_the_pause() -> None:
    bench = Bench("a", errno.EMFILE, "b", limit=2)
    bench.turn()
    assert bench.loop.reading is None
    # As if the limit had been reached before.
    bench.connection_limit.call_when_free(bench.accepting._permit_is_free)
    bench.held[0].release()
    assert bench.loop.reading is None
    bench.loop.next_timer()
    bench.turn()
    assert bench.taken == ["a", "b"]


def test_a_shortage_of_descriptors_teaches_the_limit_until_nobody_waits() -> None:
    bench = Bench("a", "b", "c", errno.EMFILE, "d", "e", limit=500)
    bench.possible = lambda: 2
    bench.turn()
    bench.loop.next_timer()
    assert bench.connection_limit.limit == 2
    bench.turn()
    assert bench.loop.reading is None
    assert bench.connection_limit.at_capacity
    bench.loop.next_timer()
    assert bench.connection_limit.limit == 2, "the lower limit is what keeps the shortage away"
    for permit in bench.held[:2]:
        permit.release()
    bench.turn()
    assert bench.taken == ["a", "b", "c", "d"], "each end lets the next one in at once"
    assert bench.value("listener_accept_pauses_total") == 1
    bench.turn()
    bench.possible = lambda: 4  # somebody else has closed files
    bench.loop.next_timer()
    bench.turn()
    assert bench.taken == ["a", "b", "c", "d", "e"]
    bench.turn()
    bench.loop.next_timer()
    assert bench.connection_limit.limit == 500, "nobody waits any more"
    assert not bench.loop.timers


def test_a_pause_goes_on_while_no_descriptor_is_left_to_count_with() -> None:
    bench = Bench(errno.EMFILE, "a")
    bench.turn()
    counts: Iterator[int | OSError] = iter([OSError(errno.EMFILE, "injected"), 7])

    def count() -> int:
        found = next(counts)
        if isinstance(found, OSError):
            raise found
        return found

    bench.possible = count
    bench.loop.next_timer()
    assert bench.loop.reading is None
    bench.loop.next_timer()
    bench.turn()
    assert bench.taken == ["a"]
    assert bench.connection_limit.limit == 7


def test_a_hand_over_that_raises_loses_its_connection_and_nothing_else() -> None:
    lost = FakeSocket()
    bench = Bench(lost, "a")
    real = bench.take

    def once(sock: object, permit: Permit, host: str) -> None:
        if sock is lost:
            raise RuntimeError("injected")
        real(sock, permit, host)

    bench.accepting._hand_over = once  # the listener must survive whatever it hands over to
    bench.turn()
    assert lost.closed
    assert bench.taken == ["a"]
    assert bench.connection_limit.held == 1
    assert bench.loop.reading is not None


def test_connections_that_all_fail_are_looked_at_again_after_a_pause() -> None:
    bench = Bench(*[errno.EPERM] * (TRIES_BEFORE_PAUSE + 10), "a")
    while bench.loop.reading is not None:
        bench.turn()
    assert bench.value("listener_accept_pauses_total") == 1
    bench.loop.next_timer()
    bench.turn()
    assert bench.taken == ["a"]


def test_closing_ends_although_every_accept_fails() -> None:
    bench = Bench(*[errno.EPERM] * (2 * TRIES_BEFORE_PAUSE))
    taken, left = bench.accepting.empty_queue()
    assert taken == 0
    assert left == TRIES_BEFORE_PAUSE


def test_a_listener_that_cannot_be_registered_pauses() -> None:
    bench = Bench(errno.EMFILE, "a")
    bench.turn()
    real, fail = bench.loop.add_reader, iter([True])

    def sometimes(listener: object, callback: Callable[[], None]) -> None:
        if next(fail, False):
            raise OSError(errno.ENOMEM, "injected")
        real(listener, callback)

    bench.loop.add_reader = sometimes  # type: ignore[assignment]  # the kernel has no memory for it
    bench.loop.next_timer()
    assert bench.loop.reading is None
    assert bench.value("listener_accept_paused") == 1
    bench.loop.next_timer()
    bench.turn()
    assert bench.taken == ["a"]


def test_a_pause_that_lasts_asks_for_room_again() -> None:
    bench = Bench(errno.EMFILE, "a")
    bench.reserve.refill = iter([False, True]).__next__  # type: ignore[method-assign]  # on demand
    bench.turn()
    asked = len(bench.room)
    bench.loop.next_timer()
    assert len(bench.room) == asked + 1


def test_the_last_descriptors_are_not_for_connections() -> None:
    reserve = ReserveDescriptors(3)
    before = {entry.name for entry in Path("/dev/fd").iterdir()}
    reserve.drop()
    assert len(before) - len({entry.name for entry in Path("/dev/fd").iterdir()}) == 3
    assert reserve.refill()
    reserve.drop()


def test_a_pause_lasts_until_the_ballast_is_back() -> None:
    bench = Bench(errno.EMFILE, "a")
    refilled = iter([False, False, True])
    bench.reserve.refill = lambda: next(refilled)  # type: ignore[method-assign]  # descriptors on demand
    bench.turn()
    assert [bench.loop.next_timer() for _ in range(3)] == [PAUSE_SECONDS] * 3
    assert bench.loop.reading is not None
    assert bench.value("listener_accept_pauses_total") == 1


def test_the_reserve_is_free_in_a_pause_and_while_files_are_counted_and_at_the_end() -> None:
    bench = Bench("a", errno.EMFILE, "b", limit=1000)
    bench.reserve._size = 3
    bench.reserve.refill()
    held, counted = bench.reserve._held, []

    def count() -> int:
        counted.append(len(held))
        return 1

    bench.possible = count
    bench.turn()
    assert len(held) == 0
    assert bench.room == [1], "idle connections hold what is short, too"
    bench.loop.next_timer()
    assert len(held) == 3
    bench.turn()  # at the limit of 1: the episode goes on
    bench.loop.next_timer()
    assert len(held) == 3
    assert counted == [0, 0]
    bench.accepting.empty_queue()
    assert len(held) == 0


def test_the_next_episode_is_told_anew(logged: Logged) -> None:
    bench = Bench(errno.EMFILE, "a", errno.EMFILE, "b")
    for _ in range(2):
        bench.turn()
        bench.loop.next_timer()
        bench.listener.script, later = bench.listener.script[:1], bench.listener.script[1:]
        bench.turn()
        bench.loop.next_timer()
        bench.listener.script = later
    assert bench.taken == ["a", "b"]
    assert [line["event"] for line in logged()] == ["accept paused", "accept resumed"] * 2
    assert [line.get("pauses") for line in logged()] == [None, 1, None, 1]


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
        bench.loop.next_timer()
    bench.turn()
    assert len(bench.broken) == 1


def test_one_success_clears_the_count_of_an_unknown_errno() -> None:
    bench = Bench(*[errno.EXDEV] * (TRIES_BEFORE_BROKEN - 1), "a", errno.EXDEV)
    while bench.listener.script:
        if bench.loop.reading is None:
            bench.loop.next_timer()
        bench.turn()
    assert bench.taken == ["a"]
    assert not bench.broken


def test_closing_in_a_shortage_pauses_nothing_and_ends() -> None:
    bench = Bench(errno.EMFILE, "a", errno.EMFILE)
    bench.turn()
    assert bench.accepting.empty_queue() == (1, 0)
    assert bench.taken == ["a"]
    assert not bench.loop.timers
    assert bench.value("listener_accept_paused") == 0


def test_closing_empties_the_queue_first() -> None:
    bench = Bench("a", errno.ECONNABORTED, "b", batch=1)
    assert bench.accepting.empty_queue() == (2, 0)
    assert bench.taken == ["a", "b"]
    assert bench.loop.reading is None
    bench.accepting.close()
    assert bench.listener.closed


def test_of_a_shared_queue_what_waits_now_is_taken_and_the_rest_left_to_the_others() -> None:
    class Crowd(Bench):
        def take(self, sock: object, permit: Permit, host: str) -> None:
            super().take(sock, permit, host)
            self.listener.script.append("another")  # others hold the listener: clients go on to come

    bench = Crowd("a", "b")
    assert bench.accepting.empty_queue(shared=True) == (2, 0)
    assert bench.taken == ["a", "b"]


def test_a_higher_limit_lets_in_who_waits_and_a_lower_one_throws_nobody_out() -> None:
    bench = Bench("a", "b", "c", limit=1)
    bench.turn()
    assert bench.taken == ["a"]
    bench.connection_limit.set(3)
    bench.turn()
    assert bench.taken == ["a", "b", "c"]
    bench.connection_limit.set(1)
    assert bench.connection_limit.held == 3
    assert bench.connection_limit.is_reached()


@pytest.mark.parametrize(("code", "short"), [(errno.EMFILE, True), (errno.EBADF, False)])
def test_only_a_shortage_is_worth_another_try_at_the_end(code: int, short: bool) -> None:
    bench = Bench(code, "a")
    assert bench.accepting.empty_queue() == (0, 1)
    assert bench.accepting.is_short is short
    assert bench.accepting.empty_queue() == (1, 0)
    assert not bench.accepting.is_short
