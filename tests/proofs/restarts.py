"""Proofs that stops, restarts and reloads cost no request, long form: `make restarts`.

Each function starts the service as an operator would, stops or changes it while it is under load, asserts
what must hold and returns the figures. The tests call the same functions for less time.

What counts as lost: a client whose handshake was finished (its connect() came back) and who got no whole
answer. Who comes when nobody listens any more is refused, and is not lost; with a successor on the same
listener nobody may be refused either. A 503 of overload control is a whole answer: at 80 % of what a machine
shared with others can do there are some, and they are counted apart, before the signal and after it.
"""

from __future__ import annotations

import signal
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import trustme

from tests.proofs.record import prove
from tests.support.child import Child, service
from tests.support.load import Load, accepted, load
from tests.support.processes import gone
from tests.support.waiting import every, until

Figures = dict[str, Any]
TOO_LATE = "connect_ECONNREFUSED"
BUSY = "status_503"
TICK_SECONDS = 0.01


def goodput(folder: Path, seconds: float) -> float:
    """What a service with work of 4 ms answers a second on this machine, more than enough being asked."""
    with service(folder / "capacity.log", "--work-ms", "4", "--workers", "2") as child:
        address, _ = child.ready()
        return float(load(address, seconds, 600, folder / "capacity")["goodput_per_second"])


def terminated(folder: Path, times: int, rate: float, seconds: float, *, refusing: bool = False) -> Figures:
    """SIGTERM under load, again and again: whoever was connected is answered, and nothing is left.

    Args:
        refusing: the load is so high that most of the answers are 503.
    """
    outcomes: Counter[str] = Counter()
    busy_after = 0
    drains = []
    for number in range(times):
        with service(folder / f"log{number}", "--work-ms", "4", "--workers", "2") as child:
            address, _ = child.ready()
            kept = folder / f"run{number}"
            under = Load(address, seconds, rate, folder / f"load{number}", "--out", str(kept))
            child.wait_until(lambda child=child: accepted(child) > 0.5 * seconds * rate)
            began = time.monotonic()
            assert child.end() == 0
            drains.append(time.monotonic() - began)
            assert gone(child.process.pid), "workers outlive their service"
            with socket.socket() as port:  # without listening, or clients of the load would connect to it
                port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                port.bind(("127.0.0.1", int(address.rpartition(":")[2])))
            outcomes.update(under.outcomes())
            busy_after += sum(
                sample.label == BUSY and (sample.connected or 0) > began for sample in under.samples(kept)
            )
    figures: Figures = {
        "times": times,
        "rate": round(rate),
        "outcomes": dict(outcomes),
        "busy_after_the_signal": busy_after,
        "drain_ms_at_most": round(max(drains) * 1e3),
    }
    assert set(outcomes) <= {"ok", TOO_LATE, BUSY}, figures
    assert outcomes["ok"] > (0 if refusing else 0.4 * seconds * rate * times), figures
    assert not refusing or outcomes[BUSY] > outcomes["ok"], figures
    return figures


def handed_over(folder: Path, seconds: float, rate: float) -> Figures:
    """Stop, then start on the listener that systemd would hold meanwhile: nobody is refused or reset."""
    gaps: list[float] = []
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        # What came in the gap is answered late, but answered: a wait of 0.2 s would refuse a part of it, and
        # one of 2 s did so where a start took as long.
        flags = ("--work-ms", "4", "--queue-wait", "8")
        under: Load | None = None
        while under is None or under.is_running():
            began = time.monotonic()
            # The first one soon: a machine that stands still for a second leaves it the rest of the load.
            most = rate if gaps else 0.2 * rate
            with service(folder / f"log{len(gaps)}", *flags, listener=listener) as child:
                child.ready()
                gaps.append(time.monotonic() - began)
                under = under or Load(address, seconds, rate, folder / "load")
                on = under.is_running
                child.wait_until(lambda child=child, most=most, on=on: accepted(child) > most or not on())
                assert child.end() == 0
    outcomes = under.outcomes()
    figures: Figures = {
        "restarts": len(gaps) - 1,
        "rate": round(rate),
        "outcomes": outcomes,
        "seconds_without_service_at_most": round(max(gaps[1:]), 2),
    }
    assert set(outcomes) == {"ok"}, figures
    return figures


