"""When a load gives up because nothing listens."""

from __future__ import annotations

import pytest

from loadtests.load.tally import Tally
from tests.support.samples import failed


@pytest.mark.parametrize(
    ("requests", "attempts", "since_start", "hopeless"),
    [
        (19, 1, 0.9, False),
        (20, 1, 0.0, True),
        (19, 100, 0.9, False),  # retries find again what their first attempt has found
        (20, 3, 0.0, True),
        (1, 1, 1.0, True),
        (1, 100, 1.0, True),
        (0, 0, 1.0, False),
    ],
)
def test_twenty_requests_without_a_connection_are_hopeless_however_often_each_is_sent(
    requests: int, attempts: int, since_start: float, hopeless: bool
) -> None:
    tally = Tally(None)
    refused = failed(1000, 0, "connect_error", "ECONNREFUSED", stood=False)
    for number in range(1, requests + 1):
        for attempt in range(1, attempts + 1):
            tally.not_connected(refused._replace(request=number, attempt=attempt))
    assert tally.hopeless(since_start) is hopeless
    tally.connected += 1
    assert not tally.hopeless(since_start)


def test_an_error_of_this_machine_says_nothing_of_who_listens() -> None:
    tally = Tally(None)
    for _ in range(100):
        tally.not_connected(failed(1000, 0, "connect_error", "EMFILE", stood=False))
    assert not tally.hopeless(60)
    assert not tally.failed_connects
