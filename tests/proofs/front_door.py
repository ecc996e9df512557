"""Proofs of the front door with real tools, long form: `make front-door`.

Each function starts the service as an operator would, puts it under stress, asserts what must hold and
returns the figures. The tests call the same functions for less time.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from metrics.exposition import total
from tests.proofs.record import prove
from tests.support import ROOT
from tests.support.child import Child, service
from tests.support.load import load, torn, watched
from tests.support.tools import run
from tests.support.waiting import until

Figures = dict[str, Any]


def shortage(folder: Path, seconds: float, work: str) -> Figures:
    """The book's own test: 100 descriptors, a limit far above them, 1,000 clients at once."""
    flags = [
        "--max-connections",
        "500",
        # Slow work holds its connections, so no request may be refused.
        *(
            ["--work", "tests.work:spins", "--queue-wait", "off", "--deadline", "off"]
            if work == "slow"
            else ["--work-units", "10"]
        ),
    ]
    path = "/data?seconds=0.5" if work == "slow" else "/data"
    with service(folder / "log", *flags, files=100) as child:
        address, _ = child.ready()
        with watched(child) as rows:
            code, said = run(
                ["wrk", "-c", "1000", "-t", "1", "-d", f"{seconds:g}s", f"{address}{path}"], folder
            )
            meanwhile = len(rows)
            until(lambda: len(rows) >= 2, "there are two rows to compare")
        assert code == 0, said
        time.sleep(1)
        command = ["curl", "-sS", "-m", "30", "-o", "/dev/null", "-w", "%{http_code} %{time_total}"]
        code, said_by_curl = run([*command, f"{address}{path}"], folder)
        answer, _, took = said_by_curl.partition(" ")
        values = child.scrape()
        events = child.events("accept paused") + child.events("accept resumed")
        lines = len((folder / "log").read_text().splitlines())
        paused = child.events("accept paused")
        assert child.end() in (0, 1)  # 1: what wrk left in the queue outlasts the drain
    figures: Figures = {
        "curl_after": answer,
        "curl_seconds": float(took),
        "accepted": values["http_connections_accepted_total"],
        "pauses": values["listener_accept_pauses_total"],
        "log_lines": lines,
        "shortage_lines": len(events),
        "cores_of_the_io_process": round(io_cores(rows), 3),
        "scrapes": len(rows),
        "torn_scrapes": torn(rows),
        "wrk": summary_of_wrk(said),
    }
    assert answer == "200", figures
    assert paused, figures
    assert paused[0]["reason"] == "Too many open files", paused
    assert "ulimit -n" in paused[0]["hint"], paused
    assert lines < 20, figures
    assert figures["pauses"] <= 2, "the first shortage teaches the limit"
    assert figures["torn_scrapes"] == 0, figures
    assert meanwhile >= seconds, "the admin port answers during the shortage"
    if work == "slow":  # fast work is request work: parsing and answering thousands a second
        assert figures["cores_of_the_io_process"] < 0.2, figures
    return figures


def default_limit(folder: Path, seconds: float) -> Figures:
    """The same with the default limit: nobody meets a shortage, not even work that opens a file."""
    flags = [
        "--workers",
        "1",
        "--offload",
        "thread",
        "--work",
        "tests.work:opens_a_file",
        "--work-units",
        "1",
    ]
    with service(folder / "log", *flags, files=100) as child:
        address, _ = child.ready()
        with watched(child) as rows:
            code, said = run(
                ["wrk", "-c", "1000", "-t", "1", "-d", f"{seconds:g}s", f"{address}/data"], folder
            )
        assert code == 0, said
        idle = ("http_connections_active", "listener_backlog_connections")
        child.wait_until(lambda: not any(child.scrape()[name] for name in idle))  # what wrk left behind
        values = child.scrape()
        assert child.end() == 0
    figures: Figures = {
        "limit": values["http_connections_limit"],
        "most_active": max(row["http_connections_active"] for row in rows),
        "most_in_kernel_queue": max(row["listener_backlog_connections"] for row in rows),
        "accept_errors": total(values, "listener_accept_errors_total"),
        "answers_200": values.get("http_requests_total{method=GET,route=/data,status=200}", 0),
        "answers_500": values.get("http_requests_total{method=GET,route=/data,status=500}", 0),
        "wrk": summary_of_wrk(said),
    }
    assert figures["accept_errors"] == 0, figures
    assert figures["answers_500"] == 0, figures
    assert figures["answers_200"] > 0, figures
    assert figures["most_active"] <= figures["limit"], figures
    assert figures["most_in_kernel_queue"] > 0, figures
    return figures


