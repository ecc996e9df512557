"""How many log lines go out, on a clock that the test turns."""

from __future__ import annotations

from service.log.rate_limit import Allowance, RateLimiter

TEN = Allowance(per_second=10, burst=5)


def test_a_burst_goes_out_whole_and_then_nothing() -> None:
    limiter = RateLimiter()
    assert [limiter.admit("a", TEN, 0.0) for _ in range(7)] == [0, 0, 0, 0, 0, None, None]


def test_in_the_long_run_it_is_so_many_a_second() -> None:
    limiter = RateLimiter()
    told = [limiter.admit("a", TEN, number / 1000) for number in range(10_000)]
    assert sum(one is not None for one in told) == 5 + 99  # the burst, and one every 100 ms


def test_the_next_line_that_goes_out_tells_how_many_did_not() -> None:
    limiter = RateLimiter()
    for _ in range(12):
        limiter.admit("a", TEN, 0.0)
    assert limiter.admit("a", TEN, 0.25) == 7
    assert limiter.admit("a", TEN, 0.25) == 0


def test_a_pause_fills_no_more_than_a_burst() -> None:
    limiter = RateLimiter()
    for _ in range(5):
        limiter.admit("a", TEN, 0.0)
    assert [limiter.admit("a", TEN, 3600.0) for _ in range(6)] == [0, 0, 0, 0, 0, None]


def test_a_flood_of_one_event_hides_no_other() -> None:
    limiter = RateLimiter()
    for _ in range(1000):
        limiter.admit("a", TEN, 0.0)
    assert limiter.admit("b", TEN, 0.0) == 0
