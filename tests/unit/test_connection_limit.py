"""Capacity, and the limit that the open files allow."""

from __future__ import annotations

import contextvars

import pytest

from service.net.connection_limit import MOST, ConnectionLimit, derive


def test_no_more_than_the_limit_are_out_at_a_time() -> None:
    connection_limit = ConnectionLimit(2)
    held = [connection_limit.take(), connection_limit.take()]
    assert None not in held
    assert connection_limit.take() is None
    assert connection_limit.taken == 2


def test_a_token_is_released_once_however_often_it_is_told() -> None:
    connection_limit = ConnectionLimit(2)
    first, second = connection_limit.take(), connection_limit.take()
    assert first is not None
    assert second is not None
    for _ in range(3):
        first.release()
    assert connection_limit.taken == 1


def test_who_waits_is_called_once() -> None:
    connection_limit = ConnectionLimit(1)
    held = connection_limit.take()
    assert held is not None
    calls: list[int] = []
    connection_limit.when_free(lambda: calls.append(connection_limit.taken))
    held.release()
    assert calls == [0]
    again = connection_limit.take()
    assert again is not None
    again.release()
    assert calls == [0]


def test_places_beyond_the_limit_are_not_free_when_they_come_back() -> None:
    connection_limit = ConnectionLimit(1)
    inside, beyond = connection_limit.take(), connection_limit.take(beyond=True)
    assert inside is not None
    assert beyond is not None
    calls: list[int] = []
    connection_limit.when_free(lambda: calls.append(connection_limit.taken))
    beyond.release()
    assert calls == []
    inside.release()
    assert calls == [0]


@pytest.mark.parametrize(
    ("open_files", "in_use", "limit"),
    [(1024, 40, 920), (100, 35, 53), (1_048_576, 40, MOST), (64, 60, 1), (16, 40, 1), (512, 40, 408)],
)
def test_the_default_leaves_descriptors_for_everything_else(open_files: int, in_use: int, limit: int) -> None:
    found, why = derive(open_files, in_use)
    assert found == limit
    assert str(open_files) in why


def test_who_waits_is_called_in_its_own_context_and_not_in_that_of_whoever_leaves() -> None:
    name = contextvars.ContextVar("name", default="nobody")
    connection_limit = ConnectionLimit(1)
    held = connection_limit.take()
    assert held is not None
    seen: list[str] = []

    def wait() -> None:
        name.set("waits")
        connection_limit.when_free(lambda: seen.append(name.get()))

    contextvars.copy_context().run(wait)
    held.release()
    assert seen == ["waits"]
