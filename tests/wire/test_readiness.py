"""Since when a socket can have been ready, with a clock that says what it is told."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from loadtests.load.readiness import Clocks, Readiness


@pytest.mark.parametrize(
    ("begun", "until", "now", "core_wait", "since"),
    [
        (1.0, 1.010, 1.00005, 0.0, 0.5),
        (1.0, 1.010, 1.0004, 0.0, 1.0),
        (1.0, 1.010, 1.008, 0.0, 1.008),
        (1.0, 1.010, 1.008, 0.003, 1.005),
        (1.0, 1.010, 1.008, 0.020, 1.0),
        (1.0, 1.010, 1.0104, 0.0, 1.0104),
        (1.0, 1.010, 1.015, 0.005, 1.010),
        (1.0, 1.010, 1.160, 0.0, 1.0),
        (1.0, 0.500, 1.160, 0.0, 1.0),
    ],
    ids=[
        "ready before the wait: the last look",
        "a short wait: all of it",
        "a long wait: just now",
        "woken, without a core for 3 ms",
        "never longer than the wait itself",
        "back a little late, as timers are",
        "back late, for want of a core",
        "stopped: all of the wait",
        "stopped when it was not to wait at all",
    ],
)
def test_the_moment_before_which_nothing_was_ready(
    begun: float, until: float, now: float, core_wait: float, since: float
) -> None:
    walls: Iterator[float] = iter((0.5, begun, now))  # made at, then the two of a wait
    waits: Iterator[float] = iter((0.0, core_wait))
    clocks = Clocks(wall=lambda: next(walls), cpu=lambda: 0.0, core_wait=lambda: next(waits))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        readiness = Readiness(clocks)
        readiness.sockets.watch(ours.fileno(), "ours", write=False)
        theirs.send(b"x")
        assert readiness.wait(until) == ["ours"]
        assert readiness.since == pytest.approx(since, abs=1e-9)
        readiness.close()
