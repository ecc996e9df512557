"""What the few responses say that aiohttp does not write."""

from __future__ import annotations

from collections import Counter

import pytest

from service.web.responses import Spread


@pytest.mark.parametrize(("seconds", "most"), [(1, 2), (4, 8), (30, 60)])
def test_those_who_are_refused_are_told_evenly_to_come_back_between_once_and_twice_as_late(
    seconds: int, most: int
) -> None:
    spread = Spread()
    told = Counter(spread(seconds) for _ in range(100 * (seconds + 1)))
    assert set(told) == set(range(seconds, most + 1))
    assert min(told.values()) >= 98
    assert max(told.values()) <= 102
