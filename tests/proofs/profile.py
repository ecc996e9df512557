"""Where the CPU time of an answer and of a refusal goes in the IO process: `make profile`.

The service runs here, in this process, under cProfile, and the clients in another. A profiler makes calls of
Python functions more expensive than what is written in C, so its shares say where to look. What a request
costs is measured beside it, without the profiler.
"""

from __future__ import annotations

import asyncio
import cProfile
import functools
import pstats
import resource
import sys
from collections import defaultdict
from pathlib import Path
from subprocess import DEVNULL
from typing import Any, NamedTuple

import uvloop

from service.config.settings import Settings
from service.lifecycle.service import Service
from tests.proofs.record import prove
from tests.support import ROOT

Figures = dict[str, Any]

PACKAGES = {
    "service/": "offloop",
    "metrics/": "offloop",
    "/aiohttp/": "aiohttp",
    "/prometheus_client/": "prometheus-client",
    "/multidict/": "aiohttp",
    "/yarl/": "aiohttp",
}
"""By a part of the file's name; all else is Python's own library, or written in C (`~`)."""

MOST = 12
"""Functions that are named."""


class Case(NamedTuple):
    """Requests per second, and the settings of a service that answers them, or refuses them."""

    rate: int
    settings: dict[str, Any]


CASES = {
    "answered": Case(800, {"work_units": 10, "workers": 1}),
    "refused": Case(3000, {"work": "tests.work:slow", "work_units": 2, "workers": 1, "queue_wait": 0.05}),
}


async def _load(address: str, rate: int, seconds: float) -> None:
    command = ["run", f"{address}/data", "--rate", str(rate), "--duration", f"{seconds:g}"]
    clients = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "loadtests", *command, cwd=ROOT, stdout=DEVNULL, stderr=DEVNULL
    )
    await clients.wait()


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _package(file: str) -> str:
    known = (package for part, package in PACKAGES.items() if part in file)
    return next(known, "system calls and C" if file == "~" else "Python's library")


async def _measure(case: Case, seconds: float) -> Figures:
    service = Service(Settings.model_validate({"port": 0, "admin_port": 0, **case.settings}))
    await service.start()
    assert service.parts is not None
    address = service.parts.address
    await _load(address, case.rate, 1)  # the first requests import modules
    before = _cpu_seconds()
    await _load(address, case.rate, seconds)
    cost = (_cpu_seconds() - before) / (case.rate * seconds)
    profile = cProfile.Profile()
    profile.enable()
    await _load(address, case.rate, seconds)
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
        "most": {
            f"{Path(file).name}:{name}" if file != "~" else name: round(own / total, 3)
            for file, name, own in most
        },
    }


def profiled(_: Path, case: Case, seconds: float) -> Figures:
    """One case: what a request costs, and the shares of packages and functions."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_measure(case, seconds))


PROOFS = {name: functools.partial(profiled, case=case, seconds=6.0) for name, case in CASES.items()}

if __name__ == "__main__":
    sys.exit(prove("profile", PROOFS))
