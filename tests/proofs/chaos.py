"""Chaos: everything that may go wrong at once, long form: `make chaos` (30 minutes).

gunicorn with two IO processes serves TLS at 70 % of its goodput. Meanwhile two threads break things, each in
an order that its seed fixes: one what belongs to the service (workers, IO processes, exporter, log,
certificates, reloads, upgrades), the other what surrounds it (slow clients, vanishing clients, crashing
input, a neighbour on the core).

What must hold: a good request is answered, unless it was under way when an IO process was killed; a 503 of
overload control is an answer, and counted apart. Afterwards the service's book and the clients' agree to the
connection, no counter went back, and nothing is left.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import trustme

from loadtests.load.sample import TIMEOUT, Sample
from tests.proofs.io_processes import ACCEPTED, KILLED, PROCESSES, Gunicorn, Watch, at_rest
from tests.proofs.record import keep
from tests.support.child import ended
from tests.support.load import Load, accepted, load
from tests.support.processes import argv, gone, is_alive
from tests.support.waiting import until

Figures = dict[str, Any]
NICE = 7  # unlike any other process's: how workers are told from the rest
SHARE = 0.7
ANSWERS = {"ok", "status_503"}
WHOLE_SECONDS = 90.0
"""After each fault the service has this long to be whole again."""

STALL_SECONDS = 3.0
PROMOTION_SECONDS = 2.0
"""gunicorn looks once a second whether it is the first arbiter now."""

DEATH_SECONDS = 1.0
"""A busy client may take so long to see that its connection is reset, once the process has died."""

WEATHER_SECONDS = 3.0
POISON_SECONDS = 0.1
"""Between two requests that kill their worker."""


class ReadGunicorn(Gunicorn):
    """gunicorn whose log goes through a pipe to a reader that can stop, as a log collector may.

    It keeps the lines of the request log as a number only: there are hundreds a second.
    """

    patience_seconds = WHOLE_SECONDS

    def __init__(self, log: Path, **settings: str) -> None:
        self._log = log
        reading, self._writing = os.pipe()
        self._reads = threading.Event()
        self._reads.set()
        self.requests = 0
        log.touch()
        threading.Thread(target=self._read, args=(reading,), daemon=True).start()
        super().__init__(log, **settings)

    def _stderr(self) -> BinaryIO:
        return os.fdopen(self._writing, "wb")

    def until_promoted(self) -> None:
        """As said, but not by its log: an arbiter drops lines that nobody reads."""
        time.sleep(PROMOTION_SECONDS)

    def stall_log(self, seconds: float) -> None:
        """Read nothing for so long."""
        self._reads.clear()
        time.sleep(seconds)
        self._reads.set()

    def _read(self, reading: int) -> None:
        with open(reading, "rb") as lines, self._log.open("ab", buffering=0) as kept:
            for line in lines:
                if b'"event": "request"' in line:
                    self.requests += 1
                else:
                    kept.write(line)
                self._reads.wait()


class Certificates:
    """The two files that the service reads."""

    def __init__(self, folder: Path) -> None:
        self._ca = trustme.CA()
        self.cert, self.key = folder / "cert.pem", folder / "key.pem"
        self.issue()

    def issue(self) -> None:
        """A new pair."""
        made = self._ca.issue_cert("127.0.0.1")
        for path, pem in ((self.cert, made.cert_chain_pems[0]), (self.key, made.private_key_pem)):
            path.with_suffix(".new").write_bytes(pem.bytes())
            path.with_suffix(".new").rename(path)

    def tear(self) -> None:
        """Half of a pair, as a disk that is full leaves it."""
        self.cert.write_bytes(self.cert.read_bytes()[:100])


class Chaos:
    """Breaks things; counts what it does, and how long each took to be whole again."""

    def __init__(self, child: ReadGunicorn, certificates: Certificates, seed: int) -> None:
        self._child = child
        self._certificates = certificates
        self._seed = seed
        self._over = threading.Event()
        self._failed: list[BaseException] = []
        self.connected = 0
        """Connections made here, beside the load."""
        self.times: Counter[str] = Counter()
        self.whole_after: defaultdict[str, list[float]] = defaultdict(list)
        self.kills: list[tuple[float, float]] = []
        """When an IO process was killed, and when it was seen to be dead, by `time.monotonic()`."""
        self.poison: Counter[int] = Counter()
        """Statuses of the requests that kill their worker; 0: none."""

    # What belongs to the service. Each leaves it whole.

    def kill_worker(self) -> None:
        """SIGKILL to a worker."""
        workers = []
        for pid in self._child.session():
            with contextlib.suppress(ProcessLookupError):
                if os.getpriority(os.PRIO_PROCESS, pid) == NICE:
                    workers.append(pid)
        if workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(
                    random.Random(self._seed + self.times["kill_worker"]).choice(sorted(workers)),
                    signal.SIGKILL,
                )

    def kill_exporter(self) -> None:
        """SIGKILL to what publishes the metrics: another answers scrapes."""
        os.kill(max(until(self._exporters, "there is an exporter", WHOLE_SECONDS)), signal.SIGKILL)
        until(lambda: not self._child.answers_scrapes(), "the exporter is gone", WHOLE_SECONDS)
        until(self._child.answers_scrapes, "an exporter answers", WHOLE_SECONDS)

    def kill_io_process(self) -> None:
        """SIGKILL to an IO process: what is open on it is lost, and nothing else."""
        # With more than there are to be, as after a HUP, the arbiter starts none for one that dies.
        until(lambda: len(self._child.io_processes()) == PROCESSES, "the old ones are gone", WHOLE_SECONDS)
        before = self._ready()
        victim = max(self._child.io_processes())
        killed = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        until(lambda: not is_alive(victim), "it is dead", WHOLE_SECONDS)
        self.kills.append((killed, time.monotonic()))
        self._until_ready(before + 1)

    def stall_log(self) -> None:
        """The log is not read for a while."""
        self._child.stall_log(STALL_SECONDS)

    def tear_certificates(self) -> None:
        """A reload with half a certificate is refused; then there is a whole one."""
        before, ready = len(self._child.events("certificates refused")), self._ready()
        self._certificates.tear()
        os.kill(self._child.arbiter, signal.SIGHUP)
        until(lambda: len(self._child.events("certificates refused")) > before, "refused", WHOLE_SECONDS)
        self._until_ready(ready + PROCESSES)
        self._certificates.issue()
        self.hang_up()

    def hang_up(self) -> None:
        """SIGHUP: new IO processes."""
        self._child.hang_up()

    def upgrade(self) -> None:
        """SIGUSR2: a new arbiter."""
        self._child.upgrade()

    # What surrounds it.

    def poison_input(self) -> None:
        """A request that kills its worker, ten times a second."""
        end = time.monotonic() + WEATHER_SECONDS
        while time.monotonic() < end:
            with self._client() as client, contextlib.suppress(OSError):
                client.sendall(b"GET /data?poison=1 HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
                head = client.recv(100)
                self.poison[int(head[9:12]) if head else 0] += 1
            time.sleep(POISON_SECONDS)

    def slow_clients(self) -> None:
        """Heads and bodies that drip, and clients that say nothing at all."""
        with contextlib.ExitStack() as held:
            clients = [held.enter_context(self._client()) for _ in range(20)]
            for number, client in enumerate(clients):
                begun = (
                    b"",
                    b"GET /data HTTP/1.1\r\nX: ",
                    b"POST /data HTTP/1.1\r\nHost: t\r\nContent-Length: 9999\r\n\r\n",
                )
                with contextlib.suppress(OSError):  # its IO process was killed
                    client.sendall(begun[number % 3])
            end = time.monotonic() + WEATHER_SECONDS
            while time.monotonic() < end:
                for client in clients:
                    with contextlib.suppress(OSError):
                        client.sendall(b"x")
                time.sleep(0.2)

    def vanishing_clients(self) -> None:
        """Connect, ask, reset."""
        for _ in range(50):
            with self._client() as client, contextlib.suppress(OSError):
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.sendall(b"GET /data HTTP/1.1\r\nHost: t\r\n\r\n")

    def neighbour(self) -> None:
        """Another process wants the core: all clocks of the service run slower."""
        with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as spinner:
            time.sleep(WEATHER_SECONDS)
            spinner.kill()

    # All of it.

    def run(self, seconds: float) -> None:
        """Break things for so long, each at least once."""
        inner = (
            *(self.kill_worker, self.kill_exporter, self.kill_io_process, self.stall_log),
            *(self.tear_certificates, self.hang_up, self.upgrade),
        )
        outer = (self.poison_input, self.slow_clients, self.vanishing_clients, self.neighbour)
        end = time.monotonic() + seconds
        threads = [
            threading.Thread(target=self._in_turns, args=(faults, random.Random(self._seed + number), end))
            for number, faults in enumerate((inner, outer))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self._failed:
            raise self._failed[0]

    def _in_turns(self, faults: Sequence[Callable[[], None]], chance: random.Random, end: float) -> None:
        left = chance.sample(faults, len(faults))
        try:
            while not self._over.is_set() and (left or time.monotonic() < end):
                fault = left.pop() if left else chance.choice(faults)
                began = time.monotonic()
                fault()
                self.whole_after[fault.__name__].append(time.monotonic() - began)
                self.times[fault.__name__] += 1
                print(
                    f"\r{fault.__name__:<20}{max(end - time.monotonic(), 0):6.0f} s left",
                    end="",
                    file=sys.stderr,
                )
                self._over.wait(chance.uniform(0.2, 1.5))
        except BaseException as error:
            self._failed.append(error)
            self._over.set()

    def _client(self) -> socket.socket:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        while True:
            raw = self._child.connect()
            self.connected += 1
            try:
                return context.wrap_socket(raw)
            except OSError:  # its IO process was killed
                raw.close()

    def _exporters(self) -> list[int]:
        return [pid for pid in self._child.session() if "service.multi.exporter" in argv(pid)]

    def _ready(self) -> int:
        return len(self._child.events("ready"))

    def _until_ready(self, count: int) -> None:
        until(lambda: self._ready() >= count, f"{count} times ready", WHOLE_SECONDS)


def chaos(folder: Path, seconds: float, seed: int) -> Figures:
    """Run it; returns the figures, all assertions held."""
    certificates, log = Certificates(folder), folder / "log"
    settings = {
        "tls_cert": str(certificates.cert),
        "tls_key": str(certificates.key),
        "work": "tests.work:works_or_kills",
        "worker_nice": str(NICE),
        "request_log": "1",
        "queue_wait": "0.2",  # the default: whoever would wait for a worker to come back is told so
    }
    with ended(ReadGunicorn(log, **settings)) as child:
        address, _ = child.ready()
        metrics = child.folder()
        pressed = load(address, 3.0, 500, folder / "pressed", "/data", "--insecure")
        before = at_rest(child, pressed["ledger"]["connected"])
        rate = round(SHARE * pressed["goodput_per_second"])
        broken = Chaos(child, certificates, seed)
        with Watch(child) as watch:
            under = Load(address, seconds, rate, folder / "load", "--insecure", "--out", str(folder / "kept"))
            child.wait_until(lambda: accepted(child) > before[ACCEPTED])
            broken.run(seconds)
            outcomes, samples = under.outcomes(), under.samples(folder / "kept")
            client = json.loads((folder / "load/summary.json").read_text())["ledger"]
            connected = client["connected"] + broken.connected
            values = at_rest(child, before[ACCEPTED] + connected - broken.times["kill_io_process"])
        assert child.end() == 0
        assert gone(child.process.pid), "something outlives gunicorn"
        assert not metrics.exists()
    made = values[ACCEPTED] - before[ACCEPTED]
    lost = [sample for sample in samples if sample.label not in ANSWERS]
    unexplained = [sample for sample in lost if not _was_under_way(sample, broken.kills)]
    figures: Figures = {
        "seed": seed,
        "seconds": seconds,
        "rate": rate,
        "faults": dict(broken.times),
        "whole_after_seconds_at_most": {
            name: round(max(took), 1) for name, took in broken.whole_after.items()
        },
        "outcomes": outcomes,
        "lost": len(lost),
        "lost_without_a_kill": len(unexplained),
        "completed_as_killed": values[KILLED],
        "connected": connected,
        "accepted": made,
        "poison": {str(status): count for status, count in broken.poison.items()},
        "request_lines": child.requests,
        "scrapes": watch.scrapes,
        "wrong_scrapes": len(watch.wrong),
    }
    assert not watch.wrong, (figures, watch.wrong[:5])
    # Between accept(2) and the book lie some microseconds; a process may be killed in them, once.
    assert 0 <= connected - made <= broken.times["kill_io_process"], figures
    assert len(lost) <= values[KILLED] + connected - made, figures
    assert not unexplained, (figures, unexplained[:5])
    return figures


def _was_under_way(sample: Sample, kills: Sequence[tuple[float, float]]) -> bool:
    """Whether a request was under way when a process died of one of these kills, and ended with it.

    Whose client gave up was not lost by that.
    """
    if sample.outcome == TIMEOUT or sample.started is None or sample.finished is None:
        return False
    return any(
        sample.started <= dead and killed <= sample.finished <= dead + DEATH_SECONDS for killed, dead in kills
    )


def main() -> int:
    """The long form."""
    parser = argparse.ArgumentParser(prog="python -m tests.proofs.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=1800, metavar="S", help="how long (default: 1800)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the faults (default: 1)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = chaos(Path(folder), arguments.seconds, arguments.seed)
    print(json.dumps(figures, indent=1))
    if arguments.seconds >= 1800:
        keep("chaos", "make chaos", figures)
    return os.EX_OK


if __name__ == "__main__":
    sys.exit(main())
