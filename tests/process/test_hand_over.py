"""Handing work over, short form of `make hand-over`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.proofs import hand_over
from tests.support.tools import need

pytestmark = pytest.mark.alone


async def test_our_hand_over_costs_less_than_the_executors() -> None:
    figures = await hand_over.hand_over(rounds=5, seconds=0.1)
    assert figures["offloop: us per task"] < figures["executor: us per task"]


WINDOWS = 5
"""So many short ones, for the machine may stand still in some: one worker alone could do it in none."""


async def test_workers_that_sleep_are_fed_all_at_the_same_time() -> None:
    rates = [(await hand_over.feed(lanes=4, seconds=0.1))["tasks per second"] for _ in range(WINDOWS)]
    assert max(rates) > 1 / hand_over.WORK_SECONDS, "more than one alone could do"


def test_the_same_through_the_whole_service(tmp_path: Path) -> None:
    need("wrk", "wrk")
    best = {"connection kept": 0.0, "connection per request": 0.0}
    for _ in range(WINDOWS):
        found = hand_over.requests(4, 1, tmp_path)
        assert found.keys() == best.keys()
        best = {name: max(best[name], figures["requests per second"]) for name, figures in found.items()}
        if min(best.values()) > 1 / hand_over.WORK_SECONDS:
            break
    assert min(best.values()) > 1 / hand_over.WORK_SECONDS, best
