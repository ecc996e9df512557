"""The fork server that dies, hangs or cannot be reached: lost workers come back, and probes say when not."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from tests.proofs import io_processes
from tests.support.child import Child, service
from tests.support.processes import argv, children, gone
from tests.support.waiting import until

SMALL = ("--work-units", "10", "--workers", "2")


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The user's run directory: a short name, for a socket's has room for 108 bytes."""
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        yield Path(folder)


def fork_server(parent: int) -> int:
    """The pid of a service's fork server."""
    (pid,) = [
        pid for pid in children(parent) if any("multiprocessing.forkserver" in word for word in argv(pid))
    ]
    return pid


def status(url: str) -> int:
    """What the service answers; 0: nothing within five seconds."""
    try:
        with urlopen(url, timeout=5) as answer:
            return int(answer.status)
    except HTTPError as error:
        error.close()
        return error.code
    except TimeoutError:
        return 0


def kill_workers(child: Child) -> None:
    """SIGKILL to all that the fork server has forked."""
    for pid in children(fork_server(child.process.pid)):
        with suppress(ProcessLookupError):  # the executor kills the second when the first is gone
            os.kill(pid, signal.SIGKILL)


def without_socket(child: Child, runtime: Path) -> None:  # noqa: ARG001  # all faults are called alike
    (socket,) = runtime.glob("*/listener-*")
    socket.unlink()


def without_directory(child: Child, runtime: Path) -> None:  # noqa: ARG001
    shutil.rmtree(runtime)  # what happens when the user's last session ends


def killed(child: Child, runtime: Path) -> None:  # noqa: ARG001
    os.kill(fork_server(child.process.pid), signal.SIGKILL)


def stopped(child: Child, runtime: Path) -> None:  # noqa: ARG001
    os.kill(fork_server(child.process.pid), signal.SIGSTOP)


@pytest.mark.parametrize("offload", ["process", "executor"])
@pytest.mark.parametrize("fault", [without_socket, without_directory, killed, stopped])
def test_lost_workers_come_back(
    tmp_path: Path, runtime: Path, offload: str, fault: Callable[[Child, Path], None]
) -> None:
    with service(tmp_path / "log", *SMALL, "--offload", offload) as child:
        address, admin = child.ready()
        workers = children(fork_server(child.process.pid))
        fault(child, runtime)
        for pid in workers:
            with suppress(ProcessLookupError):  # the executor has killed it
                os.kill(pid, signal.SIGKILL)
        assert status(f"{address}/readyz"), "the loop turns while nobody answers its fork server"
        child.wait_until(lambda: status(f"{address}/data") == 200, 60)
        assert status(f"{admin}/healthz") == 200
        assert fork_server(child.process.pid) > 0, "and there is one"
        assert child.end() == 0
        assert gone(child.process.pid)


def test_the_socket_has_a_directory_of_its_own_that_goes_with_the_service(
    tmp_path: Path, runtime: Path
) -> None:
    with service(tmp_path / "log", *SMALL) as child:
        child.ready()
        assert len(list(runtime.glob("offloop-*/listener-*"))) == 1
        assert child.end() == 0
        assert not list(runtime.iterdir())


def test_it_goes_with_a_service_that_a_thread_kept_from_its_exit(tmp_path: Path, runtime: Path) -> None:
    with service(tmp_path / "log", *SMALL[2:], "--app", "tests.work:lingering_application") as child:
        child.ready()
        assert len(list(runtime.iterdir())) == 1
        assert child.end() == 0
        assert not list(runtime.iterdir())


def test_it_goes_with_an_io_process_whose_drain_takes_too_long(tmp_path: Path, runtime: Path) -> None:
    flags = {"work": "tests.work:spins", "drain_timeout": "0.5"}
    with io_processes.gunicorn(tmp_path / "log", **flags) as child:
        child.ready()
        assert len(list(runtime.iterdir())) == 2
        with child.connect() as client:
            client.sendall(b"GET /data?seconds=20 HTTP/1.1\r\nHost: t\r\n\r\n")
            child.wait_until(lambda: child.scrape()["offload_running"] == 1)
            assert child.end() == 0
        until(lambda: not list(runtime.iterdir()), "the directories are removed", 10)
    assert any(line["abandoned"] for line in child.events("stopped")), "else it was no forced end"


def test_what_a_killed_service_leaves_goes_with_the_next_start(tmp_path: Path, runtime: Path) -> None:
    with service(tmp_path / "log", *SMALL) as child:
        child.ready()
        (left,) = runtime.iterdir()
        assert child.end(signal.SIGKILL) == -signal.SIGKILL
    assert left.exists()
    with service(tmp_path / "log", *SMALL) as child:
        child.ready()
        (held,) = runtime.iterdir()
        assert held != left
        with service(tmp_path / "other", *SMALL) as other:
            other.ready()
            assert held.exists()
            assert other.end() == 0
        assert list(runtime.iterdir()) == [held]
        assert child.end() == 0


def test_each_io_process_has_one_of_its_own(tmp_path: Path, runtime: Path) -> None:
    with io_processes.gunicorn(tmp_path / "log", workers="2") as child:
        child.ready()
        assert len(list(runtime.glob("offloop-*/listener-*"))) == 2
        assert child.end() == 0
        until(lambda: not list(runtime.iterdir()), "the directories are removed", 10)


FRAGILE = """
import multiprocessing, os, pathlib
if multiprocessing.parent_process() and pathlib.Path(__file__).with_name("broken").exists():
    os._exit(1)
def work() -> bytes:
    return b"{}"
"""


@pytest.mark.parametrize("offload", ["process", "executor"])
def test_a_service_that_cannot_start_workers_any_more_asks_for_a_restart(
    tmp_path: Path, offload: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fragile.py").write_text(FRAGILE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    flags = ("--work", "fragile:work", "--workers", "2", "--offload", offload)
    with service(tmp_path / "log", *flags) as child:
        address, admin = child.ready()
        (tmp_path / "broken").touch()
        kill_workers(child)
        child.wait_until(lambda: status(f"{admin}/healthz") == 503, 60)
        with pytest.raises(HTTPError) as refused:
            urlopen(f"{admin}/healthz")
        assert refused.value.read() == b"no worker can be started\n"
        (tmp_path / "broken").unlink()
        child.wait_until(lambda: status(f"{admin}/healthz") == 200, 60)
        child.wait_until(lambda: status(f"{address}/data") == 200, 60)
        assert child.end() == 0
