"""The command as an operator meets it: one ready line, signals, exit codes, nothing left behind."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.support import ROOT
from tests.support.child import service
from tests.support.processes import gone


def get(url: str) -> bytes:
    with urlopen(url) as answer:
        return bytes(answer.read())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("offload", ["inline", "process", "executor"])
def test_a_signal_ends_it_with_exit_0_and_no_process_left(
    tmp_path: Path, number: signal.Signals, offload: str
) -> None:
    with service(tmp_path / "log", "--offload", offload, "--work-units", "10") as child:
        address, _ = child.ready()
        assert b"Downing" in get(f"{address}/data")
        os.killpg(child.process.pid, number) if number == signal.SIGINT else child.process.send_signal(number)
        assert child.process.wait(30) == 0
        assert gone(child.process.pid)
        (stopped,) = child.events("stopped")
        assert stopped["accepted"] == stopped["completed"] == 1


@pytest.mark.parametrize("offload", ["process", "executor"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_whole_group_still_answers_what_runs(
    tmp_path: Path, number: signal.Signals, offload: str
) -> None:
    flags = ("--offload", offload, "--work", "tests.work:waits_for", "--workers", "2")
    begun, go = [tmp_path / f"begun-{name}" for name in range(2)], tmp_path / "go"
    with service(tmp_path / "log", *flags) as child, ThreadPoolExecutor(2) as clients:
        address, _ = child.ready()
        answers = [clients.submit(get, f"{address}/data?begun={path}&go={go}") for path in begun]
        child.wait_until(lambda: child.scrape()["offload_running"] == 2)
        child.wait_until(lambda: all(path.exists() and path.read_text() for path in begun))
        for pid in child.session():  # as systemd does with a control group
            os.kill(pid, number)
        child.wait_until(lambda: child.events("draining"))  # it has heard the signal, and both still run
        go.touch()
        assert [answer.result() for answer in answers] == [path.read_bytes() for path in begun]
        assert child.process.wait(30) == 0
        assert gone(child.process.pid)


@pytest.mark.parametrize("offload", ["thread", "process", "executor"])
def test_the_drain_timeout_bounds_the_end_and_says_so(
    tmp_path: Path, offload: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TESTS_WORK_SLOW", str(tmp_path / "slow"))
    flags = ("--offload", offload, "--work", "tests.work:slow_when_told", "--work-units", "1")
    with service(tmp_path / "log", *flags, "--drain-timeout", "0.3") as child:
        address, _ = child.ready()
        (tmp_path / "slow").touch()
        with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2]))) as client:
            client.sendall(b"GET /data HTTP/1.1\r\nHost: t\r\n\r\n")
            child.wait_until(lambda: child.scrape()["offload_running"] == 1)
        child.process.send_signal(signal.SIGTERM)
        assert child.process.wait(15) == 1  # the work would take twenty seconds
        assert gone(child.process.pid)


@pytest.mark.skipif(sys.platform != "linux", reason="psutil knows nothing of signals: /proc does")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_the_start_is_heard(tmp_path: Path, number: signal.Signals) -> None:
    with service(tmp_path / "log", "--work", "tests.work:sleeps_for_a_minute") as child:
        child.wait_until(lambda: catches(child.process.pid))
        child.process.send_signal(number)
        assert child.process.wait(30) == 0
        assert not child.events("ready")
        assert gone(child.process.pid)


def catches(pid: int) -> bool:
    """Whether the process has installed its handlers: SIGTERM's is the first that Python does not bring."""
    status = Path(f"/proc/{pid}/status").read_text()
    (mask,) = (int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(mask >> (signal.SIGTERM - 1) & 1)


def test_calibration_is_logged_with_units_and_cost(tmp_path: Path) -> None:
    with service(tmp_path / "log", "--offload", "inline", "--work-ms", "1") as child:
        child.ready()
        (line,) = child.events("work")
        assert line["units"] > 100
        assert 0.1 < line["cpu_ms"] < 10  # 1, whatever the machine does meanwhile
        assert child.end() == 0


@pytest.mark.parametrize("offload", ["process", "executor"])
def test_workers_do_not_outlive_a_service_that_was_killed(tmp_path: Path, offload: str) -> None:
    flags = ("--offload", offload, "--work-units", "10", "--workers", "2")
    with service(tmp_path / "log", *flags) as child:
        address, _ = child.ready()
        assert len(child.session()) >= 4  # itself, two workers, the fork server
        child.end(signal.SIGKILL)
        assert gone(child.process.pid)
        port = int(address.rpartition(":")[2])
        socket.create_server(("127.0.0.1", port)).close()


@pytest.mark.parametrize("offload", ["process", "executor"])
def test_a_killed_worker_is_replaced(tmp_path: Path, offload: str) -> None:
    flags = ("--offload", offload, "--work-units", "10", "--workers", "1", "--worker-nice", "7")
    with service(tmp_path / "log", *flags) as child:
        address, _ = child.ready()
        workers = [pid for pid in child.session() if os.getpriority(os.PRIO_PROCESS, pid) == 7]
        assert len(workers) == 1
        os.kill(workers[0], signal.SIGKILL)
        child.wait_until(lambda: workers[0] not in child.session())
        assert b"Downing" in get(f"{address}/data")
        assert child.scrape()["offload_worker_restarts_total{reason=crashed}"] == 1
        assert child.end() == 0


def test_the_admin_port_answers_while_inline_work_blocks_the_loop(tmp_path: Path) -> None:
    flags = ("--offload", "inline", "--work-units", "10000000")  # about a second
    with service(tmp_path / "log", *flags) as child:
        address, admin = child.ready()
        request = threading.Thread(target=get, args=(f"{address}/data",))
        request.start()
        child.wait_until(lambda: child.scrape()["http_connections_active"] == 1)
        for path in ("healthz", "readyz", "metrics"):
            get(f"{admin}/{path}")
        assert child.scrape()["offload_running"] == 1  # still in the same second of work
        request.join()
        assert child.end() == 0


def run(*flags: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "service", "--port", "0", "--admin-port", "0", *flags],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **(env or {})},
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--offload", "magic"], "--offload (SERVICE_OFFLOAD)"),
        (["--no-such-flag"], "--no-such-flag"),
        (["--show-settings", "--config", "/no/such/file"], "/no/such/file"),
        (["--work", "tests.work:raises"], "ZeroDivisionError"),
        (["--work", "tests.work:not_json", "--work-units", "1"], "TypeError"),
        (["--work", "tests.work:absent"], "absent"),
        (["--app", "tests.work:failing_application"], "no data base"),
        (["--fd", "9"], "--fd 9"),
        (["--work", "no.such.module:function"], "no.such.module"),
        (
            ["--work", "tests.work:slow", "--work-units", "1", "--host", "no.such.host.invalid"],
            "no.such.host.invalid",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_cannot_work_ends_at_start_with_one_sentence_and_exit_2(flags: list[str], says: str) -> None:
    ended = run(*flags)
    assert ended.returncode == 2
    assert says in ended.stderr
    assert "Traceback" not in ended.stderr
    assert sum(line.startswith("offloop: ") for line in ended.stderr.splitlines()) == 1


@pytest.mark.parametrize("flag", ["--port", "--admin-port"])
def test_a_port_in_use_is_named_with_its_errno(flag: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = run("--work-units", "1", flag, str(port))
    assert ended.returncode == 2
    assert f"127.0.0.1:{port}" in ended.stderr
    assert "EADDRINUSE" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_help_says_default_and_unit() -> None:
    text = run("--help").stdout
    for part in ("--accept-batch", "default: 64", "seconds", "milliseconds"):
        assert part in text


def test_show_settings_prints_and_exits_0() -> None:
    ended = run("--show-settings", env={"SERVICE_BACKLOG": "7"})
    assert ended.returncode == 0
    assert re.search(r"^--backlog +7 +SERVICE_BACKLOG$", ended.stdout, re.MULTILINE)


def test_a_start_warns_of_variables_that_are_no_settings() -> None:
    ended = run("--work", "tests.work:absent", env={"SERVICE_BAKLOG": "7"})
    assert "SERVICE_BAKLOG is not a setting; did you mean SERVICE_BACKLOG?" in ended.stderr
