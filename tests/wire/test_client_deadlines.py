"""What a client's own deadline does, and what it cannot do: cost a worker, unless the client is trusted."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.support.running import Running, Start, status_of
from tests.support.waiting import eventually

RESTARTS = "offload_worker_restarts_total{reason=deadline}"


SECONDS = "Request-Timeout: {}"
MILLISECONDS = "x-envoy-expected-rq-timeout-ms: {}"


async def impatient(service: Running, tmp_path: Path, said: str = SECONDS, patience: float = 0.3) -> int:
    """The status for a client that waits for a moment, for work that takes until there is a file."""
    path = f"/data?begun={tmp_path / 'begun'}&go={tmp_path / 'go'}"
    header = said.format(patience if said == SECONDS else round(1000 * patience))
    head = f"GET {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n{header}\r\n\r\n"
    return status_of(await service.exchange(head.encode()))


async def impatient_until_begun(
    service: Running, tmp_path: Path, said: str = SECONDS, most: float = 10.0
) -> tuple[int, float]:
    """Such clients, each with twice the patience, until the work of one has begun; all get 504.

    A worker of low priority may get no core while its client waits, and then leaves the task alone.

    Returns:
        How many there were, and when the last one asked.
    """
    offload = service.service.parts.offload
    begun, clock = tmp_path / "begun", asyncio.get_running_loop().time
    tries, patience = 0, 0.3
    while patience < most:
        tries, asked = tries + 1, clock()
        assert await impatient(service, tmp_path, said, patience) == 504
        await eventually(lambda: begun.exists() or offload.running == 0)
        if begun.exists():
            return tries, asked
        patience *= 2
    pytest.fail(f"of {tries} tasks none has begun")


headers = pytest.mark.parametrize("said", [SECONDS, MILLISECONDS], ids=["seconds", "milliseconds"])


@headers
@pytest.mark.parametrize("trusted", ["none", "10.0.0.0/8,::1"])
async def test_an_impatient_client_costs_no_worker_and_gets_no_second_place(
    start: Start, tmp_path: Path, trusted: str, said: str
) -> None:
    service = await start(
        offload="process", workers=1, work="tests.work:waits_for", trusted_peers=trusted, deadline=60
    )
    offload = service.service.parts.offload
    tries, _ = await impatient_until_begun(service, tmp_path, said)
    worker = await eventually((tmp_path / "begun").read_text)
    assert (offload.running, offload.waiting) == (1, 0), "it goes on, and nobody gets its place"
    assert await impatient(service, tmp_path, said) == 504
    (tmp_path / "begun").unlink()
    (tmp_path / "go").touch()
    await eventually(lambda: offload.running == 0)
    assert not (tmp_path / "begun").exists(), "what had not started when its client gave up never did"
    other = tmp_path / "other"
    assert status_of(await service.get(f"/data?begun={other}&go={tmp_path / 'go'}")) == 200
    assert other.read_text() == worker
    values = await service.scrape()
    assert values[RESTARTS] == 0
    assert values["offload_tasks_total{outcome=expired}"] == tries + 1
    assert values["offload_task_cpu_seconds_count"] == 2


@headers
async def test_a_trusted_client_ends_its_work_with_its_own_deadline(
    start: Start, tmp_path: Path, said: str
) -> None:
    service = await start(
        offload="process", workers=1, work="tests.work:waits_for", trusted_peers="127.0.0.0/8", deadline=600
    )
    await impatient_until_begun(service, tmp_path, said)
    await eventually(lambda: service.service.parts.offload.running == 0)
    await service.shows(RESTARTS)


async def test_the_deadline_of_the_service_ends_work_that_its_client_gave_up(
    start: Start, tmp_path: Path
) -> None:
    service = await start(offload="process", workers=1, work="tests.work:waits_for", deadline=2)
    _, asked = await impatient_until_begun(service, tmp_path, most=2)
    await service.shows(RESTARTS)
    assert asyncio.get_running_loop().time() - asked >= 2, "and not before"
