"""Whose CPU time it was: that of a real spinner, a child of ours or of another process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from loadtests.neighbours import Neighbours, Usage
from tests.support.waiting import until

# Ends by itself: a test that is killed leaves no spinner behind for long.
SPIN = "import time\nend = time.monotonic() + 30\nwhile time.monotonic() < end: pass"
ENOUGH_SECONDS = 0.4  # of CPU: forty ticks of the kernel's clock


@contextmanager
def stopped_at_the_end(pid: int) -> Iterator[psutil.Process]:
    try:
        yield psutil.Process(pid)
    finally:
        os.kill(pid, signal.SIGKILL)


def while_it_spins(process: psutil.Process, neighbours: Neighbours) -> tuple[Usage, Usage, float]:
    """Two readings, and how much CPU the process used between them, at least."""
    before, used = neighbours.read(), sum(process.cpu_times()[:2])

    def enough() -> float | None:
        spent = float(sum(process.cpu_times()[:2]) - used)
        return spent if spent >= ENOUGH_SECONDS else None

    spent = until(enough, "the spinner runs", 30)
    assert spent is not None
    return before, neighbours.read(), spent


def test_what_a_child_of_ours_uses_is_ours() -> None:
    with subprocess.Popen([sys.executable, "-c", SPIN]) as child, stopped_at_the_end(child.pid) as process:
        before, after, spent = while_it_spins(process, Neighbours([]))
        ours = after.ours_seconds - before.ours_seconds
    assert ours >= 0.9 * spent
    assert after.busy_seconds - before.busy_seconds >= 0.8 * ours


def test_a_child_that_came_later_is_ours_after_a_refresh() -> None:
    neighbours = Neighbours([])
    with subprocess.Popen([sys.executable, "-c", SPIN]) as child, stopped_at_the_end(child.pid) as process:
        before, after, spent = while_it_spins(process, neighbours)
        assert after.ours_seconds - before.ours_seconds < 0.5 * spent
        neighbours.refresh()
        before, after, spent = while_it_spins(process, neighbours)
        assert after.ours_seconds - before.ours_seconds >= 0.9 * spent


def test_what_a_stranger_uses_is_not_ours() -> None:
    # The shell ends at once, so its child becomes one of init's, as any stranger's process is.
    script = 'setsid "$@" >/dev/null 2>&1 & echo $!'
    started = subprocess.run(
        ["sh", "-c", script, "sh", sys.executable, "-c", SPIN], stdout=subprocess.PIPE, text=True, check=True
    )
    with stopped_at_the_end(int(started.stdout)) as stranger:
        before, after, spent = while_it_spins(stranger, Neighbours([]))
    ours = after.ours_seconds - before.ours_seconds
    others = after.busy_seconds - before.busy_seconds - ours
    assert ours < 0.5 * spent
    assert others >= 0.8 * spent
    assert after.seconds > before.seconds
