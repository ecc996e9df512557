"""Proofs that several IO processes are one service, long form: `make io-processes`.

Each function starts gunicorn as an operator would, with two IO processes, does something to it while it is
under load, asserts what must hold and returns the figures. The tests call the same functions for less time.

What must hold in every scrape, whatever is done: no counter goes back, and the books close. What must hold
afterwards: the service's books and the clients' agree to the connection, and nothing is left.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import psutil

from metrics.exposition import total
from tests.proofs.record import prove
from tests.support import ROOT
from tests.support.books import books, check_wrk, option
from tests.support.child import Child, ended
from tests.support.load import Load, accepted
from tests.support.processes import argv, children, gone, parent
from tests.support.tools import need, run
from tests.support.waiting import until

Figures = dict[str, Any]
Values = dict[str, float]
ACCEPTED, ACTIVE = "http_connections_accepted_total", "http_connections_active"
KILLED = "http_connections_completed_total{reason=killed}"
COUNTERS = ("_total", "_count", "_sum", "_bucket")
PROMOTED = "Master has been promoted."
PROCESSES = 2
HELD = 20


class Gunicorn(Child):
    """`gunicorn -c service/gunicorn_conf.py` with two IO processes, in a session of its own.

    Whoever comes while none of them is up is answered late, but answered: a wait of 0.2 s would refuse some.
    """

    patience_seconds = 30.0
    """For whatever it is to do."""

    def __init__(self, log: Path, *flags: str, **settings: str) -> None:
        self._log = log
        given = {"port": "0", "log_format": "json", "work_units": "2000", "queue_wait": "10"} | settings
        given.setdefault("admin_port", str(free_port()))  # the same for each exporter to come
        command = [str(Path(sys.executable).with_name("gunicorn")), "-c", "service/gunicorn_conf.py"]
        command += ["-w", str(PROCESSES), "--worker-tmp-dir", str(log.parent)]
        with self._stderr() as stderr:
            self.process = subprocess.Popen(
                [*command, *flags],
                stderr=stderr,
                cwd=ROOT,
                env=os.environ | {f"SERVICE_{name.upper()}": value for name, value in given.items()},
                start_new_session=True,
            )
        self.arbiter = self.process.pid
        self.held = 0
        """Connections beside the load, all of them open on an IO process when it was killed."""

    def _stderr(self) -> BinaryIO:
        """Where it writes its log."""
        return self._log.open("wb")

    def connect(self) -> socket.socket:
        """A client of the service."""
        address, _ = self.ready()
        return socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), timeout=10)

    def ready(self, processes: int = PROCESSES) -> tuple[str, str]:
        """Wait until so many IO processes have been ready; return both base URLs."""
        self.wait_until(lambda: len(self.events("ready")) >= processes)
        return self.events("ready")[0]["address"], self.events("exporter ready")[0]["admin"]

    def wait_until(self, condition: Callable[..., object], seconds: float | None = None) -> None:
        """As said, for `patience_seconds` unless told."""
        super().wait_until(condition, self.patience_seconds if seconds is None else seconds)

    def answers_scrapes(self) -> bool:
        """Whether there is an exporter, and listens."""
        with suppress(OSError):
            return bool(self.scrape())
        return False

    def is_running(self) -> bool:
        """Whether any of it is left: after an upgrade the first arbiter is not."""
        self.process.poll()
        return bool(self.session())

    def io_processes(self) -> set[int]:
        """Process ids of the living ones of this arbiter."""
        return {pid for pid in children(self.arbiter) if _is_gunicorn(pid)}

    def kill(self) -> None:
        """SIGKILL to an IO process that holds connections; the arbiter starts another."""
        victim, *others = sorted(self.io_processes())
        for pid in others:
            os.kill(pid, signal.SIGSTOP)  # so that the victim accepts all of these
        self.wait_until(lambda: all(psutil.Process(pid).status() == psutil.STATUS_STOPPED for pid in others))
        held = [self.connect() for _ in range(HELD)]
        self.wait_until(lambda: self.scrape()[ACTIVE] >= HELD)
        for pid in others:
            os.kill(pid, signal.SIGCONT)
        with self._until_ready(1):
            os.kill(victim, signal.SIGKILL)
        for client in held:
            with client, suppress(ConnectionResetError):
                assert client.recv(1) == b""
        self.held += HELD

    def hang_up(self) -> None:
        """SIGHUP: new IO processes."""
        with self._until_ready(PROCESSES):
            os.kill(self.arbiter, signal.SIGHUP)

    def upgrade(self, *, waits: bool = True) -> None:
        """As gunicorn's documentation says: SIGUSR2, wait until the new one is up, SIGTERM to the old one.

        Args:
            waits: as the documentation says; else both signals at once, and then until the new one is up.
        """
        if self.arbiter != self.process.pid:
            self.until_promoted()
        with self._until_ready(PROCESSES):
            os.kill(self.arbiter, signal.SIGUSR2)
            if not waits:
                os.kill(self.arbiter, signal.SIGTERM)
        if waits:
            os.kill(self.arbiter, signal.SIGTERM)
        if self.arbiter == self.process.pid:
            assert self.process.wait(self.patience_seconds) == 0
        self.wait_until(lambda: self.arbiter not in self.session())
        # Its log may not say: an arbiter drops lines that nobody reads.
        (self.arbiter,) = [
            pid for pid in self.session() if _is_gunicorn(pid) and not _is_gunicorn(parent(pid))
        ]
        # The exporter of the old one has left its port to the new one's.
        self.wait_until(self.answers_scrapes)

    def until_promoted(self) -> None:
        """Wait until the arbiter has seen that it is the first one now, which takes up to a second."""
        self.wait_until(lambda: self.arbiter in [line["pid"] for line in self.events(PROMOTED)])

    @contextmanager
    def _until_ready(self, more: int) -> Iterator[None]:
        before = len(self.events("ready"))
        yield
        self.ready(before + more)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End the arbiter; its exit code, if it is ours to know."""
        os.kill(self.arbiter, number)
        return self.process.wait(self.patience_seconds)

    def pids(self, event: str) -> list[int]:
        """The numbers that log lines of a kind hold."""
        return [int(pid) for pid in re.findall(event, self.log())]

    def folder(self) -> Path:
        """Where the metrics are."""
        (folder,) = {word for pid in self.session() for word in argv(pid) if "/offloop-" in word}
        return Path(folder)


