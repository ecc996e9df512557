"""What it costs the IO process to hand work over, and how many cores it can feed: `make hand-over`.

Three questions. A task through `ProcessPoolExecutor.submit`, as everybody writes it, beside a task through
our offload, in turns: CPU of the whole IO process, all its threads. Then 64 workers whose tasks sleep 4 ms,
and so leave the cores to the one process that feeds them: tasks per second, and what a whole core of it
could do. Last, the same through the whole service, asked by wrk: requests per second, and how many cores of
4 ms work that would keep busy.
"""

from __future__ import annotations

import asyncio
import re
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import uvloop

from metrics.instruments import Metrics
from service.offload.admission import Admission
from service.offload.offload import Offload
from service.offload.strategies import pool_for
from tests.proofs.record import keep
from tests.support.child import service
from tests.support.processes import cpu_seconds
from tests.support.tools import run

WORK_SECONDS = 0.004
LANES = 64
Figures = dict[str, Any]
Call = Callable[[], Awaitable[Any]]


async def cost(call: Call, callers: int, seconds: float) -> tuple[float, float]:
    """CPU microseconds of this process per task, and tasks per second, with so many callers at once."""
    done = 0
    end = time.monotonic() + seconds

    async def ask() -> None:
        nonlocal done
        while time.monotonic() < end:
            await call()
            done += 1

    began, before = time.monotonic(), time.process_time()
    await asyncio.gather(*(ask() for _ in range(callers)))
    return (time.process_time() - before) / done * 1e6, done / (time.monotonic() - began)


async def hand_over(rounds: int, seconds: float) -> Figures:
    """Two workers, two callers, a task that does nothing; in turns."""
    metrics = Metrics()
    offload = Offload(pool_for("process", 2, 0, metrics), metrics)
    await offload.start()
    loop = asyncio.get_running_loop()
    rows: dict[str, list[float]] = {"executor": [], "offloop": []}
    with ProcessPoolExecutor(2, mp_context=get_context("forkserver")) as pool:
        calls: dict[str, Call] = {
            "executor": lambda: loop.run_in_executor(pool, divmod, 7, 2),
            "offloop": lambda: offload.submit(divmod, 7, 2),
        }
        for call in calls.values():
            await cost(call, 2, 0.2)
        for _ in range(rounds):
            for name, call in calls.items():
                rows[name].append((await cost(call, 2, seconds))[0])
    await offload.stop()
    return {f"{name}: us per task": round(median(found), 1) for name, found in rows.items()}


async def feed(lanes: int, seconds: float) -> Figures:
    """As many callers as there are workers, each of which sleeps 4 ms for a task."""
    metrics = Metrics()
    offload = Offload(pool_for("process", lanes, 0, metrics), metrics, Admission(lanes, seconds=WORK_SECONDS))
    await offload.start()
    us, rate = await cost(lambda: offload.submit(time.sleep, WORK_SECONDS), 2 * lanes, seconds)
    await offload.stop()
    return {
        "lanes": lanes,
        "tasks per second": round(rate),
        "possible": round(lanes / WORK_SECONDS),
        "us per task": round(us, 1),
        "ceiling per second": round(1e6 / us),
        "cores of 4 ms work at the ceiling": round(1e6 / us * WORK_SECONDS, 1),
    }


def requests(lanes: int, seconds: float, folder: Path) -> Figures:
    """The same through HTTP, with and without a connection for each request."""
    flags = ("--work", "tests.work:sleeps_4_ms", "--workers", str(lanes), "--queue-wait", "off")
    found: Figures = {}
    with service(folder / "log", *flags) as child:
        address, _ = child.ready()
        for name, header in (
            ("connection kept", []),
            ("connection per request", ["-H", "Connection: close"]),
        ):
            before, began = cpu_seconds(child.process.pid), time.monotonic()
            command = ["wrk", "-t", "1", "-c", str(2 * lanes), "-d", f"{seconds:g}s", *header]
            code, said = run([*command, f"{address}/data"], folder)
            assert code == 0, said
            matched = re.search(r"(\d+) requests in", said)
            assert matched, said
            assert "Non-2xx" not in said, said
            count = int(matched.group(1))
            us = (cpu_seconds(child.process.pid) - before) / count * 1e6
            found[name] = {
                "requests per second": round(count / (time.monotonic() - began)),
                "us per request": round(us),
                "ceiling per second": round(1e6 / us),
                "cores of 4 ms work at the ceiling": round(1e6 / us * WORK_SECONDS, 1),
            }
        assert child.end() == 0
    return found


def main() -> int:
    """Run in full and keep the figures."""
    with (
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        tempfile.TemporaryDirectory() as folder,
    ):
        print("hand-over ...", file=sys.stderr, flush=True)
        figures = {"hand-over": runner.run(hand_over(7, 2))}
        print(f"{LANES} lanes ...", file=sys.stderr, flush=True)
        figures["tasks alone"] = runner.run(feed(LANES, 10))
        print("whole requests ...", file=sys.stderr, flush=True)
        figures["whole requests"] = requests(LANES, 10, Path(folder))
    print(figures)
    keep("hand-over", "make hand-over", figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
