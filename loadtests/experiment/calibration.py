"""What one request costs: units of work and their CPU time, as the service itself calibrates them.

Touches child processes and the run folder.
"""

from __future__ import annotations

from typing import Final

from rich.console import Console

from loadtests.experiment.child import ServiceChild
from loadtests.experiment.folder import RunFolder
from loadtests.experiment.plan import Cost, Factors

CALIBRATIONS: Final = 3


def cost_of(folder: RunFolder, work: str, factors: Factors, console: Console) -> Cost:
    """The cost of one request: calibrated, or as the factors say."""
    if factors.work_units is None:
        return calibrate(folder, work, factors.work_ms, console)
    return Cost(work_units=factors.work_units, s_seconds=factors.work_ms / 1e3)


def calibrate(folder: RunFolder, work: str, work_ms: float, console: Console) -> Cost:
    """Units of `work` and their CPU seconds, by the service's own calibration, once for all variants.

    The largest of several results: a core that is slow at that moment would make every request of the run
    too small.
    """
    flags = {
        "port": "0",
        "admin-port": "0",
        "log-format": "json",
        "offload": "inline",
        "work": work,
        "work-ms": str(work_ms),
    }
    line = [part for name, value in flags.items() for part in (f"--{name}", value)]
    found = []
    for _ in range(CALIBRATIONS):
        with ServiceChild(line, folder.log_of("calibration")) as service:
            found.append(Cost(work_units=service.work["units"], s_seconds=service.work["cpu_ms"] / 1e3))
    cost = max(found, key=lambda each: each.work_units)
    spent = f"{cost.s_seconds * 1e3:.2f} ms of CPU"
    console.print(f"One request is {cost.work_units} units of {work}: {spent} on a fast core.")
    return cost
