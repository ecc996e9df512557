"""Measures our service and its peers in turns: same work, same open loop, clients that give up after 1 s.

Knows how each is started and which loads it gets; report.py tells what was found. Touches child processes
and a run folder. The yardstick: answers in time x S, as a share of the cores that the clients and the IO
process leave over.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.error import URLError
from urllib.request import urlopen

from rich.console import Console

from loadtests import machine
from loadtests.experiment.child import ServiceChild, ServiceError
from loadtests.experiment.counters import scrape
from loadtests.experiment.plan import DATA
from loadtests.load.generator import read_samples, run_phase
from loadtests.load.phase import Phase
from loadtests.load.sample import OK, Sample
from loadtests.load.summary import summarise
from loadtests.peers.report import LOADS, TITLES, milliseconds

GIVE_UP_SECONDS: Final = 1.0
MOST_PER_SECOND: Final = 5000.0
"""More than this one generator cannot send while it shares two cores with what it measures."""

OTHER_SECONDS: Final = 0.001
"""What a request costs besides S, roughly, where all share the cores: the comfortable rate depends on it."""

EASY: Final = 0.8
"""How long the comfortable rate is held, in lengths of an overload: with 10 s, long enough that the
hundredths of a second in which /proc counts CPU time do not show in a request's cost."""

AFTER: Final = 0.3
"""The same for the load after an overload, beside the second in which it may still be felt."""

PROBES_PER_SECOND: Final = 20.0
IN_WORKERS: Final = ("offloop", "pool", "bounded")
"""Designs whose work runs in processes of its own: of these the IO process can be told apart."""


@dataclasses.dataclass(frozen=True, slots=True)
class Contender:
    """A server that is up."""

    name: str
    url: str
    pid: int
    admin_url: str | None


def race(names: Sequence[str], works_ms: Sequence[float], seconds: float, console: Console) -> dict[str, Any]:
    """Measure every design with every amount of work; return all figures as JSON types."""
    found: dict[str, Any] = {"environment": machine.environment(), "seconds": seconds, "rows": []}
    with tempfile.TemporaryDirectory(prefix="offloop-peers-") as folder:
        for work_ms in works_ms:
            units, cost = _calibrate(work_ms, Path(folder))
            limit = machine.cores() / cost
            console.print(f"Work {cost * 1e3:.2f} ms, limit {limit:.0f}/s on {machine.cores()} cores")
            for name in names:
                with _started(name, units, Path(folder)) as contender:
                    row = _measure(contender, cost, limit, seconds, Path(folder))
                found["rows"].append({"design": name, "work_ms": work_ms, "limit": limit, **row})
                console.print(_line(found["rows"][-1]), highlight=False)
    _share(found["rows"])
    return found


def _measure(contender: Contender, cost: float, limit: float, seconds: float, folder: Path) -> dict[str, Any]:
    easy_rate = 0.5 * machine.cores() / (cost + OTHER_SECONDS)
    _load(contender, easy_rate, 1.0, folder)  # warm
    easy = _load(contender, easy_rate, EASY * seconds, folder)
    known = contender.name in IN_WORKERS and easy["goodput"]
    io_us = easy["io_cores"] / easy["goodput"] * 1e6 if known else None
    row: dict[str, Any] = {"comfortable": easy, "io_us_per_request": io_us, "s_idle": cost}
    after = []
    for factor in (3, 10):
        rate = min(factor * limit, MOST_PER_SECOND)
        if factor == 10 and rate == row["3x"]["rate"]:
            continue  # the generator's own limit: the same load again
        row[f"{factor}x"] = _load(contender, rate, seconds, folder)
        after.append(_load(contender, easy_rate, 1.0 + AFTER * seconds, folder)["p99_after_1_s"])
    return {**row, "p99_after_1_s": max(after)}


