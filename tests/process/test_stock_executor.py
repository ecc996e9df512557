"""Work in a `ProcessPoolExecutor` as it comes, with its real processes: what dies, hangs and forks there."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from metrics.instruments import Metrics
from service.offload.errors import (
    ExpiredError,
    WorkerStartError,
)
from service.offload.offload import Offload
from service.offload.stock_executor import StockExecutor
from service.offload.strategies import pool_for
from tests import work
from tests.support.processes import stop
from tests.support.waiting import eventually


@pytest.fixture
async def real() -> AsyncIterator[tuple[Offload, Metrics]]:
    metrics = Metrics()
    offload = Offload(pool_for("executor", 2, 3, metrics), metrics)
    await offload.start(divmod, 7, 2)
    yield offload, metrics
    await offload.stop(1)


async def begun(path: Path, number: int) -> list[int]:
    """The pids that `work.waits_for` has written, once there are so many."""

    def pids() -> list[int]:
        return [int(text) for file in path.glob("begun-*") if (text := file.read_text())]

    await eventually(lambda: len(pids()) >= number, f"{number} tasks have begun")
    return pids()


def waiting(offload: Offload, path: Path, *names: str, **more: Any) -> list[asyncio.Task[int]]:
    return [
        asyncio.create_task(
            offload.submit(work.waits_for, str(path / f"begun-{name}"), str(path / "go"), **more)
        )
        for name in names
    ]


async def test_all_workers_are_up_before_the_first_request_and_are_workers_as_others(
    real: tuple[Offload, Metrics], tmp_path: Path
) -> None:
    offload, _ = real
    up = {child.pid for child in multiprocessing.active_children()}
    assert len(up) == 2
    callers = waiting(offload, tmp_path, "a", "b")
    pids = set(await begun(tmp_path, 2))
    assert pids == up
    for pid in pids:
        assert os.getpriority(os.PRIO_PROCESS, pid) == os.getpriority(os.PRIO_PROCESS, 0) + 3
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(pid, number)
    (tmp_path / "go").touch()
    assert set(await asyncio.gather(*callers)) == pids


async def test_one_killed_worker_breaks_all_and_every_request_is_answered(
    real: tuple[Offload, Metrics], tmp_path: Path
) -> None:
    offload, metrics = real
    callers = waiting(offload, tmp_path, "a", "b", "c")
    pids = await begun(tmp_path, 2)
    stop(pids[0])  # it cannot be done before it is killed
    (tmp_path / "go").touch()
    os.kill(pids[0], signal.SIGKILL)
    answers = await asyncio.gather(*callers)
    assert pids[0] not in answers
    assert crashed(metrics) == 2


async def test_a_deadline_kills_nobody(real: tuple[Offload, Metrics], tmp_path: Path) -> None:
    offload, metrics = real
    callers = waiting(offload, tmp_path, "a", "b", deadline=0.5)
    pids = await begun(tmp_path, 2)
    for caller in callers:
        with pytest.raises(ExpiredError):
            await caller
    assert offload.running == 2
    (tmp_path / "go").touch()
    assert await offload.submit(os.getpid) in pids
    cpu = metrics.registry.get_sample_value("offload_task_cpu_seconds_count")
    assert cpu is not None
    assert cpu >= 2


def crashed(metrics: Metrics) -> float | None:
    return metrics.registry.get_sample_value("offload_worker_restarts_total", {"reason": "crashed"})


async def test_a_worker_killed_while_it_sends_a_result_holds_nobody_up(
    real: tuple[Offload, Metrics], tmp_path: Path
) -> None:
    offload, metrics = real
    async with asyncio.timeout(20):
        answer = await offload.submit(work.dies_in_its_answer, str(tmp_path / "died"))
    assert answer == bytes(100_000)
    assert crashed(metrics) == 2


async def test_a_worker_killed_in_its_start_is_an_error_and_not_a_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    all_here = StockExecutor._all_here

    async def kill_the_last(self: StockExecutor, *what: Any) -> None:
        self._context.processes[-1].kill()
        await all_here(self, *what)

    monkeypatch.setattr(StockExecutor, "_all_here", kill_the_last)
    metrics = Metrics()
    offload = Offload(pool_for("executor", 2, 0, metrics), metrics)
    with pytest.raises(WorkerStartError, match="terminated abruptly"):
        async with asyncio.timeout(10):
            await offload.start(divmod, 7, 2)
    await offload.stop()


async def test_what_runs_at_the_stop_may_finish(tmp_path: Path) -> None:
    metrics = Metrics()
    offload = Offload(pool_for("executor", 2, 0, metrics), metrics)
    await offload.start()
    callers = waiting(offload, tmp_path, "a", "b")
    await begun(tmp_path, 2)
    stopping = asyncio.create_task(offload.stop(20))
    await asyncio.sleep(0)
    (tmp_path / "go").touch()
    assert await stopping == 0
    assert len(set(await asyncio.gather(*callers))) == 2


async def test_a_fork_that_comes_back_out_of_the_work_takes_no_task(real: tuple[Offload, Metrics]) -> None:
    offload, _ = real
    pids = {child.pid for child in multiprocessing.active_children()}
    pid, _ = await offload.submit(work.forks, False)
    assert pid in pids
    for _ in range(20):
        assert await offload.submit(os.getpid) in pids


async def test_a_start_that_one_worker_does_not_survive_fails_with_a_sentence() -> None:
    metrics = Metrics()
    offload = Offload(pool_for("executor", 2, 0, metrics), metrics)
    with pytest.raises(WorkerStartError, match="no executor worker could be started"):
        await offload.start(divmod, work.DiesAtOnce(), try_out=False)
    await offload.stop()
