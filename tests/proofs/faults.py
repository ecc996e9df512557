"""Proofs that faults cost no request, long form: `make faults` and `make soak`.

Each function starts the service as an operator would, breaks something while it is under load, asserts
what must hold and returns the figures. The tests call the same functions for less time.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import urlopen

from metrics.exposition import total
from tests.proofs.record import prove
from tests.support.child import Child, service
from tests.support.load import load, torn, watched
from tests.support.processes import descriptors, gone, resident_bytes, threads
from tests.support.waiting import every, until

Figures = dict[str, Any]
ACCEPTED = "http_connections_accepted_total"
NICE = 7  # unlike anybody else's: how workers are told from the fork server
SPINS = ("--work", "tests.work:spins", "--worker-nice", str(NICE))


def killed_workers(folder: Path, seconds: float, pause: float, share: float = 0.8) -> Figures:
    """SIGKILL to a random worker again and again, at this share of the goodput it has under overload."""
    flags = ("--work-ms", "4", "--worker-nice", str(NICE))
    with service(folder / "pressed.log", *flags) as child:
        address, _ = child.ready()
        pressed = load(address, min(3.0, seconds), 600, folder / "pressed")
        rate = round(share * pressed["goodput_per_second"])
        assert child.end() == 0
    # Late is answered too: that a machine stands still costs nobody his answer here, and neither may a kill.
    with service(folder / "log", *flags, "--queue-wait", "off", "--deadline", "off") as child:
        address, _ = child.ready()
        with killing(child, pause):
            under = load(address, seconds, rate, folder / "under")
        values = child.scrape()
        assert child.end() == 0
    figures: Figures = {
        "rate": rate,
        "planned": under["ledger"]["planned"],
        "outcomes": under["outcomes"],
        "p99_ms": round(under["answered_latency_seconds"]["p99"] * 1e3, 1),
        "restarts": values["offload_worker_restarts_total{reason=crashed}"],
        "killed": values["offload_tasks_total{outcome=killed}"],
    }
    assert under["outcomes"] == {"ok": figures["planned"]}, figures
    assert figures["restarts"] >= 0.5 * seconds / pause, figures
    return figures


def endless_task(folder: Path, seconds: float, deadline: float, *, compared: bool = True) -> Figures:
    """A task that never ends: 504 at its deadline, and the others do not notice.

    `compared`: also how long the others took before it, a figure of which nothing is asserted.
    """
    flags = [*SPINS, "--workers", "2", "--queue-wait", "off", "--deadline", f"{deadline:g}"]
    with service(folder / "log", *flags) as child:
        address, _ = child.ready()
        quiet = load_spins(address, seconds, 50, folder / "quiet") if compared else None
        said: list[tuple[int, float]] = []
        thread = threading.Thread(target=lambda: said.append(fetch(f"{address}/data?seconds=1e6")))
        thread.start()
        under = load_spins(address, seconds, 50, folder / "under")
        thread.join()
        values = child.scrape()
        assert child.end() == 0
    status, took = said[0]
    figures: Figures = {
        "status": status,
        "after_the_deadline_ms": round((took - deadline) * 1e3, 1),
        "others": under["outcomes"],
        "others_p99_ms": round(under["answered_latency_seconds"]["p99"] * 1e3, 1),
        "others_p99_ms_before": quiet and round(quiet["answered_latency_seconds"]["p99"] * 1e3, 1),
        "restarts": values["offload_worker_restarts_total{reason=deadline}"],
    }
    assert status == 504, figures
    assert under["outcomes"] == {"ok": under["ledger"]["planned"]}, figures
    assert figures["restarts"] == 1, figures
    return figures


def killed_services(folder: Path, times: int) -> Figures:
    """SIGKILL to the service itself under load: nothing of it is left, and its port is free."""
    worst = 0.0
    for number in range(times):
        with service(folder / f"log{number}", "--work-units", "2000") as child:
            address, _ = child.ready()
            port = int(address.rpartition(":")[2])
            loaded = threading.Thread(target=load, args=(address, 1.0, 300, folder / f"load{number}"))
            loaded.start()
            child.wait_until(lambda child=child: child.scrape()["http_connections_accepted_total"] > 50)
            began = time.monotonic()
            child.end(signal.SIGKILL)
            assert gone(child.process.pid), "workers outlive their service"
            worst = max(worst, time.monotonic() - began)
            socket.create_server(("127.0.0.1", port)).close()
            loaded.join()
    return {"times": times, "gone_after_ms_at_most": round(worst * 1e3)}


def vanishing(folder: Path, clients: int, good: int) -> Figures:
    """Clients that connect, ask and are gone, and a few that stay: no work is done for nobody."""
    with service(folder / "log", "--work-ms", "4", "--workers", "2") as child:
        address, _ = child.ready()
        place = urlsplit(address)
        request = b"GET /data HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"
        answered = 0
        for number in range(clients):
            with socket.create_connection((str(place.hostname), int(place.port or 80))) as sock:
                # Corked, the request leaves with the FIN: the client is gone when it arrives, however busy
                # the machine is (tcp(7)).
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
                sock.sendall(request)
                sock.shutdown(socket.SHUT_WR)
                if number % 2:  # half of them with a reset behind it
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            if number % (clients // good) == 0:
                answered += fetch(f"{address}/data")[0] == 200
        child.wait_until(lambda: child.scrape()["http_connections_active"] == 0)
        values = child.scrape()
        assert child.end() == 0
    figures: Figures = {
        "vanished": clients,
        "answered": answered,
        "started": values["offload_task_cpu_seconds_count"],
        "cancelled": values["offload_tasks_total{outcome=cancelled}"],
        "rejected": values["offload_tasks_total{outcome=rejected}"],
        "queue": values["offload_queue_depth"],
        "running": values["offload_running"],
    }
    assert figures["queue"] == figures["running"] == 0, figures
    assert figures["started"] == answered, figures
    return figures


CROWD = """
import socket, sys
place, request = (sys.argv[1], int(sys.argv[2])), b"GET /data HTTP/1.1\\r\\nHost: t\\r\\n\\r\\n"
there = [socket.create_connection(place) for _ in range(int(sys.argv[3]))]
for one in there:
    one.sendall(request)
