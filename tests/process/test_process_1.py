"""The service as process 1 of a PID namespace, as in its container."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import psutil
import pytest

from service.lifecycle.control import ONE_STOP_SECONDS
from tests.support.child import ALONE, Child, service
from tests.support.processes import children, gone
from tests.support.tools import need
from tests.support.waiting import until


@contextmanager
def process_1(log: Path, *flags: str, **more: Any) -> Iterator[tuple[Child, int]]:
    """The service, and the pid of process 1 seen from outside."""
    need("unshare", "util-linux")
    if subprocess.run([*ALONE, "true"], check=False, capture_output=True, timeout=10).returncode:
        pytest.skip("this machine lets nobody make a PID namespace")
    with service(log, *flags, before=ALONE, **more) as child:
        yield child, until(lambda: next(iter(children(child.process.pid)), 0), "unshare forks")


def zombies(parent: int) -> list[int]:
    """Children that have ended and that nobody has waited for."""
    found = []
    for process in psutil.Process(parent).children():
        with suppress(psutil.NoSuchProcess):  # it has been buried since it was listed
            if process.status() == psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found


def test_it_buries_what_its_workers_leave_behind(tmp_path: Path) -> None:
    # Two workers: the second request meets one that is up, and not the replacement of the first.
    flags = ("--work", "tests.work:starts_a_process", "--workers", "2", "--deadline", "2")
    with process_1(tmp_path / "log", *flags) as (child, first):
        address, _ = child.ready()
        for number in range(2):
            with pytest.raises(HTTPError, match="504"):
                urlopen(f"{address}/data?where={tmp_path}/started-{number}&then=stays")
            assert (tmp_path / f"started-{number}").exists()
        child.wait_until(lambda: len(child.events("worker lost")) == 2)
        until(lambda: not zombies(first), lambda: f"zombies: {zombies(first)}", 10)
        os.kill(first, signal.SIGTERM)
        assert child.process.wait(30) == 0
        assert child.events("stopped")
        assert gone(child.process.pid)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 1), (signal.SIGINT, 1), (signal.SIGQUIT, 131)])
def test_a_second_signal_ends_it_at_once(tmp_path: Path, number: signal.Signals, code: int) -> None:
    with process_1(tmp_path / "log", "--work-units", "10", "--drain-notice", "600") as (child, first):
        child.ready()
        os.kill(first, signal.SIGTERM)
        child.wait_until(lambda: child.events("notice"))
        heard = time.monotonic()
        until(lambda: time.monotonic() - heard > ONE_STOP_SECONDS, "a second signal is no repetition")
        os.kill(first, number)
        assert child.process.wait(30) == code
        assert gone(child.process.pid)


def test_a_signal_during_the_start_is_heard(tmp_path: Path) -> None:
    with process_1(tmp_path / "log", "--work", "tests.work:sleeps_for_a_minute") as (child, first):
        service_itself = until(lambda: next(iter(children(first)), 0), "process 1 forks")
        assert service_itself
        os.kill(first, signal.SIGTERM)
        assert child.process.wait(30) == 0
        assert not child.events("ready")


@pytest.mark.parametrize("which", ["the service", "process 1"])
def test_neither_outlives_the_other(tmp_path: Path, which: str) -> None:
    with process_1(tmp_path / "log", "--work-units", "10") as (child, first):
        child.ready()
        (service_itself,) = children(first)
        os.kill(service_itself if which == "the service" else first, signal.SIGKILL)
        code = child.process.wait(30)
        assert gone(child.process.pid)
        if which == "the service":  # what unshare makes of the end of process 1 is no matter of ours
            assert code == 128 + signal.SIGKILL


def test_a_socket_that_process_1_is_handed_is_the_services(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with process_1(tmp_path / "log", "--work-units", "10", listener=listener) as (child, first):
            assert child.ready()[0] == f"http://127.0.0.1:{port}"
            os.kill(first, signal.SIGTERM)
            assert child.process.wait(30) == 0
