"""A real service on real loopback sockets, in the test's own loop, and a certificate."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from service.app import data
from service.config.settings import Settings
from service.lifecycle.service import Service
from service.lifecycle.states import State
from service.offload import admission
from tests import work
from tests.support.running import Routes, Running, Start
from tests.support.waiting import eventually


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Starts services; afterwards stops each and checks that its book adds up and every permit is back."""
    running: list[Running] = []

    async def _start(listener: socket.socket | None = None, **changes: object) -> Running:
        defaults: dict[str, object] = {"port": 0, "admin_port": 0, "work_units": 10, "offload": "inline"}
        service = Service(Settings.model_validate(defaults | changes), listener=listener)
        await service.start()
        running.append(Running(service))
        return running[-1]

    yield _start
    for one in running:
        if one.service.life.state is State.SERVING:
            await one.service.stop()
        book = one.service.metrics.connections.snapshot()
        assert book.active == 0
        assert book.accepted == sum(book.completed.values())
        assert one.service.parts.connection_limit.held == 0
    # What aiohttp still reads of a body ends by itself.
    await eventually(lambda: not asyncio.all_tasks() - {asyncio.current_task()}, "every task has ended")


@pytest.fixture
def gate(start: Start, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:  # noqa: ARG001  # open before the drain
    """Work that waits at the gate, open at the end, whatever happens; what waits is in the queue."""
    monkeypatch.setattr(admission, "AHEAD_SECONDS", 0)
    work.gate.clear()
    yield
    work.gate.set()


@pytest.fixture
def routes(monkeypatch: pytest.MonkeyPatch) -> Routes:
    """Adds routes to the application of a service that is started afterwards."""
    build = data.data_app
    added: list[tuple[str, Any]] = []

    def build_with_more(*arguments: Any) -> web.Application:
        made = build(*arguments)
        for path, handler in added:
            made.router.add_route("*", path, handler)
        return made

    monkeypatch.setattr(data, "data_app", build_with_more)
    return lambda path, handler: added.append((path, handler))


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for localhost that nobody has signed."""
    if (openssl := shutil.which("openssl")) is None:
        pytest.skip("needs the openssl command")
    path = tmp_path / "both.pem"
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-keyout", path, "-out", tmp_path / "cert.pem"],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    path.write_bytes(path.read_bytes() + (tmp_path / "cert.pem").read_bytes())
    return path
