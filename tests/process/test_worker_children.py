"""What a worker has started ends with the worker, however that ends; as process 1 the service buries it."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from urllib.request import urlopen

import pytest

from metrics.instruments import Metrics
from service.offload.admission import Admission
from service.offload.errors import ExpiredError, WorkerLostError
from service.offload.lane_pool import Recycling
from service.offload.offload import Offload
from service.offload.strategies import Strategy, pool_for
from tests import work
from tests.proofs import io_processes
from tests.support.child import service
from tests.support.processes import gone, is_alive
from tests.support.waiting import eventually, until

processes = pytest.mark.parametrize("strategy", ["process", "executor"])
STARTS = ("--work", "tests.work:starts_a_process", "--workers", "1")

Started = Callable[[], int]


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Started]:
    """The process that the work has started, 0 until it has; ended at the end whatever happens."""
    where = tmp_path / "started"

    def pid() -> int:
        text = where.read_text() if where.exists() else ""
        return int(text) if text.endswith("\n") else 0

    yield pid
    if pid():
        with suppress(ProcessLookupError):
            os.kill(pid(), signal.SIGKILL)


@asynccontextmanager
async def offload(
    strategy: Strategy, recycling: Recycling | None = None, admission: Admission | None = None
) -> AsyncIterator[Offload]:
    metrics = Metrics()
    made = Offload(pool_for(strategy, 1, 0, metrics, recycling), metrics, admission, attempts=1)
    await made.start()
    try:
        yield made
    finally:
        await made.stop(0.05)


async def is_gone(pid: int) -> None:
    assert pid
    await eventually(lambda: not is_alive(pid), f"{pid} outlives its worker")


async def test_it_ends_with_a_worker_that_is_killed_for_a_deadline(tmp_path: Path, started: Started) -> None:
    where = str(tmp_path / "started")
    # However long an import takes, no task is expected to take longer than the first deadline.
    async with offload("process", admission=Admission(1, longest=1)) as made:
        for deadline in (1, 4, 16, 64):  # a busy machine may not have started it when the first has passed
            await made.submit(work.slow, 1)  # the worker is up then, and has imported the module
            with pytest.raises(ExpiredError):
                await made.submit(work.starts_a_process, where, "stays", deadline=deadline)
            if started():
                break
        await is_gone(started())


@processes
async def test_it_ends_with_a_worker_that_dies(tmp_path: Path, started: Started, strategy: Strategy) -> None:
    async with offload(strategy) as made:
        with pytest.raises(WorkerLostError):
            await made.submit(work.starts_a_process, str(tmp_path / "started"), "dies")
        await is_gone(started())


async def test_it_ends_with_a_worker_that_is_recycled(tmp_path: Path, started: Started) -> None:
    async with offload("process", Recycling(tasks=1)) as made:
        assert await made.submit(work.starts_a_process, str(tmp_path / "started"), "returns") == b"{}"
        await is_gone(started())


@processes
@pytest.mark.parametrize("then", ["stays", "returns"])
async def test_it_ends_when_the_workers_stop(
    tmp_path: Path, started: Started, strategy: Strategy, then: str
) -> None:
    async with offload(strategy) as made:
        caller = asyncio.ensure_future(made.submit(work.starts_a_process, str(tmp_path / "started"), then))
        await eventually(started if then == "stays" else caller.done)
    await is_gone(started())
    await asyncio.gather(caller, return_exceptions=True)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@processes
def test_it_ends_with_the_service(
    tmp_path: Path, started: Started, strategy: str, number: signal.Signals
) -> None:
    with service(tmp_path / "log", *STARTS, "--offload", strategy, "--drain-timeout", "0.3") as child:
        asking = ask(child.ready()[0], f"where={tmp_path}/started&then=stays")
        child.wait_until(started)
        child.end(number)
        asking.join()
        until(lambda: not is_alive(started()), "what the work has started outlives the service", 10)
        assert gone(child.process.pid)


@processes
def test_a_worker_that_holds_the_gil_ends_with_a_killed_service(tmp_path: Path, strategy: str) -> None:
    flags = ("--work", "tests.work:holds_the_gil", "--workers", "2", "--offload", strategy)
    with service(tmp_path / "log", *flags) as child:
        asking = ask(child.ready()[0], f"begun={tmp_path}/begun")
        child.wait_until((tmp_path / "begun").exists)
        child.end(signal.SIGKILL)
        asking.join()
        assert gone(child.process.pid)


def test_a_worker_that_holds_the_gil_ends_with_a_killed_io_process(tmp_path: Path) -> None:
    with io_processes.gunicorn(tmp_path / "log", work="tests.work:holds_the_gil", workers="2") as child:
        asking = ask(child.ready()[0], f"begun={tmp_path}/begun")
        child.wait_until((tmp_path / "begun").exists)
        killed = child.io_processes()
        workers = {pid for pid in child.session() if os.getpgid(pid) == pid} - {child.process.pid}
        assert len(workers) == 2
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        asking.join()
        until(lambda: not any(map(is_alive, workers)), "a worker outlives its IO process", 10)


def ask(address: str, query: str) -> threading.Thread:
    """A request whose answer does not matter."""

    def get() -> None:
        with suppress(HTTPException, OSError):
            urlopen(f"{address}/data?{query}").close()

    asking = threading.Thread(target=get)
    asking.start()
    return asking
