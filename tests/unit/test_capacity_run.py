"""A whole search against made-up services: one drifts, one is foreign, one cannot be measured."""

from __future__ import annotations

import io
import math
import random

import pytest
from rich.console import Console

from loadtests.capacity.bench import HOLD, SATURATION_SECONDS, Order
from loadtests.capacity.results import Capacity, Saturation
from loadtests.capacity.run import INVALID_IN_A_ROW, find
from loadtests.capacity.tell import lines
from loadtests.capacity.trial import LEAST_SECONDS, Trial
from loadtests.load.phase import Phase
from loadtests.load.thresholds import Threshold

WORKERS = 2
TRUTH = 0.93
"""Share of the limit at which the made-up service begins to miss its SLO."""


class MadeUp:
    """A service whose S walks about at random, 20 % and forgotten within 25 s; it passes by its share."""

    def __init__(self, seed: int, *, tells: bool = True, drift: float = 0.2, blur: float = 0.005) -> None:
        self.random, self.tells, self.drift, self.blur = random.Random(seed), tells, drift, blur
        self.workers = WORKERS if tells else None
        self.now = 0.0
        self.log_s = self.random.gauss(0, drift)
        self.trials = 0
        self.invalid = False

    def clock(self) -> float:
        return self.now

    def saturate(self) -> Saturation:
        demand = self.pass_time(SATURATION_SECONDS)
        return Saturation(
            clients=16,
            throughput_per_second=0.97 * WORKERS / demand,
            demand_seconds=demand if self.tells else None,
        )

    def trial(self, rate: float, *, hold: bool) -> Trial:
        self.trials += 1
        seconds = LEAST_SECONDS * (HOLD if hold else 1)
        demand = self.pass_time(seconds)
        share = rate * demand / WORKERS
        blur = self.blur / (2 if hold else 1)
        passed = self.random.random() < 1 / (1 + math.exp(min(50.0, (share / TRUTH - 1) / blur)))
        return Trial(
            load=share if self.tells else rate,
            rate_per_second=rate,
            achieved_per_second=min(rate, WORKERS / demand),
            seconds=seconds,
            hold=hold,
            passed=passed,
            stable=share <= 1.0,
            why="" if passed else "p99<100ms missed: 140 ms",
            p99_seconds=0.14,
            error_share=0.0,
            demand_seconds=demand if self.tells else None,
            invalid_because="the machine is too busy" if self.invalid else "",
        )

    def pass_time(self, seconds: float) -> float:
        """S as it is on average meanwhile."""
        values = []
        for _ in range(max(1, round(seconds))):
            self.now += 1.0
            keep = math.exp(-1 / 25)
            self.log_s = self.log_s * keep + self.random.gauss(0, self.drift * math.sqrt(1 - keep**2))
            values.append(0.004 * math.exp(self.log_s))
        return sum(values) / len(values)


def order(budget: float = 1e9) -> Order:
    return Order(
        phase=Phase(url="http://127.0.0.1:1/", rate=1, duration_seconds=1),
        thresholds=(Threshold.parse("p99<100ms"),),
        clients=16,
        budget_seconds=budget,
        admin_url=None,
    )


def found(bed: MadeUp, budget: float = 1e9) -> Capacity:
    return find(order(budget), bed, Console(file=io.StringIO()), bed.clock)


def test_drift_is_taken_out_where_the_service_tells_s() -> None:
    results = [found(MadeUp(seed), budget=180) for seed in range(100)]
    covered = 0
    for result in results:
        assert result.bracket.low is not None
        assert result.bracket.high is not None
        covered += result.bracket.low <= TRUTH <= result.bracket.high
    assert covered >= 95
    assert sorted(result.bracket.width for result in results)[50] <= 0.05
    assert max(result.seconds for result in results) <= 180 + LEAST_SECONDS * HOLD + SATURATION_SECONDS


def test_of_a_steady_foreign_service_the_rate_is_bracketed() -> None:
    covered = 0
    for seed in range(100):
        bed = MadeUp(seed, tells=False, drift=0.0)
        result = found(bed)
        truth = TRUTH * WORKERS / 0.004
        assert result.limit_per_second is None
        assert result.bracket.low is not None
        assert result.bracket.high is not None
        covered += result.bracket.low <= truth <= result.bracket.high
    assert covered >= 95


def test_what_is_told_keeps_three_meanings_apart() -> None:
    result = found(MadeUp(1, drift=0.0))
    text = "\n".join(lines(result))
    assert "SLO capacity  between" in text
    assert "% of the limit)" in text
    assert "at the upper end: p99<100ms missed: 140 ms" in text
    assert "in flight grows at" in text or "no load that was tried let the queue grow" in text
    assert "by 16 clients in a closed loop" in text
    assert "500/s = 2 workers / S 4.00 ms" in text
    assert max(map(len, text.splitlines())) <= 110


def test_a_foreign_service_is_told_what_drift_was_seen() -> None:
    assert "which is not taken out" in "\n".join(lines(found(MadeUp(2, tells=False))))


def test_no_trial_begins_after_the_budget() -> None:
    bed = MadeUp(3)
    result = found(bed, budget=30)
    assert result.state == "out of time"
    assert bed.trials <= 6
    assert "not narrowed down any further: out of time" in "\n".join(lines(result))


def test_a_machine_that_cannot_measure_ends_the_search() -> None:
    bed = MadeUp(4)
    bed.invalid = True
    result = found(bed)
    assert (result.state, result.invalid_because) == ("invalid", "the machine is too busy")
    assert bed.trials == INVALID_IN_A_ROW


def test_ctrl_c_keeps_what_is_known() -> None:
    class Impatient(MadeUp):
        def trial(self, rate: float, *, hold: bool) -> Trial:
            if self.trials == 3:
                raise KeyboardInterrupt
            return super().trial(rate, hold=hold)

    result = found(Impatient(5))
    assert result.state == "interrupted"
    assert len(result.trials) == 3
    assert result.bracket.low is not None or result.bracket.high is not None


@pytest.mark.parametrize("seed", range(5))
def test_the_answer_is_the_same_for_the_same_trials(seed: int) -> None:
    assert found(MadeUp(seed)).bracket == found(MadeUp(seed)).bracket
