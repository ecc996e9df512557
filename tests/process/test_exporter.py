"""The exporter is a process that may die or hang: it comes back, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from service.folder import make
from service.multi import exporter_process
from service.multi.exporter_process import SILENT_TICKS, ExporterProcess
from tests.proofs import io_processes
from tests.proofs.io_processes import ACCEPTED, Gunicorn
from tests.support.processes import argv, children, gone, is_alive, stop
from tests.support.waiting import until

Logged = Callable[[], list[dict[str, Any]]]


def exporter_of(child: Gunicorn) -> int:
    (pid,) = (pid for pid in children(child.arbiter) if "service.multi.exporter" in argv(pid))
    return pid


def test_an_exporter_that_was_killed_is_back_by_itself_and_its_counters_go_on(tmp_path: Path) -> None:
    with io_processes.gunicorn(tmp_path / "log") as child:
        address, _ = child.ready()
        with urlopen(f"{address}/data") as answer:
            assert answer.status == 200
        before = child.scrape()[ACCEPTED]
        folder = child.folder()
        io = child.io_processes()
        for times in (1, 2):
            os.kill(exporter_of(child), signal.SIGKILL)
            child.wait_until(lambda times=times: len(child.events("exporter ready")) == times + 1)
            assert child.scrape()[ACCEPTED] >= before
        assert [line["reason"] for line in child.events("exporter lost")] == ["it has ended"] * 2
        assert child.io_processes() == io
        assert child.end() == 0
        assert gone(child.process.pid)
        assert not folder.exists()


def test_an_exporter_that_is_killed_as_gunicorn_ends_leaves_nothing(tmp_path: Path) -> None:
    with io_processes.gunicorn(tmp_path / "log") as child:
        child.ready()
        folder = child.folder()
        os.kill(child.arbiter, signal.SIGSTOP)  # so that no other takes its place
        os.kill(exporter_of(child), signal.SIGKILL)
        os.kill(child.arbiter, signal.SIGTERM)
        os.kill(child.arbiter, signal.SIGCONT)
        assert child.process.wait(30) == 0
        assert gone(child.process.pid)
        assert not folder.exists()


def test_a_start_whose_admin_port_is_taken_leaves_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with io_processes.gunicorn(tmp_path / "log", admin_port=port) as child:
            assert child.process.wait(30) == 1
            assert gone(child.process.pid)
        assert child.events("cannot bind the admin address")
    assert not list(tmp_path.glob("*offloop*"))


def test_what_is_left_when_all_are_killed_goes_with_the_next_start(tmp_path: Path) -> None:
    with io_processes.gunicorn(tmp_path / "log") as child:
        child.ready()
        left = child.folder()
        for pid in child.session():
            os.kill(pid, signal.SIGSTOP)
    assert left.exists()
    with io_processes.gunicorn(tmp_path / "log") as child:
        child.ready()
        assert not left.exists()
        held = child.folder()
        with io_processes.gunicorn(tmp_path / "other") as other:
            other.ready()
            assert held.exists()
            assert child.scrape()[ACCEPTED] == 0
            assert other.end() == 0
        assert held.exists()
        assert child.end() == 0
    assert not list(tmp_path.glob("*offloop*"))


def test_io_processes_whose_loop_has_stalled_are_not_ready(tmp_path: Path) -> None:
    with io_processes.gunicorn(tmp_path / "log", loop_stall="0.1") as child:
        _, admin = child.ready()

        def readiness() -> tuple[int, str]:
            try:
                with urlopen(f"{admin}/readyz") as answer:
                    return answer.status, answer.read().decode()
            except HTTPError as refusal:
                with refusal:
                    return refusal.code, refusal.read().decode()

        def one_has_stalled() -> bool:
            """Whether one answer says that, and that the other serves: that may stall for a moment, too."""
            code, said = readiness()
            return code == 200 and "the event loop has not turned for " in said

        child.wait_until(lambda: readiness() == (200, "serving, serving\n"))
        one, other = child.io_processes()
        os.kill(one, signal.SIGSTOP)
        child.wait_until(one_has_stalled)
        os.kill(other, signal.SIGSTOP)
        child.wait_until(lambda: readiness()[0] == 503)
        with urlopen(f"{admin}/healthz") as answer:
            assert answer.status == 200, "the exporter itself is well"
        for pid in (one, other):
            os.kill(pid, signal.SIGCONT)
        child.wait_until(lambda: readiness() == (200, "serving, serving\n"))
        assert child.end() == 0


@pytest.fixture
def exporter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ExporterProcess]:
    """One in the hands of the test, which is its arbiter."""
    monkeypatch.setenv("SERVICE_ADMIN_PORT", "0")
    folder = make(tmp_path, "offloop-metrics-", os.getuid(), os.getgid())
    made = ExporterProcess(folder.path)
    yield made
    folder.release()
    made.stop()
    os.close(made._read_end)


def pid_of(exporter: ExporterProcess) -> int:
    assert exporter._process is not None
    return exporter._process.pid


def has_ended(exporter: ExporterProcess) -> bool:
    """Whether a tick has found that it has."""
    exporter.tick()
    return exporter._process is None


def test_one_that_hangs_is_killed_and_another_takes_its_place(exporter: ExporterProcess) -> None:
    assert exporter.start()
    hanging = pid_of(exporter)
    stop(hanging)
    while exporter._silent_ticks < SILENT_TICKS - 1:  # what it said before may be in the pipe
        exporter.tick()
    assert is_alive(hanging)
    exporter.tick()
    until(lambda: not is_alive(hanging))
    until(lambda: has_ended(exporter))
    exporter.tick()
    assert pid_of(exporter) != hanging
    until(lambda: "was killed" in " ".join(argv(pid_of(exporter))))


def test_the_first_that_hangs_at_its_start_is_killed(
    exporter: ExporterProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: Logged
) -> None:
    os.mkfifo(tmp_path / "settings.toml")  # opening it takes as long as on a disk that does not answer
    monkeypatch.setenv("SERVICE_CONFIG", str(tmp_path / "settings.toml"))
    monkeypatch.setattr(exporter_process, "START_SECONDS", 0.2)
    assert not exporter.start()
    until(lambda: not is_alive(pid_of(exporter)))
    (line,) = logged()
    assert (line["event"], line["reason"]) == ("exporter lost", "it said nothing for 0.2 s, and was killed")


def test_one_that_cannot_start_is_tried_again_and_later_each_time(
    exporter: ExporterProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert exporter.start()
    monkeypatch.setenv("SERVICE_ADMIN_PORT", "none")
    os.kill(pid_of(exporter), signal.SIGKILL)
    waited = []
    for _ in range(4):
        until(lambda: has_ended(exporter))
        waited.append(0)
        while exporter._process is None:
            exporter.tick()
            waited[-1] += 1
    assert waited == [1, 1, 2, 4]
