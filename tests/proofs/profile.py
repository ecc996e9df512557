"""Where the CPU time of an answer and of a refusal goes in the IO process: `make profile`.

The service runs here, in this process, under cProfile, and the clients in another. A profiler makes calls of
Python functions more expensive than what is written in C, so its shares say where to look. What a request
costs is measured beside it, without the profiler.
"""

from __future__ import annotations

import asyncio
import cProfile
import functools
import os
import pstats
import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import uvloop

from service.config.settings import Settings
from service.lifecycle.service import Service
from tests.proofs.record import prove
from tests.support import ROOT
from tests.support.load import load
from tests.support.processes import cpu_seconds

Figures = dict[str, Any]

PACKAGES = {
    "aiohttp": "aiohttp",
    "multidict": "aiohttp",
    "yarl": "aiohttp",
    "prometheus_client": "prometheus-client",
}
OURS = ("service", "metrics")
"""Rooms of this repository; all other files are Python's own library, and what is written in C has none."""

MOST = 12
"""Functions that are named."""


class Case(NamedTuple):
    """Requests per second, what becomes of them, and the settings of the service."""

    rate: int
    outcome: str
    settings: dict[str, Any]


CASES = {
    "answered": Case(800, "ok", {"work_units": 10, "workers": 1}),
    "refused": Case(
        3000, "status_503", {"work": "tests.work:slow", "work_units": 2, "workers": 1, "queue_wait": 0.05}
    ),
}


async def _load(address: str, case: Case, seconds: float, folder: Path) -> None:
    run = await asyncio.to_thread(load, address, seconds, case.rate, folder)
    share = run["outcomes"].get(case.outcome, 0) / run["ledger"]["planned"]
    assert share > 0.95, run["outcomes"]


def _package(file: str) -> str:
    if file == "~":
        return "system calls and C"
    path = Path(file)
    if path.is_relative_to(ROOT) and path.relative_to(ROOT).parts[0] in OURS:
        return "offloop"
    known = (package for part, package in PACKAGES.items() if part in path.parts)
    return next(known, "Python's library")


def _name(file: str, function: str) -> str:
    """Without the address that a function in C is shown with."""
    return re.sub(r" at 0x\w+|[<>]", "", function) if file == "~" else f"{Path(file).name}:{function}"


async def _measure(case: Case, seconds: float, folder: Path) -> Figures:
    service = Service(Settings.model_validate({"port": 0, "admin_port": 0, **case.settings}))
    await service.start()
    assert service.parts is not None
    address = service.parts.address
    await _load(address, case, 1, folder / "warm")  # the first requests import modules
    before = cpu_seconds(os.getpid())
    await _load(address, case, seconds, folder / "plain")
    cost = (cpu_seconds(os.getpid()) - before) / (case.rate * seconds)
    profile = cProfile.Profile()
    profile.enable()
    await _load(address, case, seconds, folder / "profiled")
    profile.disable()
    await service.stop()
    return {"CPU us of a request": round(cost * 1e6), **_shares(profile)}


def _shares(profile: cProfile.Profile) -> Figures:
    rows = [
        (file, name, own)
        for (file, _, name), (_, _, own, _, _) in pstats.Stats(profile).stats.items()  # type: ignore[attr-defined]  # typeshed leaves it out
        if "epoll" not in name and "run_until_complete" not in name  # which wait
    ]
    total = sum(own for _, _, own in rows)
    packages: defaultdict[str, float] = defaultdict(float)
    for file, _, own in rows:
        packages[_package(file)] += own
    most = sorted(rows, key=lambda row: -row[2])[:MOST]
    return {
        "share of": {
            name: round(own / total, 3) for name, own in sorted(packages.items(), key=lambda one: -one[1])
        },
        "most": {_name(file, name): round(own / total, 3) for file, name, own in most},
    }


def profiled(folder: Path, case: Case, seconds: float) -> Figures:
    """One case: what a request costs, and the shares of packages and functions."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_measure(case, seconds, folder))


PROOFS = {name: functools.partial(profiled, case=case, seconds=6.0) for name, case in CASES.items()}

if __name__ == "__main__":
    sys.exit(prove("profile", PROOFS))
