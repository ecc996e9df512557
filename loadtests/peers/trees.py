"""CPU time of process trees and of the machine, as the comparison counts it.

Knows /proc through psutil. Changes nothing. Unlike neighbours.py it finds the processes again at each
reading, because the designs replace theirs, and leaves out interrupts: its bounds for a void block are chosen
for that.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from typing import Self

import psutil


def cpu_seconds(pid: int) -> float:
    """CPU seconds so far of a process and of all below it, including ended ones; 0 if it has ended itself.

    The kernel adds the time of an ended child to its parent's (`children_user`, times(2)), so the time of a
    replaced worker is not lost.
    """
    total = 0.0
    with contextlib.suppress(psutil.Error):
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            with contextlib.suppress(psutil.Error):  # it has ended since it was listed
                total += sum(process.cpu_times()[:4])  # user and system, its own and of its ended children
    return total


@dataclasses.dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds so far, of all cores: busy, of this process tree, taken by the hypervisor."""

    seconds: float  # of the monotonic clock
    busy: float
    ours: float
    stolen: float

    @classmethod
    def now(cls) -> Self:
        """Take a reading."""
        machine = psutil.cpu_times()
        # Without interrupts: on loopback they come from our own packets, and no process is charged for them.
        busy = machine.user + machine.system + getattr(machine, "nice", 0.0)
        ours = cpu_seconds(psutil.Process().pid)
        return cls(time.monotonic(), busy, ours, getattr(machine, "steal", 0.0))

    def shares_since(self, before: Self, cores: int) -> tuple[float, float]:
        """Shares of the machine since `before`: stolen, and used by other processes."""
        spent = cores * max(self.seconds - before.seconds, 1e-9)
        foreign = (self.busy - before.busy) - (self.ours - before.ours)
        return (self.stolen - before.stolen) / spent, max(0.0, foreign) / spent
