"""A log that has no reader and a file that cannot be read stop neither requests nor probes nor signals."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from metrics.exposition import parse
from tests.proofs.io_processes import PROCESSES, free_port, gunicorn
from tests.support import ROOT
from tests.support.child import service
from tests.support.processes import children, gone
from tests.support.unread import Log, unread
from tests.support.waiting import until

pytestmark = pytest.mark.skipif(not hasattr(fcntl, "F_SETPIPE_SZ"), reason="needs Linux's small pipes")

REQUESTS = 100  # some 28,000 bytes of request log: a pipe here holds 4096
DROPPED = "log_lines_dropped_total"


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    with unread(tmp_path / "log") as reader:
        yield reader


def get(url: str) -> str:
    with urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())


def status(url: str) -> int:
    try:
        with urlopen(url, timeout=10) as answer:
            return int(answer.status)
    except HTTPError as error:
        with error:
            return error.code


def is_up(url: str) -> bool:
    try:
        return status(url) == 200
    except OSError:  # it does not listen yet
        return False


def test_a_full_pipe_stops_neither_requests_nor_probes_nor_a_drain(tmp_path: Path, log: Log) -> None:
    flags = ("--offload", "inline", "--work-units", "10", "--request-log", "1")
    with service(tmp_path / "log", *flags) as child:
        ready = log.line("ready")
        for _ in range(REQUESTS):
            assert "Downing" in get(f"{ready['address']}/data")
        assert get(f"{ready['admin']}/healthz") == "ok\n"
        assert get(f"{ready['admin']}/readyz") == "serving\n"
        assert child.end() == 0
        assert gone(child.process.pid)


def test_a_second_signal_ends_it_at_once_though_its_last_lines_have_no_reader(
    tmp_path: Path, log: Log
) -> None:
    flags = ("--offload", "inline", "--work-units", "10", "--request-log", "1", "--drain-notice", "60")
    with service(tmp_path / "log", *flags) as child:
        ready = log.line("ready")
        for _ in range(REQUESTS):
            get(f"{ready['address']}/data")
        child.process.send_signal(signal.SIGTERM)
        until(lambda: status(f"{ready['admin']}/readyz") == 503)

        def is_forced() -> bool:  # again and again: two orders within ONE_STOP_SECONDS are one
            child.process.send_signal(signal.SIGTERM)
            return child.process.poll() is not None

        until(is_forced)
        assert child.process.wait() == 1


def test_a_probe_that_logs_answers_into_a_full_pipe_too(tmp_path: Path, log: Log) -> None:
    flags = ("--app", "tests.work:blocking_application", "--request-log", "1", "--loop-stall", "0.3")
    with service(tmp_path / "log", *flags) as child:
        ready = log.line("ready")
        for _ in range(REQUESTS):
            get(f"{ready['address']}/block?seconds=0")
        client = threading.Thread(target=get, args=(f"{ready['address']}/block?seconds=3",))
        client.start()
        until(lambda: status(f"{ready['admin']}/healthz") == 503, "/healthz says that the loop stands")
        client.join()
        assert child.end() == 0


def test_what_does_not_fit_is_dropped_counted_and_told(tmp_path: Path, log: Log) -> None:
    with service(tmp_path / "log", "--app", "tests.work:talkative_application") as child:
        ready = log.line("ready")
        for _ in range(30):  # 3 MB
            get(f"{ready['address']}/say?length=100000")
        dropped = parse(get(f"{ready['admin']}/metrics"))[DROPPED]
        assert dropped > 0
        assert log.line("said")["number"] == 0  # in order, and from the first
        told = until(lambda: (status(f"{ready['address']}/say?length=1"), log.next("log lines dropped"))[1])
        assert told["lines"] == told["total"] == dropped
        assert parse(get(f"{ready['admin']}/metrics"))[DROPPED] == dropped
        child.process.send_signal(signal.SIGTERM)
        log.line("stopped")
        assert child.process.wait(30) == 0


def test_a_service_that_was_started_with_its_log_closed_serves_and_drains() -> None:
    address, admin = (f"127.0.0.1:{free_port()}" for _ in range(2))
    flags = (
        "--port",
        address.partition(":")[2],
        "--admin-port",
        admin.partition(":")[2],
        "--work-units",
        "1",
    )
    command = ["sh", "-c", 'exec "$@" 2>&-', "sh", sys.executable, "-m", "service", *flags]
    with subprocess.Popen([*command, "--request-log", "1"], cwd=ROOT, start_new_session=True) as child:
        try:
            until(lambda: is_up(f"http://{admin}/readyz") or child.poll() is not None)
            assert "Downing" in get(f"http://{address}/data")
        finally:
            child.terminate()
        assert child.wait(30) == 0
        assert gone(child.pid)


def test_under_gunicorn_too_and_its_arbiter_obeys(tmp_path: Path, log: Log) -> None:
    with gunicorn(tmp_path / "log", request_log="1") as child:
        admin = log.line("exporter ready")["admin"]
        _, ready = (log.line("ready") for _ in range(PROCESSES))
        for _ in range(REQUESTS):
            assert "Downing" in get(f"{ready['address']}/data")
        before = children(child.arbiter)
        os.kill(child.arbiter, signal.SIGHUP)
        until(lambda: len(children(child.arbiter) - before) == PROCESSES, "new IO processes")
        until(lambda: len(children(child.arbiter)) == PROCESSES + 1, "and the old ones gone")
        # The arbiter's, which has no buffer and tells the metric once a second.
        until(lambda: parse(get(f"{admin}/metrics"))[DROPPED] > 0)
        assert "Downing" in get(f"{ready['address']}/data")
        assert child.end() == 0
        assert gone(child.process.pid)


def test_a_configuration_that_cannot_be_read_now_stops_nothing_but_its_reload(tmp_path: Path) -> None:
    stalled = tmp_path / "settings.toml"
    stalled.write_text("max_connections = 50\n")
    flags = ("--offload", "inline", "--work-units", "10", "--config", str(stalled))
    with service(tmp_path / "log", *flags) as child:
        address, admin = child.ready()
        stalled.unlink()
        os.mkfifo(stalled)  # opening it takes as long as on a disk that does not answer
        child.process.send_signal(signal.SIGHUP)
        with stalled.open("w") as file:  # it has begun to read
            for _ in range(3):
                assert "Downing" in get(f"{address}/data")
            file.write("max_connections = 70\n")
        child.wait_until(lambda: child.events("reloaded"))
        assert parse(get(f"{admin}/metrics"))["http_connections_limit"] == 70
        assert child.end() == 0


def test_a_certificate_that_cannot_be_read_at_start_leaves_signals_heard(tmp_path: Path) -> None:
    stalled = tmp_path / "cert.pem"
    os.mkfifo(stalled)
    with service(tmp_path / "log", "--tls-cert", str(stalled), "--tls-key", str(stalled)) as child:
        with stalled.open("w"):  # it has begun to read
            assert child.end() == 0
        assert not child.events("ready")
