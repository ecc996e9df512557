"""Processes seen from outside, by psutil: which ones there are, and what each of them uses."""

from __future__ import annotations

import os
import signal

import psutil

from loadtests.sessions import members
from tests.support.waiting import until


def children(parent: int) -> set[int]:
    """Ids of the living children of a process; none if it has ended."""
    try:
        found = psutil.Process(parent).children()
    except psutil.NoSuchProcess:
        return set()
    return {process.pid for process in found if is_alive(process.pid)}


def parent(pid: int) -> int:
    """Id of the parent of a process; 0 if the process has ended."""
    try:
        return int(psutil.Process(pid).ppid())
    except psutil.NoSuchProcess:
        return 0


def session(leader: int) -> set[int]:
    """Ids of the living processes of a session, whether or not its leader still lives."""
    return {process.pid for process in members(leader)}


def gone(leader: int) -> bool:
    """True once a session has emptied, for which it has a minute."""
    until(lambda: not session(leader), lambda: f"{sorted(session(leader))} outlive {leader}")
    return True


def is_alive(pid: int) -> bool:
    """Whether a process runs: one that has ended and waits for its parent does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def stop(pid: int) -> None:
    """SIGSTOP to a process, until it stands still: on another core it may run on for a moment."""
    os.kill(pid, signal.SIGSTOP)
    until(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED, f"{pid} is stopped")


def argv(pid: int) -> list[str]:
    """The command of a process; empty if it has ended."""
    try:
        return list(psutil.Process(pid).cmdline())
    except psutil.NoSuchProcess:
        return []


def cpu_seconds(pid: int) -> float:
    """CPU time of a process so far, all its threads, without its children; in steps of 10 ms on Linux."""
    spent = psutil.Process(pid).cpu_times()
    return float(spent.user + spent.system)


def resident_bytes(pid: int) -> int:
    """Memory that a process holds."""
    return int(psutil.Process(pid).memory_info().rss)


def descriptors(pid: int) -> int:
    """How many files a process has open."""
    return int(psutil.Process(pid).num_fds())


def threads(pid: int) -> int:
    """How many threads a process has."""
    return int(psutil.Process(pid).num_threads())
