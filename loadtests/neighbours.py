"""Who else used the CPU: what the machine spent, less what we and our children did.

Knows /proc through psutil, and cgroups. Touches nothing. It tells a block that may be judged from one that a
neighbour spoilt, by what went in and never by what came out.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import psutil

CGROUPS: Final = Path("/sys/fs/cgroup")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """CPU seconds since boot, of all cores that we may run on, at one moment of the monotonic clock."""

    seconds: float
    busy_seconds: float  # by whomever
    idle_seconds: float
    ours_seconds: float  # by this process and those below it
    stolen_seconds: float  # given to another guest by the hypervisor
    throttled_seconds: float  # kept from us by a quota


class Neighbours:
    """Reads usage. `refresh()` whenever processes of ours have come or gone.

    `cgroups`: those whose quotas bind us; as a rule the kernel is asked.
    """

    def __init__(self, cgroups: Iterable[Path] | None = None) -> None:
        above = own_cgroups() if cgroups is None else cgroups
        self._throttled = [path / "cpu.stat" for path in above if (path / "cpu.stat").exists()]
        self.refresh()

    def refresh(self) -> None:
        """Find out which processes are ours; looking through them all takes milliseconds."""
        us = psutil.Process()
        self._ours = [us, *us.children(recursive=True)]

    def read(self) -> Usage:
        """Usage at this moment; about a millisecond of CPU."""
        ours = 0.0
        for process in self._ours:
            with contextlib.suppress(psutil.Error):  # it has ended: its time is missing from here on
                spent = process.cpu_times()
                ours += spent.user + spent.system
        cores = psutil.cpu_times(percpu=True)
        mask = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(len(cores))
        times = [cores[core] for core in mask if core < len(cores)]

        def total(*kinds: str) -> float:
            return sum(float(getattr(core, kind, 0.0)) for core in times for kind in kinds)

        return Usage(
            seconds=time.monotonic(),
            busy_seconds=total("user", "nice", "system", "irq", "softirq"),
            idle_seconds=total("idle", "iowait"),
            ours_seconds=ours,
            stolen_seconds=total("steal"),
            throttled_seconds=self._throttled_seconds(),
        )

    def _throttled_seconds(self) -> float:
        """Of all levels together: a group is held up by its own quota alone, and names no other's."""
        seconds = 0.0
        for file in self._throttled:
            for line in file.read_text(encoding="ascii").splitlines():
                name, _, value = line.partition(" ")
                if name == "throttled_usec":
                    seconds += int(value) / 1e6
                if name == "throttled_time":  # version 1 counts in nanoseconds
                    seconds += int(value) / 1e9
        return seconds


def effective_cores(cgroups: Iterable[Path] | None = None) -> float:
    """Cores that we may keep busy: the affinity mask and the quotas of all cgroups above us count.

    `os.cpu_count()` knows neither (cgroups(7); Documentation/admin-guide/cgroup-v2, cpu.max).
    """
    cores = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    return min([cores, *_quotas(own_cgroups() if cgroups is None else cgroups)])


def _quotas(cgroups: Iterable[Path]) -> Iterator[float]:
    for path in cgroups:
        with contextlib.suppress(OSError, ValueError):
            quota, period = (path / "cpu.max").read_text(encoding="ascii").split()
            yield int(quota) / int(period)  # "max" is no number: there is none
        with contextlib.suppress(OSError, ValueError):
            quota_us = int((path / "cpu.cfs_quota_us").read_text(encoding="ascii"))
            if quota_us > 0:
                yield quota_us / int((path / "cpu.cfs_period_us").read_text(encoding="ascii"))


def own_cgroups() -> list[Path]:
    """Folders of the cgroups that we are in, and of all above them; none where there are no cgroups."""
    try:
        listing = Path("/proc/self/cgroup").read_text(encoding="ascii")
    except OSError:
        return []
    return cgroups_of(listing, CGROUPS)


def cgroups_of(listing: str, mounted: Path) -> list[Path]:
    """The same for a listing as in /proc/self/cgroup, either version, innermost first."""
    found = []
    for line in listing.splitlines():
        _, controllers, name = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = mounted / controllers if controllers else mounted
        inner = root / name.lstrip("/")
        found += [inner, *(above for above in inner.parents if above.is_relative_to(root))]
    return found
