"""The unit of work and its calibration."""

from __future__ import annotations

import json

import pytest

from service.work import calibrate, cpu_seconds, data


class Bench:
    """Work on a clock of its own: `fixed + units * each` seconds a call."""

    def __init__(self, fixed: float, each: float) -> None:
        self.now, self.fixed, self.each = 0.0, fixed, each

    def work(self, units: int) -> bytes:
        self.now += self.fixed + units * self.each
        return b"{}"

    def clock(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("units", "city", "count"),
    [(0, "", 0), (1, "Value: 0", 8), (2, "Value: 1", 16), (11, "Value: 10", 89)],
)
def test_the_record_is_that_of_the_post(units: int, city: str, count: int) -> None:
    assert json.loads(data(units)) == {"street": "10 Downing Street", "city": city, "count": count}


@pytest.mark.parametrize(
    ("fixed", "target"), [(0.0, 0.0005), (1e-5, 0.0005), (0.0, 0.004), (1e-3, 0.004), (1e-3, 0.040)]
)
def test_calibration_meets_the_target(fixed: float, target: float) -> None:
    bench = Bench(fixed, 1e-7)
    units, cost = calibrate(bench.work, target, bench.clock)
    assert cost == pytest.approx(target, rel=0.2)
    assert cost == pytest.approx(fixed + units * 1e-7)


def test_work_that_does_not_grow_is_refused() -> None:
    with pytest.raises(ValueError, match="does not grow"):
        calibrate(Bench(1e-9, 0).work, 0.004, Bench(1e-9, 0).clock)


def test_cost_is_a_median_so_that_one_slow_call_changes_nothing() -> None:
    bench = Bench(0.001, 0)
    slow = iter([0.0, 0.0, 0.1, *[0.0] * 22])

    def work(units: int) -> bytes:
        bench.now += next(slow)
        return bench.work(units)

    assert cpu_seconds(work, 1, bench.clock) == pytest.approx(0.001)
