"""Whose place on the admin port a new connection gets, and whose time is over."""

from __future__ import annotations

import pytest

from metrics.places import EXCHANGE_SECONDS, Place, late, to_evict


def waits(since: float) -> Place:
    return Place(since)


def answered(since: float) -> Place:
    return Place(since, has_request=True)


def cut_off(since: float) -> Place:
    return Place(since, is_cut_off=True)


@pytest.mark.parametrize(
    ("places", "evicted"),
    [
        ([], None),
        ([waits(3), waits(1), waits(2)], 1),
        ([answered(1), waits(9), waits(8)], 2),
        ([answered(5), answered(4)], 1),
        ([cut_off(1), waits(3), waits(2)], 2),
        ([cut_off(1), answered(3)], 1),
        ([cut_off(1)], None),
    ],
    ids=[
        "none is held",
        "the oldest",
        "before a scrape, however old, what has sent no request",
        "only scrapes: the oldest",
        "one on its way out is evicted once",
        "the next one if that hangs",
        "all are on their way out",
    ],
)
def test_which_connection_makes_room(places: list[Place], evicted: int | None) -> None:
    assert to_evict(places) is (None if evicted is None else places[evicted])


def test_a_slow_scrape_is_as_late_as_a_silent_client() -> None:
    places = [waits(0), answered(0), cut_off(0), waits(1), answered(1)]
    assert late(places, EXCHANGE_SECONDS - 0.1) == []
    assert late(places, EXCHANGE_SECONDS) == places[:2]
    assert late(places, EXCHANGE_SECONDS + 1) == places[:2] + places[3:]
