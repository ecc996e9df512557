"""What each executor does with a result, an error, a crash, a deadline, a client that leaves, a drain: `make
executors`.

Each function starts the service on one of them, as an operator would, asserts what must hold whichever it is,
and returns what differs. The tests call the same functions. Then Dask beside the stock executor, in pairs.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

from loadtests.experiment.statistics import geometric
from service.offload.admission import LAST_PROBE_SECONDS
from tests.proofs.record import keep
from tests.support.child import Child, service
from tests.support.engines import WORKERS, Cluster, cluster
from tests.support.processes import cpu_seconds, gone
from tests.support.waiting import until

Figures = dict[str, Any]

FACTORIES = {
    "stock": None,
    "processes": "tests.support.engines:processes",
    "threads": "tests.support.engines:threads",
    "loky": "service.offload.engines:loky",
    "dask": "service.offload.engines:dask",
}
"""The first is what `--offload executor` means without `--executor`."""

WORK = ("--work", "tests.work:waits_for", "--workers", str(WORKERS))
AT_ONCE = "begun=/dev/null&go=/"
"""The query of a request that need not wait."""

CRASHED = "offload_worker_restarts_total{reason=crashed}"


class Bench:
    """A service on one executor, and clients."""

    def __init__(self, name: str, child: Child, folder: Path, clients: ThreadPoolExecutor) -> None:
        self.name, self.child = name, child
        self.address = child.ready()[0]
        self.go = folder / "go"
        self._folder = folder
        self._clients = clients

    def get(self, query: str = AT_ONCE) -> tuple[int, str]:
        """Status and body of one answer."""
        return self._ask(f"/data?{query}")

    def _ask(self, path: str) -> tuple[int, str]:
        place = urlsplit(self.address)
        connection = HTTPConnection(str(place.hostname), place.port, timeout=60)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def query(self, task: str) -> str:
        """Of a request that stays until `go` exists."""
        return f"begun={self._folder / task}&go={self.go}"

    def begin(self, *tasks: str) -> dict[str, Future[tuple[int, str]]]:
        """Send such requests."""
        return {task: self._clients.submit(self.get, self.query(task)) for task in tasks}

    def runs(self, *tasks: str) -> list[int]:
        """The processes that run these tasks, once all of them have begun."""
        self.child.wait_until(lambda: all(map(self._pid, tasks)))
        return [self._pid(task) for task in tasks]

    def has_begun(self, task: str) -> bool:
        """Whether a worker has ever begun it."""
        return (self._folder / task).exists()

    def shows(self, metric: str, value: float) -> None:
        """Wait until a scrape has it."""
        self.child.wait_until(lambda: self.child.scrape()[metric] == value)

    def readiness(self) -> tuple[int, str]:
        """Status and reason of /readyz."""
        return self._ask("/readyz")

    def is_whole(self) -> float:
        """Seconds until a request is answered 200."""
        began = time.monotonic()
        self.child.wait_until(lambda: self.get()[0] == 200)
        return time.monotonic() - began

    def _pid(self, task: str) -> int:
        file = self._folder / task
        return int(file.read_text() or 0) if file.exists() else 0


@contextmanager
def bench(name: str, folder: Path, dask: Cluster | None, *flags: str) -> Iterator[Bench]:
    """A service on the executor `name`."""
    folder.mkdir(exist_ok=True)
    factory = FACTORIES[name]
    chosen = ("--offload", "executor", *(("--executor", factory) if factory else ()))
    before = ("env", f"DASK_SCHEDULER_ADDRESS={dask.address}") if dask else ()
    with (
        service(folder / "log", *chosen, *WORK, *flags, before=before) as child,
        ThreadPoolExecutor(16) as clients,
    ):
        made = Bench(name, child, folder, clients)
        try:
            yield made
        finally:
            made.go.touch()  # whatever has failed, no client waits for it


def results(on: Bench, calls: int = 20) -> Figures:
    """Results and errors of the work come back; two equal requests are two tasks; what one costs."""
    assert on.get()[0] == 200
    assert on.get("begun=/no/such/folder/file&go=/")[0] == 500
    first = on.begin("equal")
    pids = on.runs("equal")
    second = on.begin("equal")
    if on.name != "threads":  # they are all in one process
        on.child.wait_until(lambda: on.runs("equal") != pids)
    on.go.touch()
    assert first["equal"].result()[0] == second["equal"].result()[0] == 200
    before, began = cpu_seconds(on.child.process.pid), time.monotonic()
    assert {on.get()[0] for _ in range(calls)} == {200}
    took = time.monotonic() - began
    assert on.child.scrape()[CRASHED] == 0, "an error of the work is none of the executor's"
    return {
        "ms per request": round(took / calls * 1e3, 2),
        "CPU ms of the service per request": round(
            (cpu_seconds(on.child.process.pid) - before) / calls * 1e3, 2
        ),
    }


def crash(on: Bench) -> Figures:
    """One worker is killed while all are busy and one task waits: each request is answered."""
    callers = on.begin("a", "b")
    pids = on.runs("a", "b")
    callers |= on.begin("c")
    on.shows("offload_queue_depth", 1)
    began = time.monotonic()
    os.kill(pids[0], signal.SIGKILL)
    on.go.touch()
    assert [caller.result()[0] for caller in callers.values()] == [200] * 3
    took = time.monotonic() - began
    values = on.child.scrape()
    assert values["offload_tasks_total{outcome=completed}"] == 3
    assert values["offload_tasks_total{outcome=killed}"] == 0
    return {"all answered after s": round(took, 2), "workers replaced by us": values[CRASHED]}


def deadline(on: Bench) -> Figures:
    """Past its deadline a task keeps its place, is counted as overdue, and nobody gets that place."""
    callers = on.begin("a", "b")
    on.runs("a", "b")
    assert [caller.result()[0] for caller in callers.values()] == [504] * 2
    on.shows("offload_overdue", 2)
    late = on.begin("c")["c"].result()[0]
    assert late in (503, 504)
    assert not on.has_begun("c"), "it was given a place that is still taken"
    on.go.touch()
    on.shows("offload_overdue", 0)
    on.is_whole()
    assert not on.has_begun("c"), "work for nobody"
    return {"next request meanwhile": late, "the place": "kept until the task ends"}


def cancel(on: Bench) -> Figures:
    """Clients leave: what runs keeps its place until it ends, what waits is never begun."""
    place = urlsplit(on.address)
    with ExitStack() as leaving:
        for task in ("a", "b", "c"):
            client = leaving.enter_context(socket.create_connection((str(place.hostname), place.port or 80)))
            client.sendall(f"GET /data?{on.query(task)} HTTP/1.1\r\nHost: t\r\n\r\n".encode())
            if task != "c":
                on.runs(task)
        on.shows("offload_queue_depth", 1)
    on.shows("offload_tasks_total{outcome=cancelled}", 3)
    assert on.child.scrape()["offload_running"] == 2
    on.go.touch()
    on.shows("offload_running", 0)
    on.is_whole()
    assert not on.has_begun("c")
    return {"a task that runs": "runs to its end", "a task that waits": "never begun"}


def drain(on: Bench) -> Figures:
    """SIGTERM while tasks run: they end, their clients get their answers, and nothing is left."""
    callers = on.begin("a", "b")
    on.runs("a", "b")
    on.child.process.send_signal(signal.SIGTERM)
    on.child.wait_until(lambda: on.child.events("draining"))
    on.go.touch()
    assert [caller.result()[0] for caller in callers.values()] == [200] * 2
    began = time.monotonic()
    assert on.child.process.wait(30) == 0
    assert gone(on.child.process.pid)
    return {"exit code": 0, "stopped after s": round(time.monotonic() - began, 2)}


def cut_off(on: Bench) -> Figures:
    """SIGTERM while a task runs that does not end: the deadline of the drain holds."""
    caller = on.begin("a")["a"]
    (pid,) = on.runs("a")
    began = time.monotonic()
    on.child.process.send_signal(signal.SIGTERM)
    code = on.child.process.wait(60)
    took = time.monotonic() - began
    assert code == 1
    assert took < 40, "a shut-down that hangs holds up the service"
    assert caller.exception() is not None or caller.result()[0] == 503
    left = pid in on.child.session()
    on.go.touch()
    return {"exit code": code, "after s": round(took, 2), "a process of the service stays": left}


def lost(on: Bench, dask: Cluster, *tasks: str) -> Figures:
    """Scheduler and workers are killed while `tasks` run, and started again: 503 and why until then, whole
    soon after."""
    callers = on.begin(*tasks)
    on.runs(*tasks)
    dask.kill()
    began = time.monotonic()
    on.child.wait_until(lambda: on.readiness() == (503, "no worker can be started: ConnectionRefusedError\n"))
    noticed = time.monotonic() - began
    assert on.get()[0] == 503
    assert on.child.scrape()["offload_workers"] == WORKERS
    dask.start()
    until(dask.is_up, dask.log)
    back = time.monotonic()
    on.go.touch()
    on.child.wait_until(lambda: on.readiness()[0] == 200)
    on.is_whole()
    whole = time.monotonic() - back
    assert whole < 2 * LAST_PROBE_SECONDS, "the engine is there, and we are not"
    assert {caller.result()[0] for caller in callers.values()} <= {200}
    return {
        "not ready after s": round(noticed, 2),
        "whole after s": round(whole, 2),
        "what ran was answered": sorted(caller.result()[0] for caller in callers.values()),
    }


LOST = ("--deadline", "60")
"""The flags for `lost`: on a slow machine a cluster takes longer than the default of 10 s to start again."""

CELLS: dict[str, tuple[Callable[..., Figures], tuple[str, ...]]] = {
    "result": (results, ()),
    "crash of a worker": (crash, ("--deadline", "60")),
    "deadline": (deadline, ("--deadline", "1")),
    "a client leaves": (cancel, ()),
    "drain": (drain, ()),
    "drain cut off": (cut_off, ("--drain-timeout", "0.5")),
}
"""What is asked of each executor, and with which flags."""

CANNOT = {("threads", "crash of a worker"): "a thread cannot be killed: a crash of the work ends the service"}


def cell(name: str, asked: str, folder: Path, dask: Cluster | None = None, **more: int) -> Figures:
    """One cell of the table, from a run of the service."""
    function, flags = CELLS[asked]
    with bench(name, folder, dask, *flags) as on:
        return function(on, **more)


def block(address: str, seconds: float, clients: int) -> float:
    """Requests of 200 ms work that were answered per second, by so many clients that wait for each answer."""
    place = urlsplit(address)
    end = time.monotonic() + seconds

    def ask() -> int:
        connection = HTTPConnection(str(place.hostname), place.port, timeout=60)
        answered = 0
        while time.monotonic() < end:
            connection.request("GET", "/data?seconds=0.2")
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200
            answered += 1
        connection.close()
        return answered

    began = time.monotonic()
    with ThreadPoolExecutor(clients) as pool:
        answered = sum(pool.map(lambda _: ask(), range(clients)))
    return answered / (time.monotonic() - began)


def pairs(folder: Path, dask: Cluster, count: int, seconds: float) -> Figures:
    """Dask beside the stock executor, 200 ms of CPU a task, in mirrored pairs of blocks."""
    spins = ("--work", "tests.work:spins", "--queue-wait", "off")
    ratios = []
    with (
        bench("stock", folder / "stock", None, *spins) as stock,
        bench("dask", folder / "dask", dask, *spins) as other,
    ):
        for number in range(count):
            order = [stock, other] if number % 2 else [other, stock]
            rates = {on.name: block(on.address, seconds, 2 * WORKERS) for on in order}
            ratios.append(rates["dask"] / rates["stock"])
    found = geometric(ratios, 0.05) if count >= 6 else None
    return {
        "pairs": count,
        "throughput of Dask / stock": round(median(ratios), 3),
        "95 % interval": found and [round(found.low, 3), round(found.high, 3)],
    }


def main() -> int:
    """Run in full and keep the figures; `--short` tries everything once and keeps nothing."""
    parser = argparse.ArgumentParser(prog="make executors")
    parser.add_argument("--short", action="store_true", help="try everything once, measure and keep nothing")
    short = parser.parse_args().short
    table: dict[str, Figures] = {}
    with tempfile.TemporaryDirectory() as made, ExitStack() as stack:
        folder = Path(made)
        (folder / "cluster").mkdir()
        dask = stack.enter_context(cluster(folder / "cluster"))
        for name in FACTORIES:
            table[name] = {}
            for asked in CELLS:
                if (name, asked) in CANNOT:
                    table[name][asked] = {"cannot": CANNOT[name, asked]}
                    continue
                print(f"{name}: {asked} ...", file=sys.stderr, flush=True)
                where = folder / f"{name}-{asked.replace(' ', '-')}"
                more = {} if short or asked != "result" else {"calls": 500}
                table[name][asked] = cell(name, asked, where, dask if name == "dask" else None, **more)
        print("pairs ...", file=sys.stderr, flush=True)
        compared = pairs(folder, dask, *((2, 1) if short else (12, 10)))
        with bench("dask", folder / "lost", dask, *LOST) as on:
            figures = {"executors": table, "pairs": compared, "engine lost": lost(on, dask, "a", "b")}
    print(json.dumps(figures, indent=1))
    if not short:
        keep("executors", "make executors", figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