def reloaded(folder: Path, seconds: float, rate: float) -> Figures:
    """A new certificate four times a second under TLS load: every request is answered, old or new."""
    ca = trustme.CA()
    cert, key = folder / "cert.pem", folder / "key.pem"

    def issue() -> None:
        made = ca.issue_cert("127.0.0.1")
        for path, pem in ((cert, made.cert_chain_pems[0]), (key, made.private_key_pem)):
            pem.write_to_path(path.with_suffix(".new"))
            path.with_suffix(".new").rename(path)

    issue()
    flags = ("--work-units", "100", "--queue-wait", "off", "--tls-cert", str(cert), "--tls-key", str(key))
    with service(folder / "log", *flags) as child:
        address, _ = child.ready()
        under = Load(address, seconds, rate, folder / "load", "--insecure")
        child.wait_until(lambda: accepted(child) > 0)
        while under.is_running():
            issue()
            before = len(child.events("reloaded"))
            child.process.send_signal(signal.SIGHUP)
            # Else the next pair is written while this one is read.
            child.wait_until(lambda child=child, before=before: len(child.events("reloaded")) > before)
            time.sleep(0.25)
        outcomes = under.outcomes()
        assert child.end() == 0
        reloads = len(child.events("reloaded"))
    figures: Figures = {"rate": rate, "reloads": reloads, "outcomes": outcomes}
    assert not child.events("certificates refused"), figures
    assert set(outcomes) == {"ok"}, figures
    assert reloads > seconds, figures
    return figures


def late(folder: Path, seconds: float) -> Figures:
    """Work that outlives `--drain-timeout`: its request is answered 503 at the deadline, and exit code 1."""
    flags = ("--work", "tests.work:spins", "--drain-timeout", f"{seconds:g}")
    with service(folder / "log", *flags) as child, ask_for_ever(child) as client:
        began = time.monotonic()
        code = child.end()
        took = time.monotonic() - began
        answer = client.recv(1000)
        assert gone(child.process.pid)
        (stopped,) = child.events("stopped")
    figures: Figures = {
        "after_the_deadline_ms": round((took - seconds) * 1e3),
        "exit_code": code,
        "abandoned": stopped["abandoned"],
        "answer": answer.partition(b"\r\n")[0].decode(),
    }
    assert code == 1, figures
    assert figures["answer"] == "HTTP/1.1 503 Service Unavailable", figures
    assert took >= seconds, figures
    return figures


def forced(folder: Path, second: signal.Signals, offload: str) -> Figures:
    """A second signal ends it at once, also while work blocks the loop."""
    flags = ("--work", "tests.work:spins", "--offload", offload)
    with service(folder / "log", *flags) as child, ask_for_ever(child):
        child.process.send_signal(signal.SIGTERM)
        if offload == "process":
            child.wait_until(lambda: child.events("draining"))
        began = time.monotonic()
        if offload == "process":
            code = child.end(second)
        else:
            # The loop is blocked, so it will never say that it has heard the first; and two orders that are
            # heard at the same moment are one (lifecycle/control.py). So the second is given until it is.
            def has_ended() -> bool:
                child.process.send_signal(second)
                return child.process.poll() is not None

            until(has_ended, "it is forced", 30)
            code = child.process.wait()
        took = time.monotonic() - began
        assert gone(child.process.pid)
    assert code == 1
    return {"ended_after_ms": round(took * 1e3)}


