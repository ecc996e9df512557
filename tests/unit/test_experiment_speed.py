from __future__ import annotations

import os
import sys
import threading

import psutil
import pytest

from loadtests.experiment.speed import UNITS, Speed, piece
from tests.support.synthetic import block_of, plan_of
from tests.support.waiting import until

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="cores cannot be chosen here")


def test_a_piece_is_always_the_same_work() -> None:
    assert piece() == piece() == sum(len(f"Value: {number}") for number in range(UNITS))


@LINUX
def test_pieces_run_while_it_is_open_and_no_longer() -> None:
    with Speed([os.getpid()]) as speed:
        until(lambda: speed.seconds is not None)
    assert speed.seconds is not None
    assert 0 < speed.seconds < 1
    assert not speed.lost
    assert "speed" not in {thread.name for thread in threading.enumerate()}


@LINUX
def test_the_thread_alone_is_bound_to_a_core() -> None:
    before = os.sched_getaffinity(0)
    with Speed([os.getpid()]) as speed:
        until(lambda: speed.seconds is not None)
        assert os.sched_getaffinity(0) == before


@LINUX
def test_a_worker_that_has_ended_gives_no_speed_and_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = threading.Event()

    def cpu_num(process: psutil.Process) -> int:
        asked.set()
        raise psutil.NoSuchProcess(process.pid)

    monkeypatch.setattr(psutil.Process, "cpu_num", cpu_num)
    with Speed([os.getpid()]) as speed:
        assert asked.wait(10)
    assert speed.lost
    assert speed.seconds is None


def test_at_equal_speed_a_slow_core_costs_nothing() -> None:
    """A core of half the speed: half the throughput, twice S, and a piece that takes twice as long."""
    inline = plan_of("quick").variant("inline")
    fast = block_of(inline, 1, utilisation=0.8, demand_seconds=0.004, piece_seconds=0.0005)
    slow = block_of(inline, 2, utilisation=0.8, demand_seconds=0.008, piece_seconds=0.001)
    assert slow.throughput_per_second == pytest.approx(fast.throughput_per_second / 2)
    assert slow.steady_throughput == pytest.approx(fast.steady_throughput)
    assert slow.steady_demand == pytest.approx(fast.steady_demand)


@pytest.mark.parametrize("piece_seconds", [None, 0.0005, 0.003])
def test_throughput_at_equal_speed_is_utilisation_over_demand(piece_seconds: float | None) -> None:
    made = block_of(plan_of("quick").variant("inline"), 1, piece_seconds=piece_seconds)
    assert made.steady_throughput == pytest.approx(made.utilisation / made.steady_demand)