print("asked", flush=True)
sys.stdin.read()
"""


def crowd(folder: Path, clients: int) -> Figures:
    """All clients of one process wait for their answers when it is killed: their work is not started."""
    # A second of work each: little of it is done before the kill, however late that is.
    flags = ("--work", "tests.work:slow_second", "--work-units", "2", "--workers", "2")
    with service(folder / "log", *flags, "--queue-wait", "off", "--deadline", "off") as child:
        address, _ = child.ready()
        place = urlsplit(address)
        command = [sys.executable, "-c", CROWD, str(place.hostname), str(place.port), str(clients)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as crowd:
            assert crowd.stdout is not None
            assert crowd.stdout.readline()
            child.wait_until(lambda: child.scrape()["http_connections_active"] == clients)
            before = child.scrape()["offload_task_cpu_seconds_count"]
            crowd.kill()
        child.wait_until(lambda: child.scrape()["http_connections_active"] == 0)
        child.wait_until(lambda: child.scrape()["offload_running"] == 0)
        values = child.scrape()
        assert child.end() == 0
    figures: Figures = {
        "clients": clients,
        "started before": before,
        "started after": values["offload_task_cpu_seconds_count"] - before,
        "cancelled": values["offload_tasks_total{outcome=cancelled}"],
        "queue": values["offload_queue_depth"],
        "running": values["offload_running"],
    }
    # Between the scrape and the kill workers go on, and each has a few tasks of its own.
    assert figures["started after"] <= 0.1 * clients + 10, figures
    assert figures["cancelled"] >= 0.5 * clients, figures
    assert figures["queue"] == figures["running"] == 0, figures
    return figures


def soak(folder: Path, requests: int, rate: float) -> Figures:
    """Many requests while workers are killed: memory, descriptors and threads stay, and every count adds up.

    Four of five are for a trivial route, so that the loop does what it does most: accept, answer, close.
    """
    with service(folder / "log", "--work-ms", "0.5", "--worker-nice", str(NICE)) as child:
        address, _ = child.ready()
        shares = {"/data": 0.2, "/healthz": 0.8}

        def loaded(name: str, seconds: float) -> dict[str, dict[str, Any]]:
            with ThreadPoolExecutor(len(shares)) as loads:
                asked = {
                    path: loads.submit(
                        load, address, seconds, share * rate, folder / f"{name}-{number}", path
                    )
                    for number, (path, share) in enumerate(shares.items())
                }
                return {path: one.result() for path, one in asked.items()}

        loaded("warm", min(5.0, requests / rate))
        child.wait_until(lambda: child.scrape()["http_connections_active"] == 0)
        pid = child.process.pid
        sizes, start = sizes_of(pid), child.scrape()
        with watched(child) as rows, killing(child, 2.0):
            runs = loaded("run", requests / rate)
        child.wait_until(lambda: child.scrape()["http_connections_active"] == 0)
        values = child.scrape()
        until(lambda: sizes_of(pid)["threads"] <= sizes["threads"], "no thread more than before")
        after = sizes_of(pid)
        assert child.end() == 0
    memory = [row["process_resident_memory_bytes"] / 2**20 for row in rows]
    figures: Figures = {
        "requests": sum(run["ledger"]["planned"] for run in runs.values()),
        "outcomes": {path: run["outcomes"] for path, run in runs.items()},
        "restarts": values["offload_worker_restarts_total{reason=crashed}"],
        **{name: [size, after[name]] for name, size in sizes.items()},
        "rss_mib_meanwhile": [round(size, 1) for size in memory[:: max(len(memory) // 10, 1)]],
        "rss_grown_since_a_quarter_mib": round(memory[-1] - memory[len(memory) // 4], 2),
        "torn_scrapes": torn(rows),
        "connected": sum(run["ledger"]["connected"] for run in runs.values()),
        "accepted": values[ACCEPTED] - start[ACCEPTED],
        "asked": total(values, "offload_tasks_total"),
        "answers": total(values, "http_requests_total", route="/data"),
    }
    assert figures["asked"] == figures["answers"], figures
    assert figures["accepted"] == figures["connected"], figures
    assert set(figures["outcomes"]["/data"]) <= {"ok", "status_503"}, figures
    assert set(figures["outcomes"]["/healthz"]) == {"ok"}, figures
    # What a warm-up of seconds has not met yet comes in the first quarter; from then on nothing may grow.
    assert after["rss_mib"] < 1.1 * sizes["rss_mib"] + 4, figures
    assert figures["rss_grown_since_a_quarter_mib"] < 0.02 * sizes["rss_mib"] + 1, figures
    assert after["descriptors"] <= sizes["descriptors"] + 4, figures
    assert figures["torn_scrapes"] == 0, figures
    return figures


def sizes_of(pid: int) -> dict[str, float]:
    """What a process holds."""
    return {
        "rss_mib": round(resident_bytes(pid) / 2**20, 1),
        "descriptors": descriptors(pid),
        "threads": threads(pid),
    }


def fetch(url: str) -> tuple[int, float]:
    """Status and seconds of one GET."""
    began = time.monotonic()
    try:
        with urlopen(url, timeout=60) as answer:
            answer.read()
            return answer.status, time.monotonic() - began
    except HTTPError as error:
        return error.code, time.monotonic() - began


def load_spins(address: str, seconds: float, rate: float, out: Path) -> dict[str, Any]:
    """Good clients of `tests.work:spins`, 4 ms each."""
    return load(address, seconds, rate, out, "/data?seconds=0.004")


@contextmanager
def killing(child: Child, seconds: float) -> Iterator[None]:
    """End a random worker of the child every so many seconds meanwhile."""
    chance = random.Random(1)

    def kill() -> None:
        workers = []
        for pid in child.session():
            with suppress(ProcessLookupError):
                if os.getpriority(os.PRIO_PROCESS, pid) == NICE:
                    workers.append(pid)
        if workers:
            with suppress(ProcessLookupError):
                os.kill(chance.choice(sorted(workers)), signal.SIGKILL)

    with every(seconds, kill):
        yield


FAULTS: dict[str, Callable[[Path], Figures]] = {
    "a worker killed every 200 ms": lambda folder: killed_workers(folder, 30, 0.2),
    "a task that never ends": lambda folder: endless_task(folder, 5, 2),
    "the service killed": lambda folder: killed_services(folder, 20),
    "clients that vanish": lambda folder: vanishing(folder, 10_000, 100),
    "a crowd that vanishes at once": lambda folder: crowd(folder, 1000),
}
SOAK: dict[str, Callable[[Path], Figures]] = {"soak": lambda folder: soak(folder, 1_000_000, 1000)}


def main() -> int:
    """Run in full and keep the figures."""
    parser = argparse.ArgumentParser(prog="python -m tests.proofs.faults", description=__doc__)
    parser.add_argument("--soak", action="store_true", help="1,000,000 requests instead of the short faults")
    chosen = parser.parse_args().soak
    return prove("soak", SOAK) if chosen else prove("faults", FAULTS)


if __name__ == "__main__":
    sys.exit(main())
