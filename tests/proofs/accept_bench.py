"""Our accept path beside aiohttp's own site: `make bench-accept`.

Both serve the same trivial answer on uvloop, `Connection: close`, 32 clients of wrk, in turns. Ours is the
whole service, with its permit, record, deadlines and counters; theirs is `web.TCPSite` with none of it.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import uvloop
from aiohttp import web

from tests.proofs.record import keep
from tests.support import ROOT
from tests.support.child import service
from tests.support.processes import cpu_seconds
from tests.support.tools import run

CLIENTS = 32
Ours = tuple[str, int]


async def serve_site() -> None:
    """aiohttp as its documentation shows it, with the backlog of our default."""

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    app = web.Application()
    app.router.add_get("/healthz", healthz)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


@contextmanager
def site() -> Iterator[Ours]:
    """Address and pid of aiohttp's own site."""
    command = [sys.executable, "-m", "tests.proofs.accept_bench", "--serve-site"]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}", process.pid


@contextmanager
def ours(folder: Path) -> Iterator[Ours]:
    """Address and pid of the service."""
    with service(folder / "log", "--offload", "inline", "--work-units", "1") as child:
        yield child.ready()[0], child.process.pid


def measure(address: str, pid: int, seconds: float, folder: Path) -> tuple[float, float]:
    """Connections per second, and CPU microseconds of the server per connection."""
    before = cpu_seconds(pid)
    script = str(ROOT / "loadtests/scripts/wrk.lua")
    command = ["wrk", "-t", "1", "-c", str(CLIENTS), "-d", f"{seconds:g}s", "-s", script]
    code, said = run([*command, f"{address}/healthz"], folder)
    assert code == 0, said
    found = re.search(r"(\d+) requests in ([\d.]+)s", said)
    assert found, said
    count = int(found.group(1))
    return count / float(found.group(2)), (cpu_seconds(pid) - before) / count * 1e6


def compare(rounds: int, seconds: float, folder: Path) -> dict[str, Any]:
    """Both in turns, each round in the other order; medians and the ratios within the rounds."""
    rows: dict[str, list[tuple[float, float]]] = {"offloop": [], "aiohttp": []}
    with ours(folder) as our_place, site() as their_place:
        places = {"offloop": our_place, "aiohttp": their_place}
        for name in places:
            measure(*places[name], 1, folder)
        for number in range(rounds):
            for name in list(places)[:: -1 if number % 2 else 1]:
                rows[name].append(measure(*places[name], seconds, folder))
    ratios = [ours_[0] / theirs[0] for ours_, theirs in zip(rows["offloop"], rows["aiohttp"], strict=True)]
    costs = [ours_[1] / theirs[1] for ours_, theirs in zip(rows["offloop"], rows["aiohttp"], strict=True)]
    return {
        name: {
            "connections_per_second": round(median(rate for rate, _ in found)),
            "cpu_us_per_connection": round(median(cost for _, cost in found), 1),
        }
        for name, found in rows.items()
    } | {
        "rate_ratio": {"median": round(median(ratios), 3), "rounds": [round(ratio, 3) for ratio in ratios]},
        "cpu_ratio": {"median": round(median(costs), 3), "rounds": [round(ratio, 3) for ratio in costs]},
    }


def main() -> int:
    """Run and keep the figures."""
    parser = argparse.ArgumentParser(prog="python -m tests.proofs.accept_bench", description=__doc__)
    parser.add_argument("--serve-site", action="store_true", help="be the peer, until stdin closes")
    parser.add_argument("--rounds", type=int, default=9, metavar="N", help="default: 9")
    arguments = parser.parse_args()
    if arguments.serve_site:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve_site())
        return 0
    with tempfile.TemporaryDirectory() as folder:
        figures = compare(arguments.rounds, 4, Path(folder))
    print(figures)
    keep("accept-bench", "make bench-accept", figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
