"""How many log lines go out, on a clock that the test turns."""

from __future__ import annotations

from service.log.rate_limit import Allowance, Volume

TEN = Allowance(per_second=10, burst=5)


def test_a_burst_goes_out_whole_and_then_nothing() -> None:
    volume = Volume()
    assert [volume.admit("a", TEN, 0.0) for _ in range(7)] == [0, 0, 0, 0, 0, None, None]


def test_in_the_long_run_it_is_so_many_a_second() -> None:
    volume = Volume()
    told = [volume.admit("a", TEN, number / 1000) for number in range(10_000)]
    assert sum(one is not None for one in told) == 5 + 99  # the burst, and one every 100 ms


def test_the_next_line_that_goes_out_tells_how_many_did_not() -> None:
    volume = Volume()
    for _ in range(12):
        volume.admit("a", TEN, 0.0)
    assert volume.admit("a", TEN, 0.25) == 7
    assert volume.admit("a", TEN, 0.25) == 0


def test_a_pause_fills_no_more_than_a_burst() -> None:
    volume = Volume()
    for _ in range(5):
        volume.admit("a", TEN, 0.0)
    assert [volume.admit("a", TEN, 3600.0) for _ in range(6)] == [0, 0, 0, 0, 0, None]


def test_a_flood_of_one_event_hides_no_other() -> None:
    volume = Volume()
    for _ in range(1000):
        volume.admit("a", TEN, 0.0)
    assert volume.admit("b", TEN, 0.0) == 0
