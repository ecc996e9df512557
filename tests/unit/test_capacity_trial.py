"""What a trial finds in a run: passed or not, stable or not, and how long it must be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from loadtests.capacity.results import stability, upper_end
from loadtests.capacity.search import Bracket
from loadtests.capacity.trial import (
    LEAST_SECONDS,
    Trial,
    Watched,
    Work,
    grows,
    in_flight,
    seconds_needed,
    share_offered,
    trial_of,
)
from loadtests.load.phase import Phase
from loadtests.load.sample import Sample
from loadtests.load.summary import summarise
from loadtests.load.thresholds import Threshold
from tests.support.synthetic import FACTS

START = FACTS.started_monotonic
PHASE = Phase(url="http://127.0.0.1:1/", rate=100, duration_seconds=6)
P99 = Threshold.parse("p99<100ms")


def samples(latency: float, growth: float = 0.0, status: int = 200, every: int = 1) -> list[Sample]:
    """600 requests; the latency grows by `growth` seconds per second; every `every`-th has the status."""
    made = []
    for n in range(600):
        due = START + n / 100
        end = due + latency + growth * n / 100
        answered = status if n % every == 0 else 200
        made.append(
            Sample(due, due, due, end, end, "ok" if answered == 200 else "status", answered, None, 1, 0.0)
        )
    return made


def work(seconds: float, tasks: float, cpu_seconds: float) -> Work:
    return Work(seconds=seconds, tasks=tasks, cpu_seconds=cpu_seconds)


def trial(found: list[Sample], **told: Any) -> Trial:
    summary = summarise(found, FACTS, PHASE, thresholds=[P99, Threshold.parse("errors<=1%")])
    return trial_of(summary, found, START, hold=False, watched=Watched(**told))


def test_a_load_within_the_slo_passes_and_is_stable() -> None:
    made = trial(samples(0.02))
    assert (made.passed, made.stable, made.why) == (True, True, "")
    assert made.load == made.rate_per_second == pytest.approx(100)


def test_what_is_missed_is_named_with_its_figure() -> None:
    assert trial(samples(0.14)).why == "p99<100ms missed: 140 ms"
    assert "p99<100ms missed: never" in trial(samples(0.001, status=503, every=20)).why


def test_a_queue_that_grows_is_no_pass_even_within_the_slo() -> None:
    made = trial(samples(0.0, growth=0.01))
    assert not made.stable
    assert "in flight grew from " in made.why


def test_a_share_of_the_limit_is_the_load_where_s_is_known() -> None:
    made = trial(samples(0.02), readings=[work(0, 10, 1.0), work(6, 310, 2.2)], workers=2)
    assert made.load == pytest.approx(100 * 0.004 / 2)
    assert made.demand_seconds == pytest.approx(0.004)


def steady(seconds: int, demand_seconds: float) -> list[Work]:
    return [work(n / 5, n * 50, n * 50 * demand_seconds) for n in range(seconds * 5 + 1)]


@pytest.mark.parametrize("share", [0.3, 0.95, 1.0, 1.4])
def test_with_a_steady_s_the_share_is_rate_times_s(share: float) -> None:
    assert share_offered(steady(6, 0.004), share * 2 / 0.004, 2, 0.1) == pytest.approx(share, rel=1e-3)


def test_a_slow_second_counts_and_an_instant_hardly_does() -> None:
    slow_second = steady(6, 0.004)
    slow_second = [
        replace(one, cpu_seconds=one.cpu_seconds + 250 * 0.001 * min(max(one.seconds - 3, 0), 1))
        for one in slow_second
    ]
    instant = [
        replace(one, cpu_seconds=one.cpu_seconds + 50 * 0.001 * (one.seconds > 3)) for one in steady(6, 0.004)
    ]
    found = share_offered(slow_second, 200, 1, 0.1)
    hardly = share_offered(instant, 200, 1, 0.1)
    assert found is not None
    assert hardly is not None
    assert 0.9 < found < 200 * 0.005
    assert 0.8 <= hardly < 0.83


def test_a_service_that_worked_on_nothing_tells_no_s() -> None:
    made = trial(samples(0.02), readings=[work(0, 5, 1.0), work(6, 5, 1.0)], workers=2)
    assert made.demand_seconds is None
    assert made.load == pytest.approx(100)


def test_in_flight_is_a_mean_over_each_part() -> None:
    means = in_flight(samples(0.5), START, 6.0)
    assert means == pytest.approx([37.5, 50, 50, 50, 50, 50], rel=0.02), "the first answers come after 0.5 s"


@pytest.mark.parametrize(
    ("means", "grown"),
    [
        ([1, 2, 3, 4, 5, 6], True),  # 1 % too much at 100/s
        ([1, 1.2, 1.4, 1.6, 1.8, 2.0], False),  # 0.2 %
        ([2, 5, 3, 6, 2, 7], False),  # comes and goes
        ([6, 5, 4, 3, 2, 1], False),
        ([3, 3, 3, 3, 3, 3], False),
        ([2, 30, 61, 88, 121, 150], True),
    ],
)
def test_a_queue_grows_if_it_rises_steadily(means: list[float], grown: bool) -> None:
    assert grows(means, 1.0, 100.0) == grown


@pytest.mark.parametrize(
    ("rate", "thresholds", "seconds"),
    [
        (1000, ("p99<1s",), LEAST_SECONDS),
        (10, ("p99<1s",), 39),  # 368 samples and 5 % to spare
        (100, ("errors<=0.1%",), 32),
        (100, ("p99<1s", "errors<=0.1%"), 32),
    ],
)
def test_a_trial_is_as_long_as_its_thresholds_need(
    rate: float, thresholds: tuple[str, ...], seconds: float
) -> None:
    assert seconds_needed(rate, [Threshold.parse(text) for text in thresholds]) == seconds


def test_stability_and_the_reason_come_from_the_trials() -> None:
    base = trial(samples(0.02))
    trials = [
        replace(base, load=90.0),
        replace(base, load=100.0, passed=False, why="p99"),
        replace(base, load=110.0, stable=False, passed=False, why="grew"),
        replace(base, load=120.0),
    ]
    assert stability(trials) == (100.0, 110.0)
    assert upper_end(trials, Bracket(90.0, 100.0, complete=True)) == "p99"
    assert upper_end(trials, Bracket(120.0, None, complete=False)) == ""
