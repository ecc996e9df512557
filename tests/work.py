"""Work functions for the tests: named by `--work tests.work:...`."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time

failing = threading.Event()
"""While set, `fails_on_demand` does."""


def slow(units: int) -> bytes:
    """Blocks for half a second when units are more than one (the start calls it with one)."""
    if units > 1:
        time.sleep(0.5)
    return b"{}"


def raises(units: int) -> bytes:
    """Never works."""
    raise ZeroDivisionError(f"secret {units}")


def fails_on_demand(units: int) -> bytes:
    """Works at start, fails when a test says so."""
    if failing.is_set():
        raise ZeroDivisionError(f"secret {units}")
    return b"{}"


def not_text(units: int) -> int:
    """Returns what cannot be sent."""
    return units


def kills_its_worker(units: int) -> bytes:
    """The way a segmentation fault or the kernel's OOM killer ends a process."""
    if units > 1 and multiprocessing.parent_process() is not None:
        os.kill(os.getpid(), signal.SIGKILL)
    return b"{}"
