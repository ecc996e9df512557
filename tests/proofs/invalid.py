"""Is a run INVALID for every cause, and for the cause that was planted first? `make invalid` (as root).

Each cause is planted into a whole `python -m loadtests run`. Then twenty runs on the machine as it is, of
which none may be INVALID, and the ceiling of `self-test` with runs 10 % below and above it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.proofs.record import prove
from tests.support.servers import OK_ANSWER, ScriptedServer, answer_with

RUN = [sys.executable, "-m", "loadtests", "run"]
IDLE_RUNS = 20
CGROUPS = Path("/sys/fs/cgroup")
CORE = min(os.sched_getaffinity(0))
OTHER_CORE = max(os.sched_getaffinity(0))

SPIN = "import os\nif os.fork(): os._exit(0)\nprint(os.getpid(), flush=True)\nwhile True: pass"
# Takes a core for 60 ms, before everybody else, whenever it is told to.
BURST = """
import os, sys, time
os.sched_setaffinity(0, {int(sys.argv[1])})
os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
while os.read(0, 1):
    end = time.monotonic() + 0.06
    while time.monotonic() < end: pass
"""


# Accepts whoever comes, and says nothing.
HOLD = """
import resource, socket
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
listener, held = socket.create_server(("127.0.0.1", 0), backlog=4096), []
print(listener.getsockname()[1], flush=True)
while True: held.append(listener.accept())
"""


@contextlib.contextmanager
def child(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is ended afterwards."""
    with subprocess.Popen(command, **options) as process:
        try:
            yield process
        finally:
            process.kill()


