"""Handing work over, short form of `make hand-over`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.proofs import hand_over
from tests.support.tools import need

pytestmark = pytest.mark.alone


async def test_our_hand_over_costs_less_than_the_executors() -> None:
    figures = await hand_over.hand_over(rounds=1, seconds=0.3)
    assert figures["offloop: us per task"] < figures["executor: us per task"]


async def test_workers_that_sleep_are_fed_all_at_the_same_time() -> None:
    figures = await hand_over.feed(lanes=4, seconds=0.5)
    assert figures["tasks per second"] > 1 / hand_over.WORK_SECONDS, "more than one alone could do"


def test_the_same_through_the_whole_service(tmp_path: Path) -> None:
    need("wrk", "wrk")
    found = hand_over.requests(4, 1, tmp_path)
    assert found.keys() == {"connection kept", "connection per request"}
    for figures in found.values():
        assert figures["requests per second"] > 1 / hand_over.WORK_SECONDS
