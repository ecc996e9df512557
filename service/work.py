"""The CPU-bound unit of work, and how many units make a given amount of CPU time.

Knows nothing of HTTP, loops or processes and imports nothing of ours, so that a worker process
starts quickly and the function can be read, timed and replaced on its own.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

Work = Callable[[int], Any]
"""Work that is calibrated: takes the number of units, returns what `body` accepts."""

MAX_UNITS = 2**26
"""Calibration gives up here: about 8 s of CPU for the built-in work, so a larger need is a mistake."""


def data(units: int) -> bytes:
    """Format `units` strings, add up their lengths and serialise one small record.

    This is the work of the 2017 post "Web Services with Rust, Part 3: Accept All We Can": pure CPU,
    no shared state, no blocking call, holding the GIL throughout.
    """
    count = 0
    value = ""
    for n in range(units):
        value = f"Value: {n}"
        count += len(value)
    return json.dumps({"street": "10 Downing Street", "city": value, "count": count}).encode()


def digest(units: int) -> bytes:
    """Hash `units` KiB in one call: pure CPU too, but hashlib releases the GIL while it computes.

    The counterpart of `data` for the question when threads suffice. hashlib releases the GIL for
    buffers above 2047 bytes (Python documentation, hashlib).
    """
    return json.dumps({"sha256": hashlib.sha256(bytes(units * 1024)).hexdigest()}).encode()


def body(function: Callable[..., Any], arguments: Mapping[str, Any]) -> bytes:
    """Call `function` and make its result the body of an answer; on the worker, as JSON costs CPU, too.

    bytes and str are sent as they are; anything else must be what `json.dumps` takes.
    """
    result = function(**arguments)
    if isinstance(result, bytes):
        return result
    return (result if isinstance(result, str) else json.dumps(result)).encode()


def cpu_seconds(
    work: Work,
    units: int,
    clock: Callable[[], float] = time.thread_time,
    wall: Callable[[], float] = time.monotonic,
) -> float:
    """Median CPU seconds of `work(units)` on this thread: 25 calls, or fewer if they are long.

    25 calls of 4 ms span a tenth of a second, longer than most bursts of a neighbour on the same core.
    """
    costs: list[float] = []
    began = wall()  # wall time, so that work which sleeps cannot hold up the start either
    while not costs or (len(costs) < 25 and wall() - began < 0.2):
        before = clock()
        work(units)
        costs.append(clock() - before)
    return statistics.median(costs)


def calibrate(
    work: Work, target_seconds: float, clock: Callable[[], float] = time.thread_time
) -> tuple[int, float]:
    """Find how many units cost `target_seconds` of CPU; return the units and what they measured.

    CPU time and not wall time, because a busy machine must not change the answer. Doubling finds the
    range, then three proportional corrections settle it: the cost is close to linear in the units.

    Raises:
        ValueError: the cost does not grow with the units, so no number of them can reach the target.
    """
    units, cost = 1, cpu_seconds(work, 1, clock)
    while cost < target_seconds / 2:
        units *= 2
        if units > MAX_UNITS:
            raise ValueError(
                f"its CPU time does not grow with the units ({MAX_UNITS} units took {cost * 1e3:.3f} ms); "
                f"fix the number with --work-units"
            )
        cost = cpu_seconds(work, units, clock)
    for _ in range(3):
        units = max(1, round(units * target_seconds / cost))
        cost = cpu_seconds(work, units, clock)
    return units, cost
