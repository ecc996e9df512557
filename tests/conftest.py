"""What every test gets: both event loops, and the promise that nothing is left behind."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import logging
import multiprocessing
import os
import socket
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import structlog
import uvloop
from hypothesis import settings

from service.log.setup import configure_logging
from service.offload.process_lane import worker_process

# By default an example may take 200 ms, which on a busy machine says nothing about the code.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

LoopFactory = Callable[[], asyncio.AbstractEventLoop]
Logged = Callable[[], list[dict[str, Any]]]


def pytest_asyncio_loop_factories() -> Mapping[str, LoopFactory]:
    """Every asynchronous test runs on both loops that the service offers."""
    return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With OFFLOOP_STRICT set, a test that is skipped has failed: CI may not be green by absence."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("OFFLOOP_STRICT"):
        report.outcome = "failed"
        report.longrepr = f"skipped although OFFLOOP_STRICT is set: {report.longrepr}"
    return report


@pytest.fixture(scope="session", autouse=True)
def fork_server() -> None:
    """Start multiprocessing's helpers and libuv's signal pipe once: they stay until the session ends.

    What was imported until now stays as well: frozen, it costs the collection after each test nothing.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.sleep(0))
    ours, theirs = socket.socketpair()
    with ours, theirs, worker_process(theirs) as pool:
        pool.submit(os.getpid).result()
    gc.collect()
    gc.freeze()


def open_files() -> dict[str, str]:
    """Descriptor number -> what it is, for this process; empty where /proc is missing."""
    found = {}
    for entry in Path("/proc/self/fd").glob("*"):
        try:
            found[entry.name] = str(entry.readlink())
        except OSError:  # the descriptor of this very listing
            continue
    return found


@pytest.fixture(autouse=True)
def nothing_left(fork_server: None) -> Iterator[None]:  # noqa: ARG001  # only its having run matters
    """No descriptor, thread or child process survives a test."""
    files, threads = set(open_files().items()), set(threading.enumerate())
    yield
    gc.collect()
    assert not multiprocessing.active_children()
    for thread in set(threading.enumerate()) - threads:
        thread.join(20)  # one that has said all it had to say may still be about to end
    assert not [thread.name for thread in threading.enumerate() if thread not in threads]
    left = set(open_files().items()) - files
    assert not [kind for _, kind in left if "socket" in kind or "pipe" in kind or kind == os.devnull]
    gc.freeze()  # what is still there (imports, caches) is there to stay: no later collection looks at it


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> Iterator[Logged]:
    """Logs as the command writes them; returns all lines so far. What follows logs as it did before."""
    root, written = logging.getLogger(), io.StringIO()
    level = root.level
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", written)
        configure_logging("json")
    structlog.configure(cache_logger_on_first_use=False)  # a logger of a module outlives the test
    yield lambda: [json.loads(line) for line in written.getvalue().splitlines()]
    structlog.reset_defaults()
    for handler in root.handlers[:]:
        if isinstance(handler.formatter, structlog.stdlib.ProcessorFormatter):
            root.removeHandler(handler)
    root.setLevel(level)