def _is_gunicorn(pid: int) -> bool:
    """An arbiter or one of its IO processes."""
    return "service/gunicorn_conf.py" in argv(pid)


def free_port() -> int:
    """A port that nobody takes while its owner is away: those that the kernel gives to clients, and to
    whoever asks for port 0, begin above (ip_local_port_range).
    """
    while True:
        port = random.randrange(20_000, 32_768)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


@contextmanager
def gunicorn(log: Path, *flags: str, **settings: str) -> Iterator[Gunicorn]:
    """gunicorn, ended whatever the test does with all that belongs to it."""
    with ended(Gunicorn(log, *flags, **settings)) as child:
        yield child


class Watch:
    """Scrapes all the time, and says of each scrape what is wrong with it."""

    def __init__(self, child: Gunicorn) -> None:
        self._child = child
        self._end = threading.Event()
        self.scrapes = 0
        self.wrong: list[str] = []
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        before: Values = {}
        while not self._end.wait(0.02):
            try:
                now = self._child.scrape()
            except OSError:  # an exporter has ended; the next one is about to take its port
                continue
            self.scrapes += 1
            if ACCEPTED not in now:
                self.wrong.append(f"half a scrape: {now}")
                continue
            self.wrong += went_back(before, now)
            completed = total(now, "http_connections_completed_total")
            if now[ACCEPTED] != completed + now[ACTIVE]:
                self.wrong.append(f"accepted {now[ACCEPTED]}, completed {completed}, active {now[ACTIVE]}")
            before = now


def went_back(before: Values, now: Values) -> list[str]:
    """The counters that are less than they were, or are no more."""
    return [
        f"{key} was {value}, is {now.get(key)}"
        for key, value in before.items()
        if key.partition("{")[0].endswith(COUNTERS) and now.get(key, -1) < value
    ]


def at_rest(child: Gunicorn, connected: int) -> Values:
    """The counters, once so many connections have come and all have gone."""
    rows: list[Values] = []

    def is_at_rest() -> bool:
        rows.append(child.scrape())
        return rows[-1][ACTIVE] == 0 and rows[-1][ACCEPTED] >= connected

    until(
        is_at_rest,
        lambda: f"{connected} are accepted and none active, but {rows[-1]}",
        child.patience_seconds,
    )
    return rows[-1]


