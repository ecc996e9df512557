"""The most connections of the last seconds, by a clock that a test turns."""

from __future__ import annotations

import random

import pytest

from metrics.instruments import ConnectionEnd, Connections
from metrics.peaks import WINDOW_SECONDS


class Book:
    """A book of connections at a time that a test sets; levels are reached one connection at a time."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now
        self.connections = Connections(clock=lambda: self.now)
        self._live: list[object] = []

    def at(self, now: float, level: int) -> None:
        self.now = now
        while len(self._live) < level:
            self._live.append(object())
            self.connections.opened(self._live[-1])
        while len(self._live) > level:
            assert self.connections.ended(self._live.pop(), ConnectionEnd.CLOSED)

    @property
    def peak(self) -> int:
        return self.connections.snapshot().peak


def test_a_peak_is_what_is_active_as_long_as_that_rises() -> None:
    book = Book()
    assert book.peak == 0
    for level in (1, 2, 5):
        book.at(1000, level)
        assert book.peak == level


def test_a_peak_is_seen_for_ten_seconds_after_its_fall_and_then_forgotten() -> None:
    book = Book()
    book.at(1000.9, 7)
    book.at(1000.9, 2)
    book.at(1003.0, 5)
    book.at(1003.5, 1)
    seen = []
    for now in (1000.9, 1003.5, 1010.9, 1010.999, 1011.0, 1013.9, 1014.0):
        book.now = now
        seen.append(book.peak)
    assert seen == [7, 7, 7, 7, 5, 5, 1]


def test_a_level_that_was_held_for_long_is_a_peak_when_it_ends() -> None:
    book = Book()
    book.at(1000, 4)
    book.now = 2000
    assert book.peak == 4
    book.at(2000, 0)
    assert book.peak == 4
    book.now = 2000 + WINDOW_SECONDS + 1
    assert book.peak == 0


def test_whoever_looks_resets_nothing_for_the_next() -> None:
    book = Book()
    book.at(1000, 3)
    book.at(1000, 0)
    assert [book.peak for _ in range(3)] == [3, 3, 3]


def test_what_ends_twice_is_no_peak() -> None:
    book = Book()
    book.at(1000, 1)
    book.at(1000, 0)
    assert not book.connections.ended(object(), ConnectionEnd.CLOSED)
    book.now = 1020
    assert not book.connections.ended(object(), ConnectionEnd.CLOSED)
    assert book.peak == 0


@pytest.mark.parametrize("seed", range(5))
def test_it_is_the_highest_level_of_at_least_ten_and_less_than_eleven_seconds(seed: int) -> None:
    chance, book, level = random.Random(seed), Book(0.0), 0
    levels = [(0.0, 0.0, 0)]  # from, until, how many
    for _ in range(2000):
        now = book.now + chance.choice((0.0, 0.1, 0.9, 3.0, 12.0))
        before, level = level, max(0, level + chance.randint(-4, 4))
        levels[-1] = (levels[-1][0], now, before)
        levels.append((now, now, level))
        book.at(now, level)
        highest = [
            max(held for _, until, held in levels[-200:] if until >= now - seconds)
            for seconds in (WINDOW_SECONDS, WINDOW_SECONDS + 1)
        ]
        assert highest[0] <= book.peak <= highest[1]
        assert book.peak >= book.connections.snapshot().active
