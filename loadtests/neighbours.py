"""What other processes used of the CPU: what the machine spent, less this process and its children.

Knows /proc through psutil, and cgroups. Changes nothing. It separates blocks that may be judged from those
that a neighbour spoilt, by their inputs and never by their results.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, Literal

import psutil

CGROUPS: Final = Path("/sys/fs/cgroup")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """CPU seconds since boot, of all cores that we may run on, at one moment of the monotonic clock."""

    seconds: float
    busy_seconds: float  # of all processes
    idle_seconds: float
    ours_seconds: float  # of this process and those below it
    stolen_seconds: float  # given to another guest by the hypervisor
    throttled_seconds: float  # for which a quota held us up


MOST_STOLEN: Final = 0.01
"""Of the machine's CPU time. A hypervisor that takes more does so in turns of tens of milliseconds, and so
hits one side of a pair and not the other."""

MOST_STOLEN_ALONE: Final = 0.05
"""The same of what is not one side of a pair, and is judged by a factor and not by a few hundredths: where a
queue stands, with tens or with hundreds of connections, or whether half the goodput is back."""

MOST_OTHERS: Final = 0.05
"""The same for processes that are not ours. Less than this is the machine's own housekeeping, and the error
of a figure that the kernel counts in ticks of 10 ms."""

MOST_THROTTLED: Final = 0.01


Share = Literal["stolen", "others", "throttled"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """Use of the machine between two moments, as shares of all its CPU time; `throttled`: of the time."""

    stolen: float
    others: float
    throttled: float
    idle_cores: float = 0.0  # cores that were idle

    def faults(self, most_stolen: float = MOST_STOLEN) -> tuple[str, ...]:
        """Why what was measured meanwhile says nothing about the service; empty if it may be judged.

        By the inputs alone, never by the results: dropping figures for what they say is a way to find what
        one expects.
        """
        found = []
        if self.stolen > most_stolen:
            found.append(self.told(f"the hypervisor took {self.stolen:.0%} of the CPU time", "stolen"))
        # A neighbour on a core that would be idle disturbs nothing: this may be a large machine.
        if self.others > MOST_OTHERS and self.idle_cores < 1:
            sentence = f"other processes of this machine used {self.others:.0%} of its CPU time"
            found.append(self.told(sentence, "others"))
        if self.throttled > MOST_THROTTLED:
            sentence = f"a CPU quota held us up for {self.throttled:.0%} of the time"
            found.append(self.told(sentence, "throttled"))
        return tuple(found)

    def told(self, sentence: str, _share: Share) -> str:
        """The sentence of a fault, completed by what a kind of run adds to it."""
        return sentence


def shares(before: Usage, after: Usage, cores: float) -> Shares:
    """The shares between two readings."""
    time_ = (after.seconds - before.seconds) * cores
    ours = after.ours_seconds - before.ours_seconds
    return Shares(
        stolen=(after.stolen_seconds - before.stolen_seconds) / time_,
        others=max(after.busy_seconds - before.busy_seconds - ours, 0.0) / time_,
        throttled=min(
            (after.throttled_seconds - before.throttled_seconds) / (after.seconds - before.seconds), 1.0
        ),
        idle_cores=(after.idle_seconds - before.idle_seconds) / (after.seconds - before.seconds),
    )


class Neighbours:
    """Reads usage. Call `refresh()` whenever processes of ours have started or ended.

    `cgroups`: those whose quotas apply to us; by default those that the kernel names. `also`: processes that
    count as ours, with those below them, such as the server under test.
    """

    def __init__(self, cgroups: Iterable[Path] | None = None, also: Iterable[int] = ()) -> None:
        above = own_cgroups() if cgroups is None else cgroups
        self._throttled = [path / "cpu.stat" for path in above if (path / "cpu.stat").exists()]
        self._also = tuple(also)
        self.refresh()

    def refresh(self) -> None:
        """Find out which processes are ours; takes milliseconds, for it reads all processes."""
        found: dict[int, psutil.Process] = {}
        for pid in (os.getpid(), *self._also):
            with contextlib.suppress(psutil.Error):  # it has ended
                root = psutil.Process(pid)
                found |= {process.pid: process for process in (root, *root.children(recursive=True))}
        self._ours = list(found.values())

    def read(self) -> Usage:
        """Usage at this moment; about a millisecond of CPU."""
        ours = 0.0
        for process in self._ours:
            # The time of a process that has ended counts as its parent's children's from then on.
            with contextlib.suppress(psutil.Error):
                spent = process.cpu_times()
                ours += spent.user + spent.system + spent.children_user + spent.children_system
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
        """Of all levels together: each group counts only what its own quota held up."""
        seconds = 0.0
        for file in self._throttled:
            for line in file.read_text(encoding="ascii").splitlines():
                name, _, value = line.partition(" ")
                if name == "throttled_usec":
                    seconds += int(value) / 1e6
                if name == "throttled_time":  # version 1 counts in nanoseconds
                    seconds += int(value) / 1e9
        return seconds

    @property
    def pids(self) -> set[int]:
        """Of the processes that are ours."""
        return {process.pid for process in self._ours}


def cpu_by_process() -> dict[int, tuple[str, float]]:
    """Name and CPU seconds of each process; takes some tens of microseconds per process."""
    found = {}
    for process in psutil.process_iter(["name", "cpu_times"]):
        times = process.info["cpu_times"]
        if times is not None:  # else it is another user's process, and hidden
            found[process.pid] = (str(process.info["name"]), float(times.user + times.system))
    return found


def busiest(
    before: dict[int, tuple[str, float]], after: dict[int, tuple[str, float]], pids: Iterable[int]
) -> str | None:
    """The name under which some of these processes used most CPU time between two readings, if any did."""
    used: defaultdict[str, float] = defaultdict(float)
    for pid in pids:
        name, seconds = after[pid]
        used[name] += seconds - before.get(pid, (name, 0.0))[1]
    name, seconds = max(used.items(), key=lambda item: item[1], default=("", 0.0))
    return name if seconds > 0 else None


def effective_cores(cgroups: Iterable[Path] | None = None) -> float:
    """Cores that we may keep busy, by the affinity mask and the quotas of all cgroups above us.

    `os.cpu_count()` knows neither (cgroups(7); Documentation/admin-guide/cgroup-v2, cpu.max).
    """
    cores = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    return min([cores, *_quotas(own_cgroups() if cgroups is None else cgroups)])


def _quotas(cgroups: Iterable[Path]) -> Iterator[float]:
    for path in cgroups:
        with contextlib.suppress(OSError, ValueError):
            quota, period = (path / "cpu.max").read_text(encoding="ascii").split()
            yield int(quota) / int(period)  # "max" is no number: no quota
        with contextlib.suppress(OSError, ValueError):
            quota_us = int((path / "cpu.cfs_quota_us").read_text(encoding="ascii"))
            if quota_us > 0:
                yield quota_us / int((path / "cpu.cfs_period_us").read_text(encoding="ascii"))


def own_cgroups() -> list[Path]:
    """Folders of our cgroups and of all above them; none on a system without cgroups."""
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
