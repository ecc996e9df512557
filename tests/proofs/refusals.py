"""What a refusal costs beside the least that a loop can do: `make refusals`.

Ours is the whole service, whose one worker takes half a second for a request, so that nearly all are refused.
The bare loop accepts, reads, answers the same bytes and closes, with TCP_DEFER_ACCEPT: no event loop, no
counter, no limit. Both answer our open loop at the same rate, in turns.
"""

from __future__ import annotations

import argparse
import contextlib
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from statistics import median
from typing import Any

from service.web.responses import plain
from tests.proofs.record import keep
from tests.support import ROOT
from tests.support.child import service
from tests.support.load import load
from tests.support.processes import cpu_seconds

RATE = 3000
MOST = 1.6
"""Times what the bare loop costs."""

Place = tuple[str, int]
Kind = Callable[[Path], contextlib.AbstractContextManager[Place]]


def serve_bare() -> None:
    """Refuse everybody, until this process is ended."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 1)
    print(listener.getsockname()[1], flush=True)
    answer = plain(HTTPStatus.SERVICE_UNAVAILABLE, "Retry-After: 1")
    while True:
        sock, _ = listener.accept()
        with contextlib.suppress(OSError):
            sock.recv(4096)
            sock.send(answer)
        sock.close()


@contextmanager
def bare(_: Path) -> Iterator[Place]:
    """Address and pid of the bare loop."""
    command = [sys.executable, "-m", "tests.proofs.refusals", "--serve-bare"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}", process.pid
        finally:
            process.kill()


@contextmanager
def ours(folder: Path) -> Iterator[Place]:
    """Address and pid of the service: a worker that is busy, and one request that waits for it."""
    flags = ("--work", "tests.work:slow", "--work-units", "2", "--workers", "1", "--queue-wait", "0.05")
    with service(folder / "log", *flags) as child:
        yield child.ready()[0], child.process.pid


def measure(place: Place, seconds: float, folder: Path) -> tuple[float, dict[str, Any]]:
    """CPU microseconds of the server per connection, and what became of the requests."""
    address, pid = place
    before = cpu_seconds(pid)
    run = load(address, seconds, RATE, folder)
    return (cpu_seconds(pid) - before) / run["ledger"]["connected"] * 1e6, run


def compare(rounds: int, seconds: float, folder: Path) -> dict[str, Any]:
    """Both in turns, each round in the other order; medians, and the ratios within the rounds."""
    kinds: dict[str, Kind] = {"ours": ours, "bare": bare}
    costs: dict[str, list[float]] = {name: [] for name in kinds}
    outcomes: dict[str, dict[str, int]] = {name: {} for name in kinds}
    with contextlib.ExitStack() as stack:
        places = {name: stack.enter_context(kind(folder)) for name, kind in kinds.items()}
        for number in range(-1, rounds):  # the first warms both up
            for name in list(places)[:: -1 if number % 2 else 1]:
                cost, run = measure(places[name], seconds, folder / f"{name}-{number}")
                if number >= 0:
                    costs[name].append(cost)
                    for outcome, count in run["outcomes"].items():
                        outcomes[name][outcome] = outcomes[name].get(outcome, 0) + count
    ratios = [our / least for our, least in zip(costs["ours"], costs["bare"], strict=True)]
    return {
        "rate": RATE,
        "cpu_us_per_refusal": {name: round(median(found), 1) for name, found in costs.items()},
        "outcomes": outcomes,
        "ratio": {"median": round(median(ratios), 3), "rounds": [round(ratio, 3) for ratio in ratios]},
        "holds": median(ratios) <= MOST,
    }


def main() -> int:
    """Run and keep the figures."""
    parser = argparse.ArgumentParser(prog="python -m tests.proofs.refusals", description=__doc__)
    parser.add_argument("--serve-bare", action="store_true", help="be the bare loop, until ended")
    parser.add_argument("--rounds", type=int, default=9, metavar="N", help="default: 9")
    parser.add_argument("--seconds", type=float, default=4.0, metavar="S", help="of each part (default: 4)")
    arguments = parser.parse_args()
    if arguments.serve_bare:
        serve_bare()
    with tempfile.TemporaryDirectory() as folder:
        figures = compare(arguments.rounds, arguments.seconds, Path(folder))
    print(figures)
    keep("refusals", "make refusals", figures)
    return 0 if figures["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())