@contextlib.contextmanager
def spinner(core: int) -> Iterator[None]:
    """A process that never rests, and that is no child of ours: those would pass for the server's."""
    with subprocess.Popen([sys.executable, "-c", SPIN], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        os.sched_setaffinity(pid, {core})
        try:
            yield
        finally:
            os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def quota(share: float) -> Iterator[Path]:
    """A cgroup that may use so much of one core, of either version; its file of processes."""
    first = CGROUPS / "cpu" if (CGROUPS / "cpu").is_dir() else CGROUPS
    group = first / f"offloop-proof-{os.getpid()}"
    group.mkdir()
    try:
        if (group / "cpu.cfs_quota_us").exists():
            (group / "cpu.cfs_quota_us").write_text(str(int(100_000 * share)))
        else:
            (group / "cpu.max").write_text(f"{int(100_000 * share)} 100000")
        yield group / "cgroup.procs"
    finally:
        group.rmdir()


def causes(url: str, *flags: str, before: Sequence[str] = ()) -> list[str]:
    """Why a run is INVALID, the first cause first; empty if it is not."""
    done = subprocess.run(
        [*before, *RUN, url, "--json", "-", *flags], stdout=subprocess.PIPE, timeout=300, check=False
    )
    found: list[str] = json.loads(done.stdout)["invalid_because"]
    assert (done.returncode == 3) == bool(found), (done.returncode, found)
    return found


def planted(word: str, found: list[str]) -> dict[str, Any]:
    """What is kept of a planted cause; `word` is what must be named first."""
    return {"named first": found[0] if found else None, "holds": bool(found) and word in found[0]}


def nice_beside_a_spinner(_: Path) -> dict[str, Any]:
    """The generator has what is left of a core."""
    with ScriptedServer(answer_with(OK_ANSWER)) as server, spinner(CORE):
        before = ["taskset", "-c", str(CORE), "nice", "-n", "19"]
        return planted(
            "other processes", causes(server.url, "--rate", "50", "--duration", "3", before=before)
        )


def twenty_descriptors(_: Path) -> dict[str, Any]:
    """Connections that stay open, and no more files to open."""
    held: list[ScriptedServer] = []
    with ScriptedServer(lambda connection: held[0].hold(connection)) as server:
        held.append(server)
        before = ["sh", "-c", 'ulimit -n 20; exec "$@"', "sh"]
        flags = ["--rate", "100", "--duration", "1", "--timeout", "1"]
        return planted("EMFILE", causes(server.url, *flags, before=before))


def twenty_ports(_: Path) -> dict[str, Any]:
    """The client closes first, and its ports are in TIME_WAIT."""
    with ScriptedServer(answer_with(OK_ANSWER)) as server:
        flags = ["--rate", "100", "--duration", "1", "--port-range", "40000-40019", "--who-closes", "client"]
        return planted("EADDRNOTAVAIL", causes(server.url, *flags))


def cgroup_quota(_: Path) -> dict[str, Any]:
    """A tenth of a core, for the generator alone."""
    with ScriptedServer(answer_with(OK_ANSWER)) as server, quota(0.1) as procs:
        before = ["sh", "-c", f'echo $$ > {procs}; exec "$@"', "sh"]
        return planted("quota", causes(server.url, "--rate", "200", "--duration", "3", before=before))


def too_few_samples(_: Path) -> dict[str, Any]:
    """A p99 of 100 requests."""
    with ScriptedServer(answer_with(OK_ANSWER)) as server:
        flags = ["--rate", "100", "--duration", "1", "--threshold", "p99<1s"]
        return planted("too few samples", causes(server.url, *flags))


def one_foreign_connection(_: Path) -> dict[str, Any]:
    """Somebody else uses the server."""
    with null_responder() as port, socket.create_connection(("127.0.0.1", port)):
        found = causes(f"http://127.0.0.1:{port}/", "--rate", "50", "--duration", "2")
    return planted("other clients", found)


def late_to_receive(_: Path) -> dict[str, Any]:
    """Just before each answer somebody takes the generator's core for 60 ms."""
    command = [sys.executable, "-c", BURST, str(CORE)]
    with child(command, stdin=subprocess.PIPE) as burst:

        def answer_into_a_burst(connection: socket.socket) -> None:
            assert burst.stdin is not None
            os.write(burst.stdin.fileno(), b".")
            time.sleep(0.005)
            connection.sendall(OK_ANSWER)

        os.sched_setaffinity(0, {OTHER_CORE})
        try:
            with ScriptedServer(answer_into_a_burst) as server:
                flags = ["--rate", "4", "--duration", "5", "--shared-machine"]
                before = ["taskset", "-c", str(CORE)]
                return planted("to look at them", causes(server.url, *flags, before=before))
        finally:
            os.sched_setaffinity(0, {CORE, OTHER_CORE})


def saturated_then_waiting(_: Path) -> dict[str, Any]:
    """More than a generator can send, and then ten seconds in which it rests."""
    command = [sys.executable, "-c", HOLD]
    with child(command, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{int(server.stdout.readline())}/"
        flags = ["--rate", "14000", "--duration", "1", "--timeout", "10", "--max-in-flight", "20000"]
        return planted("of its one core while it sent", causes(url, *flags))


@contextlib.contextmanager
def null_responder() -> Iterator[int]:
    """A server that costs next to nothing; its port."""
    command = [sys.executable, "-m", "loadtests.load.responder"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as responder:
        assert responder.stdin is not None
        assert responder.stdout is not None
        yield int(responder.stdout.readline())
        responder.stdin.close()


def idle(_: Path) -> dict[str, Any]:
    """The machine as it is."""
    with null_responder() as port:
        found = [
            causes(f"http://127.0.0.1:{port}/", "--rate", "200", "--duration", "3") for _ in range(IDLE_RUNS)
        ]
    false = [because[0] for because in found if because]
    return {"runs": IDLE_RUNS, "INVALID": len(false), "because": false, "holds": not false}


def ceiling(folder: Path) -> dict[str, Any]:
    """The generator's own, and runs on either side of it."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder)}
    subprocess.run([*RUN[:-1], "self-test"], check=True, env=environment, stdout=sys.stderr)
    found = json.loads((folder / "offloop/self-test.json").read_text())
    with null_responder() as port:
        url = f"http://127.0.0.1:{port}/"
        below = [
            causes(url, "--rate", f"{found['per_second'] * 0.9:.0f}", "--duration", "3") for _ in range(3)
        ]
        above = [
            causes(url, "--rate", f"{found['above_per_second'] * 1.1:.0f}", "--duration", "3")
            for _ in range(3)
        ]
    return {
        **found,
        "10 % below, INVALID": sum(map(bool, below)),
        "10 % above, INVALID": sum(map(bool, above)),
        "holds": not any(below) and all(above),
    }


PROOFS: dict[str, Callable[[Path], Any]] = {
    "nice 19 beside a spinner": nice_beside_a_spinner,
    "20 descriptors": twenty_descriptors,
    "20 ports": twenty_ports,
    "a cgroup quota": cgroup_quota,
    "too few samples": too_few_samples,
    "one foreign connection": one_foreign_connection,
    "receiving 50 ms late": late_to_receive,
    "saturated while it sent, then 10 s at rest": saturated_then_waiting,
    "an idle machine": idle,
    "the ceiling of self-test": ceiling,
}


if __name__ == "__main__":
    sys.exit(prove("invalid", PROOFS))