def three_sieges(folder: Path, *amount: str) -> Figures:
    """ "My server stops answering after the first load test": three in a row, a connection per request."""
    figures: Figures = {}
    # It refuses nobody: while a machine stands still for longer than --queue-wait, it would.
    with service(folder / "log", "--work-units", "2000", "--queue-wait", "off") as child:
        address, _ = child.ready()
        for number in (1, 2, 3):
            command = ["siege", "-R", str(ROOT / "loadtests/scripts/siegerc"), "-b", "-c", "50"]
            _, said = run([*command, *amount, f"{address}/data"], folder, 120)
            found = {
                name: float(match.group(1))
                for name in ("transactions", "availability", "failed_transactions")
                if (match := re.search(rf'"{name}":\s*([\d.]+)', said))
            }
            figures[f"siege {number}"] = found
            assert found.get("transactions", 0) > 0, said
            assert found["failed_transactions"] == 0, said
            assert found["availability"] == 100, said
        assert child.end() == 0
    return figures


def slow_clients(folder: Path, seconds: float, slow: int, deadline: float, rate: float = 100) -> Figures:
    """Slow-loris connections of four kinds beside good requests: every good one is answered."""
    with service(folder / "log", *impatient(deadline)) as child:
        figures = attacked(child, folder, seconds, slow, deadline, rate)
        assert child.end() == 0
    return figures


def slow_clients_compared(
    folder: Path, seconds: float, slow: int, deadline: float, rate: float = 100
) -> Figures:
    """The same, and what it costs the good requests, beside two baselines.

    Without slow clients (before and after), and with the same slow clients at another service, which shows
    what their mere use of the machine costs.
    """
    flags = impatient(deadline)
    with service(folder / "log", *flags) as child, service(folder / "decoy", *flags) as decoy:
        address, elsewhere = child.ready()[0], decoy.ready()[0]

        def p99_of(name: str) -> float:
            return p99(load(address, seconds, rate, folder / name))

        load(address, 1, rate, folder / "warm")
        ms = {"before": p99_of("before")}
        with loris(elsewhere, slow, deadline):
            decoy.wait_until(lambda: decoy.scrape()["http_connections_accepted_total"] >= slow)
            ms["elsewhere"] = p99_of("elsewhere")
        figures = attacked(child, folder, seconds, slow, deadline, rate)
        ms |= {"under": figures.pop("p99_ms"), "after": p99_of("after")}
        assert child.end() == 0
    return figures | {
        "p99_ms": {name: round(value, 2) for name, value in ms.items()},
        "p99_against_none": round(ms["under"] / max(ms["before"], ms["after"]), 2),
        "p99_against_elsewhere": round(ms["under"] / ms["elsewhere"], 2),
    }


def impatient(deadline: float) -> list[str]:
    """Flags of a service that gives a client so many seconds for each thing that it must do.

    It refuses nobody: while a machine stands still for longer than --queue-wait, it would.
    """
    names = ("header", "body", "write", "idle")
    return [
        *("--work-units", "2000", "--queue-wait", "off"),
        *(part for name in names for part in (f"--{name}-timeout", f"{deadline:g}")),
    ]


def attacked(child: Child, folder: Path, seconds: float, slow: int, deadline: float, rate: float) -> Figures:
    """Good requests while so many slow clients are there; what must hold of both."""
    address, _ = child.ready()
    accepted = child.scrape()["http_connections_accepted_total"]
    with loris(address, slow, deadline) as connected:
        child.wait_until(lambda: child.scrape()["http_connections_accepted_total"] - accepted >= slow)
        under = load(address, seconds, rate, folder / "under")
        held = child.scrape()["http_connections_active"]
        reconnected = connected() - slow
    child.wait_until(lambda: child.scrape()["http_connections_active"] == 0)
    values = child.scrape()
    figures: Figures = {
        "slow_connections": slow,
        "deadline_seconds": deadline,
        "held_at_the_end": held,
        "thrown_out_and_back": reconnected,
        "ended_by_deadline": values["http_connections_completed_total{reason=deadline}"],
        "status_408": total(values, "http_requests_total", status="408"),
        "good_ok": under["outcomes"].get("ok", 0),
        "good_planned": under["ledger"]["planned"],
        "p99_ms": p99(under),
    }
    assert figures["good_ok"] == figures["good_planned"], under["outcomes"]
    # Three of the four kinds: who drips a body that no route reads is answered 405 at once, and closed.
    assert figures["ended_by_deadline"] >= slow * 0.7, figures
    return figures


