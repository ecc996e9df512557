"""CPU time of processes with all that they have started, and of the machine.

Knows /proc by way of psutil. Touches nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from typing import Self

import psutil


def cpu_seconds(pid: int) -> float:
    """CPU seconds of a process and all below it so far, also of those that have ended; 0 if it is gone.

    The kernel adds the time of a child that has ended to its parent's (`children_user`, times(2)), so a
    worker that was replaced does not take its time along.
    """
    total = 0.0
    with contextlib.suppress(psutil.Error):
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            with contextlib.suppress(psutil.Error):  # gone since it was listed
                total += sum(process.cpu_times()[:4])  # user and system, its own and of its ended children
    return total


@dataclasses.dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds so far, all cores together: busy, by us and what we started, taken by the hypervisor."""

    seconds: float  # of the monotonic clock
    busy: float
    ours: float
    stolen: float

    @classmethod
    def now(cls) -> Self:
        """Read it."""
        machine = psutil.cpu_times()
        # Interrupts are left out: on loopback they are our own packets, and no process is charged for them.
        busy = machine.user + machine.system + getattr(machine, "nice", 0.0)
        ours = cpu_seconds(psutil.Process().pid)
        return cls(time.monotonic(), busy, ours, getattr(machine, "steal", 0.0))

    def shares_since(self, before: Self, cores: int) -> tuple[float, float]:
        """Shares of the machine since then: stolen, and used by processes that are not ours."""
        spent = cores * max(self.seconds - before.seconds, 1e-9)
        foreign = (self.busy - before.busy) - (self.ours - before.ours)
        return (self.stolen - before.stolen) / spent, max(0.0, foreign) / spent