def stalled(folder: Path, threshold: float) -> Figures:
    """A handler that blocks turns liveness to 503 within the threshold, and metrics are served meanwhile."""
    begun, go = folder / "begun", folder / "go"
    flags = ("--offload", "inline", "--work", "tests.work:waits_for", "--loop-stall", f"{threshold:g}")
    with service(folder / "log", *flags) as child:
        address, admin = child.ready()
        child.wait_until(lambda: status(f"{admin}/healthz") == 200)
        blocked = threading.Thread(target=status, args=(f"{address}/data?begun={begun}&go={go}",))
        with standstills() as late:
            began = time.monotonic()
            blocked.start()
            try:
                child.wait_until(begun.exists)
                child.wait_until(lambda: status(f"{admin}/healthz") == 503)
                after = time.monotonic() - began
                child.scrape()
                assert status(f"{admin}/healthz") == 503  # the metrics were served in the middle of it
            finally:
                go.touch()
                blocked.join()
        child.wait_until(lambda: status(f"{admin}/healthz") == 200)
        # A machine that stands still stalls the loop too, and elsewhere.
        said = [line for line in child.events("event loop stalled") if "in waits_for\n" in line["where"]]
        assert child.end() == 0
    figures: Figures = {"threshold_seconds": threshold, "said_after_seconds": round(after, 2)}
    assert len(said) == 1, said
    assert after < 2 * threshold + max(late), (figures, max(late))
    return figures


@contextmanager
def standstills() -> Iterator[list[float]]:
    """By how many seconds each tick of a clock in this process is late meanwhile, one every 10 ms."""
    late, before = [0.0], time.monotonic()

    def tick() -> None:
        nonlocal before
        now = time.monotonic()
        late.append(now - before - TICK_SECONDS)
        before = now

    with every(TICK_SECONDS, tick):
        yield late


def busy(folder: Path, seconds: float, threshold: float) -> Figures:
    """Inline work of 4 ms at 1.5 times its limit: the loop is late and turns, and liveness says so."""
    with service(folder / "log", "--offload", "inline", "--loop-stall", f"{threshold:g}") as child:
        address, admin = child.ready()
        under = Load(address, seconds, 375, folder / "load", "--timeout", "2")
        said: Counter[int] = Counter()
        while under.is_running():
            said[status(f"{admin}/healthz")] += 1
            time.sleep(0.02)
        assert child.end() == 0
    figures: Figures = {"threshold_seconds": threshold, "probes": dict(said)}
    assert set(said) == {200}, figures
    return figures


def status(url: str) -> int:
    """The status of an answer."""
    try:
        with urlopen(url) as answer:
            return int(answer.status)
    except HTTPError as error:
        with error:
            return error.code


class ask_for_ever:  # noqa: N801  # reads as what it does
    """A client whose request never ends by itself, from when the work has begun."""

    def __init__(self, child: Child) -> None:
        address, _ = child.ready()
        self._client = socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])))
        self._client.sendall(b"GET /data?seconds=1e6 HTTP/1.1\r\nHost: t\r\n\r\n")
        child.wait_until(lambda: child.scrape()["offload_running"] == 1)

    def __enter__(self) -> socket.socket:
        return self._client

    def __exit__(self, *_: object) -> None:
        self._client.close()


def main() -> int:
    """Run all in full and keep the figures."""
    with tempfile.TemporaryDirectory() as folder:
        whole = goodput(Path(folder), 5.0)
    proofs: dict[str, Callable[[Path], Figures]] = {
        "SIGTERM under load": lambda folder: terminated(folder, 100, 0.8 * whole, 1.0),
        "SIGTERM while requests are refused": lambda folder: terminated(
            folder, 100, 3 * whole, 1.0, refusing=True
        ),
        "restarts on a listener that is held": lambda folder: handed_over(folder, 20, 0.5 * whole),
        "certificates reloaded under load": lambda folder: reloaded(folder, 15, 200),
        "work that outlives the drain": lambda folder: late(folder, 1.0),
        "a loop that stalls": lambda folder: stalled(folder, 0.5),
        "a loop with inline work of 4 ms at 1.5 times its limit": lambda folder: busy(folder, 10, 0.5),
        "second signal": lambda folder: forced(folder, signal.SIGTERM, "process"),
        "second signal, the loop blocked": lambda folder: forced(folder, signal.SIGINT, "inline"),
    }
    return prove("restarts", proofs)


if __name__ == "__main__":
    sys.exit(main())