def _load(contender: Contender, rate: float, seconds: float, folder: Path) -> dict[str, Any]:
    """One load on /data with a few requests for the trivial route beside it."""
    phase = _phase(f"{contender.url}/data", rate, seconds)
    probe = _phase(f"{contender.url}/healthz", PROBES_PER_SECOND, seconds)
    samples, probes = folder / "samples.json", folder / "probes.json"
    before = scrape(contender.admin_url) if contender.admin_url else {}
    thread = threading.Thread(target=lambda: list(run_phase(probe, probes)))
    thread.start()
    began, cpu_before = time.monotonic(), _cpu(contender.pid)
    elapsed, cpu = seconds, cpu_before
    with contextlib.closing(run_phase(phase, samples)) as sending:
        for progress in sending:
            if progress.elapsed_seconds <= seconds:  # what comes after the last request is no overload
                elapsed, cpu = time.monotonic() - began, _cpu(contender.pid)
    thread.join()
    after = scrape(contender.admin_url) if contender.admin_url else {}
    found, facts = read_samples(samples)
    probed, probe_facts = read_samples(probes)
    summary = summarise(found, facts, phase)
    tasks = after.get("tasks", 0) - before.get("tasks", 0)
    return {
        "rate": rate,
        "state": summary.state,
        "goodput": summary.goodput_per_second,
        "outcomes": summary.outcomes,
        "p50": summary.latency_seconds.p50,
        "p99": summary.latency_seconds.p99,
        "answers_p99": _quantile(_latencies(s for s in found if s.outcome == OK)),
        "trivial_p99": summarise(probed, probe_facts, probe).latency_seconds.p99,
        "p99_after_1_s": _quantile(_latencies(s for s in found if s.intended - facts.started_monotonic > 1)),
        "client_cores": sum(each.cpu_seconds / each.wall_seconds for each in (facts, probe_facts)),
        "io_cores": (cpu - cpu_before) / elapsed,
        "s": (after["task_cpu_seconds"] - before["task_cpu_seconds"]) / tasks if tasks else None,
    }


def _share(rows: list[dict[str, Any]]) -> None:
    """Add the yardstick to each load. S is what our workers measured under the same load, for all designs:
    on a busy machine the same work costs more CPU time than on an idle one."""
    ours = {row["work_ms"]: row for row in rows if row["design"] == "offloop"}
    for row in rows:
        for load in LOADS:
            if load in row:
                pressed = row[load]
                measured = ours.get(row["work_ms"], {}).get(load, {}).get("s")
                io = pressed["io_cores"] if row["design"] in IN_WORKERS else 0.0
                left = machine.cores() - pressed["client_cores"] - io
                pressed["share"] = pressed["goodput"] * (measured or row["s_idle"]) / left


def _line(row: dict[str, Any]) -> str:
    loads = "  ".join(
        f"{load} {row[load]['goodput']:.0f}/s p99 {milliseconds(row[load]['answers_p99'])}"
        for load in LOADS
        if load in row
    )
    return f"  {TITLES[row['design']]:<30}{loads}"


def _phase(url: str, rate: float, seconds: float) -> Phase:
    return Phase(url=url, rate=round(rate, 1), duration_seconds=seconds, timeout_seconds=GIVE_UP_SECONDS)


def _latencies(samples: Iterable[Sample]) -> list[float]:
    return sorted(s.finished - s.intended for s in samples if s.finished is not None)


def _quantile(values: list[float], share: float = 0.99) -> float | None:
    return values[min(int(share * len(values)), len(values) - 1)] if values else None


def _cpu(pid: int) -> float:
    """CPU seconds of one process so far, all its threads, without its children (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _calibrate(work_ms: float, folder: Path) -> tuple[int, float]:
    flags = ["--port", "0", "--admin-port", "0", "--log-format", "json", "--offload", "inline"]
    with ServiceChild([*flags, "--work-ms", str(work_ms)], folder / "calibration.log") as service:
        return service.work["units"], service.work["cpu_ms"] / 1e3


@contextlib.contextmanager
def _started(name: str, units: int, folder: Path) -> Iterator[Contender]:
    if name == "offloop":
        flags = ["--port", "0", "--admin-port", "0", "--log-format", "json", "--work-units", str(units)]
        with ServiceChild(flags, folder / "offloop.log") as service:
            yield Contender(name, service.url, service.pid, service.admin_url)
        return
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "loadtests.peers",
        name,
        str(port),
        DATA,
        str(units),
        str(machine.cores()),
    ]
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        url = f"http://127.0.0.1:{port}"
        _await(url, process)
        yield Contender(name, url, process.pid, None)
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):  # its queue may be longer than our patience
            process.wait(5)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # a session of our own making
        process.wait()


def _await(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(URLError, OSError), urlopen(f"{url}/healthz", timeout=1):
            return
        time.sleep(0.05)
    raise ServiceError(f"the peer at {url} did not start")
