"""Permits, the limit that is set or that the open files allow, and what a shortage makes of it."""

from __future__ import annotations

import contextvars
import errno

import pytest
from structlog.testing import capture_logs

from service.net.connection_limit import DEFAULT_MAXIMUM, ConnectionLimit, default_limit


def limit_of(limit: int) -> ConnectionLimit:
    """A limit that is set, and below what the open files allow."""
    return ConnectionLimit(limit, lambda: (1024, 40))


def test_no_more_than_the_limit_are_out_at_a_time() -> None:
    connection_limit = limit_of(2)
    held = [connection_limit.acquire(), connection_limit.acquire()]
    assert None not in held
    assert connection_limit.acquire() is None
    assert connection_limit.held == 2


def test_a_token_is_released_once_however_often_it_is_told() -> None:
    connection_limit = limit_of(2)
    first, second = connection_limit.acquire(), connection_limit.acquire()
    assert first is not None
    assert second is not None
    for _ in range(3):
        first.release()
    assert connection_limit.held == 1


def test_who_waits_is_called_once() -> None:
    connection_limit = limit_of(1)
    held = connection_limit.acquire()
    assert held is not None
    calls: list[int] = []
    connection_limit.call_when_free(lambda: calls.append(connection_limit.held))
    held.release()
    assert calls == [0]
    again = connection_limit.acquire()
    assert again is not None
    again.release()
    assert calls == [0]


def test_places_beyond_the_limit_are_not_free_when_they_come_back() -> None:
    connection_limit = limit_of(1)
    inside, beyond = connection_limit.acquire(), connection_limit.acquire(over_limit=True)
    assert inside is not None
    assert beyond is not None
    calls: list[int] = []
    connection_limit.call_when_free(lambda: calls.append(connection_limit.held))
    beyond.release()
    assert calls == []
    inside.release()
    assert calls == [0]


@pytest.mark.parametrize(
    ("open_files", "in_use", "limit"),
    [
        (1024, 40, 904),
        (100, 35, 37),
        (1_048_576, 40, DEFAULT_MAXIMUM),
        (64, 60, 1),
        (16, 40, 1),
        (512, 40, 392),
    ],
)
def test_the_default_leaves_descriptors_for_everything_else(open_files: int, in_use: int, limit: int) -> None:
    found, why = default_limit(open_files, in_use)
    assert found == limit
    assert str(open_files) in why


def test_who_waits_is_called_in_its_own_context_and_not_in_that_of_whoever_leaves() -> None:
    name = contextvars.ContextVar("name", default="nobody")
    connection_limit = limit_of(1)
    held = connection_limit.acquire()
    assert held is not None
    seen: list[str] = []

    def wait() -> None:
        name.set("waits")
        connection_limit.call_when_free(lambda: seen.append(name.get()))

    contextvars.copy_context().run(wait)
    held.release()
    assert seen == ["waits"]


class OpenFiles:
    """Counts of open files, as a test wants them; None open: they cannot be counted."""

    in_use: int | None = 40

    def __call__(self) -> tuple[int, int]:
        if self.in_use is None:
            raise OSError(errno.EMFILE, "injected")
        return 1024, self.in_use


def test_connections_do_not_lower_the_limit_that_is_derived() -> None:
    files = OpenFiles()
    connection_limit = ConnectionLimit(None, files)
    assert connection_limit.limit == 904
    held = [connection_limit.acquire() for _ in range(100)]
    files.in_use = 40 + len(held)
    connection_limit.set(None)
    assert connection_limit.limit == 904
    connection_limit.learn()
    assert connection_limit.limit == 904


def test_what_a_shortage_has_taught_applies_until_it_is_forgotten() -> None:
    files = OpenFiles()
    connection_limit = ConnectionLimit(500, files)
    files.in_use = 900
    connection_limit.learn()
    assert connection_limit.limit == 44
    connection_limit.set(700)
    assert connection_limit.limit == 44, "a higher limit brings no descriptors"
    connection_limit.set(40)
    assert connection_limit.limit == 40
    connection_limit.set(500)
    connection_limit.learn()
    files.in_use = 40
    connection_limit.learn()
    assert connection_limit.limit == 500, "never more than what is set"
    files.in_use = 900
    connection_limit.learn()
    connection_limit.forget()
    assert connection_limit.limit == 500


def test_what_waits_goes_on_when_the_limit_rises_and_not_before() -> None:
    files = OpenFiles()
    connection_limit = ConnectionLimit(1, files)
    held = connection_limit.acquire()
    calls: list[int] = []
    connection_limit.call_when_free(lambda: calls.append(connection_limit.limit))
    connection_limit.wake()
    assert calls == []
    connection_limit.set(2)
    assert calls == [2]
    assert held is not None


def test_open_files_that_cannot_be_counted_leave_the_limit_as_it_is() -> None:
    files = OpenFiles()
    connection_limit = ConnectionLimit(500, files)
    files.in_use = None
    with pytest.raises(OSError, match="injected"):
        connection_limit.set(7)
    with pytest.raises(OSError, match="injected"):
        connection_limit.learn()
    assert connection_limit.limit == 500
    with pytest.raises(OSError, match="injected"):
        ConnectionLimit(500, files)


def test_the_log_tells_a_derived_limit_and_one_that_is_set_too_high() -> None:
    with capture_logs() as lines:
        connection_limit = ConnectionLimit(None, OpenFiles())
        connection_limit.set(904)
        connection_limit.set(905)
    why = "1024 open files - 40 in use - 64 spare - 16 of the admin port"
    derived, too_high = lines
    assert derived == {
        "log_level": "info",
        "event": "connection limit",
        "max_connections": 904,
        "derived": why,
    }
    assert too_high == {
        "log_level": "warning",
        "event": "connection limit above what the open files allow",
        "max_connections": 905,
        "possible": 904,
        "derived": why,
    }