def under_load(
    folder: Path,
    seconds: float,
    rate: float,
    *actions: Callable[[Gunicorn], object],
    flags: Sequence[str] = (),
) -> Figures:
    """Do these in turns while it is under load; then hold the books against each other."""
    with gunicorn(folder / "log", *flags) as child:
        address, _ = child.ready()
        metrics = child.folder()
        with Watch(child) as watch:
            under = Load(address, seconds, rate, folder / "load")
            child.wait_until(lambda: accepted(child) > 0.1 * rate)
            times = 0
            while under.is_running() or times < len(actions):
                if actions:
                    actions[times % len(actions)](child)
                    times += 1
                time.sleep(0.2)
            times = times or len(child.events("ending"))  # without actions: those that end by themselves
            outcomes = under.outcomes()
            client = json.loads((folder / "load/summary.json").read_text())["ledger"]
            values = at_rest(child, client["connected"] - times)
        assert child.end() == 0
        assert gone(child.process.pid), "something outlives gunicorn"
        assert not metrics.exists()
        socket.create_server(("127.0.0.1", int(address.rpartition(":")[2]))).close()
    figures: Figures = {
        "times": times,
        "rate": rate,
        "outcomes": outcomes,
        "held": child.held,
        "connected": client["connected"],
        "accepted": values[ACCEPTED],
        "completed_as_killed": values[KILLED],
        "scrapes": watch.scrapes,
        "wrong_scrapes": len(watch.wrong),
    }
    assert times > 0, figures
    assert not watch.wrong, (figures, watch.wrong[:5])
    assert watch.scrapes > 5 * seconds, figures
    lost = child.held + sum(count for name, count in outcomes.items() if name != "ok")
    # Between accept(2) and the book lie some microseconds; a process may be killed in them, once.
    uncounted = figures["connected"] + child.held - figures["accepted"]
    assert 0 <= uncounted <= (times if child.held else 0), figures
    lost -= uncounted
    # Who has had his answer is not lost, though his connection may not have ended yet when it is killed.
    assert lost <= figures["completed_as_killed"] <= lost + PROCESSES * times, figures
    assert not any("REFUSED" in name for name in outcomes), figures
    return figures


def through_wrk(folder: Path, seconds: int) -> Figures:
    """What wrk counts and what all IO processes count; then the arbiter is killed, and nothing stays."""
    with gunicorn(folder / "log") as child:
        address, _ = child.ready()
        metrics = child.folder()
        before = child.scrape()
        command = f"{need('wrk', 'wrk')} -t1 -c8 -d{seconds}s -s loadtests/scripts/wrk.lua {address}/data"
        code, said = run(command.split(), folder, seconds + 60)
        assert code == 0, said
        sent, answered = map(int, re.findall(r"sent (\d+) answered (\d+)", said)[0])
        # With the one that tries the address and the last ones, which ask nothing, as `check_wrk` says.
        after = at_rest(child, int(before[ACCEPTED]) + answered + option(command, "c") + 1)
        until(
            lambda: total(child.scrape(), "offload_tasks_total") >= sent, "what wrk has left behind is done"
        )
        check_wrk(command, said, books(before, child.scrape()))
        os.kill(child.arbiter, signal.SIGKILL)
        assert gone(child.process.pid), "something outlives its arbiter"
        assert not metrics.exists()
        shares = [line["accepted"] for line in child.events("stopped")]
    assert sum(shares) == after[ACCEPTED] - before[ACCEPTED], shares
    return {"sent": sent, "answered": answered, "accepted_by_each": shares}


def stalled(folder: Path) -> Figures:
    """A loop that does not turn for gunicorn's --timeout is killed, says where it stands, and is replaced."""
    with gunicorn(folder / "log", "--timeout", "1", offload="inline", work="tests.work:spins") as child:
        child.ready()
        began = time.monotonic()
        with child.connect() as client:
            client.sendall(b"GET /data?seconds=1e6 HTTP/1.1\r\nHost: t\r\n\r\n")
            assert client.recv(1) == b""
        took = time.monotonic() - began
        child.ready(PROCESSES + 1)
        values = child.scrape()
        assert " in spins" in (folder / "log").read_text()
        assert child.end() == 0
    assert values[ACCEPTED] == values[KILLED] == 1, values
    return {"killed_after_seconds": round(took, 1), "completed_as_killed": values[KILLED]}


def main() -> int:
    """Run all in full and keep the figures."""
    proofs: dict[str, Callable[[Path], Figures]] = {
        "SIGKILL to an IO process": lambda folder: under_load(folder, 10, 200, Gunicorn.kill),
        "SIGHUP": lambda folder: under_load(folder, 10, 200, Gunicorn.hang_up),
        "SIGUSR2": lambda folder: under_load(folder, 20, 200, Gunicorn.upgrade),
        "--max-requests": lambda folder: under_load(
            folder, 10, 200, flags=("--max-requests", "100", "--max-requests-jitter", "100")
        ),
        "wrk, then SIGKILL to the arbiter": lambda folder: through_wrk(folder, 5),
        "a loop that does not turn": stalled,
    }
    return prove("io-processes", proofs)


if __name__ == "__main__":
    sys.exit(main())