def p99(run: Figures) -> float:
    """Milliseconds that 99 of 100 answers of a load took at most."""
    return float(run["answered_latency_seconds"]["p99"]) * 1e3


def tls(folder: Path) -> Figures:
    """openssl and curl as clients of the service with a certificate that openssl made."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    code, said = run([*command, "-keyout", key, "-out", cert], folder)
    assert code == 0, said
    flags = [
        "--work-units",
        "10",
        "--tls-cert",
        str(cert),
        "--tls-key",
        str(key),
        "--tls-handshake-timeout",
        "3",
    ]
    with service(folder / "log", *flags) as child:
        address, _ = child.ready()
        place = urlsplit(address).netloc
        code, answer = run(["curl", "-sS", "--cacert", cert, f"{address}/data"], folder)
        assert code == 0, answer
        assert json.loads(answer)["street"] == "10 Downing Street"
        _, said = run(
            ["openssl", "s_client", "-connect", place, "-CAfile", cert, "-verify_return_error", "-brief"],
            folder,
        )
        assert "CONNECTION ESTABLISHED" in said, said
        assert "Verification: OK" in said, said
        protocol = re.search(r"Protocol version: (\S+)", said)
        host, port = place.split(":")
        with socket.create_connection((host, int(port))) as stalled:
            began = time.monotonic()
            stalled.settimeout(30)
            with contextlib.suppress(ConnectionError):
                assert stalled.recv(1) == b""
            waited = time.monotonic() - began
        values = child.scrape()
        assert child.end() == 0
    assert values["tls_handshakes_total{outcome=ok}"] == 2
    assert values["tls_handshakes_total{outcome=failed}"] == 1
    return {"protocol": protocol.group(1) if protocol else None, "stalled_closed_after_s": round(waited, 2)}


def io_cores(rows: list[dict[str, float]]) -> float:
    """Cores that the service's own process used between the first row and the last, without its workers."""
    first, last = rows[0], rows[-1]
    return (last["cpu"] - first["cpu"]) / (last["time"] - first["time"])


def summary_of_wrk(said: str) -> Figures:
    """What wrk itself says: its requests and its socket errors."""
    requests, errors = re.search(r"(\d+) requests in", said), re.search(r"Socket errors: (.*)", said)
    return {
        "requests": int(requests.group(1)) if requests else 0,
        "errors": errors.group(1) if errors else "none",
    }


@contextlib.contextmanager
def loris(address: str, count: int, spread: float) -> Iterator[Callable[[], int]]:
    """Keep `count` slow connections open, a quarter of each kind; who is thrown out comes again.

    Runs in a process of its own. Yields a function that says how often it has connected.
    """
    with tempfile.TemporaryFile("w+") as output:
        command = [sys.executable, "-m", "tests.proofs.loris", address, str(count), str(spread)]
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=output)

        def connected() -> int:
            output.seek(0)
            lines = output.read().split()
            return int(lines[-1]) if lines else 0

        try:
            yield connected
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(30)


def main() -> int:
    """Run all in full and keep the figures."""
    proofs: dict[str, Callable[[Path], Figures]] = {
        "shortage, fast work": lambda folder: shortage(folder, 10, "fast"),
        "shortage, slow work": lambda folder: shortage(folder, 10, "slow"),
        "default limit": lambda folder: default_limit(folder, 10),
        "three sieges": lambda folder: three_sieges(folder, "-t", "20S"),
        "slow clients": lambda folder: slow_clients_compared(folder, 15, 1000, 10),
        "tls": tls,
    }
    return prove("front-door", proofs)


if __name__ == "__main__":
    sys.exit(main())
