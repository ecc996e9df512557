"""What gunicorn is told and what it tells us, without a process."""

from __future__ import annotations

import asyncio
import logging
import os
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from gunicorn.config import Config
from prometheus_client import values

from metrics.shared import SharedMetrics
from metrics.slots import Slot, look
from service.app.loading import StartError
from service.config.settings import Settings
from service.lifecycle import process
from service.lifecycle.control import Control
from service.lifecycle.run import HEARTBEAT_SECONDS
from service.lifecycle.states import EXIT_FORCED, Event
from service.multi import exporter, io_process, siblings
from service.multi.io_process import IOProcess
from service.multi.starts import Starts, pause_seconds

Logged = Callable[[], list[dict[str, Any]]]
CONF = Path(__file__).parents[2] / "service/gunicorn_conf.py"
Configure = Callable[..., dict[str, Any]]


@pytest.fixture
def prepared() -> list[Settings]:
    """The settings for which the process was prepared."""
    return []


@pytest.fixture
def configure(monkeypatch: pytest.MonkeyPatch, prepared: list[Settings]) -> Iterator[Configure]:
    """Executes the configuration as gunicorn does at its start and at each SIGHUP."""
    monkeypatch.setattr(process, "prepare_process", lambda reading, _: prepared.append(reading.settings))
    for name in [name for name in os.environ if name.startswith(("SERVICE_", "WEB_", "PYTHONWARN"))]:
        monkeypatch.delenv(name)

    def execute(**environment: str) -> dict[str, Any]:
        with monkeypatch.context() as context:
            for name, value in environment.items():
                context.setenv(name, value)
            return runpy.run_path(str(CONF))

    yield execute
    structlog.contextvars.clear_contextvars()
    if hasattr(IOProcess, "settings"):
        del IOProcess.settings


def test_gunicorn_gets_what_our_settings_say(configure: Configure) -> None:
    conf = configure(
        SERVICE_PORT="1234", SERVICE_BACKLOG="77", SERVICE_WORKERS="30", SERVICE_DRAIN_TIMEOUT="19"
    )
    assert conf["bind"] == "127.0.0.1:1234"
    assert conf["backlog"] == 77
    assert conf["workers"] == 3
    assert conf["graceful_timeout"] == 21
    del IOProcess.settings  # another start
    assert configure(SERVICE_HOST="::1", WEB_CONCURRENCY="4")["bind"] == "[::1]:8080"
    config = Config()
    for name, value in configure(WEB_CONCURRENCY="4", SERVICE_WORKERS="8").items():
        if name in config.settings:
            config.set(name, value)  # raises for what gunicorn does not take
    assert config.workers == 4
    assert config.worker_class is IOProcess
    IOProcess.check_config(config, None)


def test_wrong_settings_end_the_start_and_not_a_reload(
    configure: Configure, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        configure(SERVICE_WORKERS="none")
    assert ended.value.code == 2
    assert "SERVICE_WORKERS" in capsys.readouterr().err
    configure(SERVICE_WORKERS="7")
    assert configure(SERVICE_WORKERS="none")["settings"].workers == 7


def test_a_reload_keeps_the_addresses_that_are_bound(configure: Configure, logged: Logged) -> None:
    configure(SERVICE_PORT="1234", SERVICE_WORKERS="7")
    conf = configure(SERVICE_PORT="1235", SERVICE_ADMIN_PORT="1236", SERVICE_WORKERS="8")
    assert (conf["bind"], conf["settings"].admin_port, conf["settings"].workers) == (
        "127.0.0.1:1234",
        8081,
        8,
    )
    (line,) = logged()
    assert (line["event"], line["settings"]) == ("settings need a restart", ["admin_port", "port"])


def test_the_process_is_prepared_at_the_start_and_at_each_reload_with_good_settings(
    configure: Configure, prepared: list[Settings]
) -> None:
    for workers in ("7", "none", "8"):
        configure(SERVICE_WORKERS=workers)
    assert [settings.workers for settings in prepared] == [7, 8]


def test_certificates_that_cannot_be_used_end_the_start_and_not_a_reload(
    configure: Configure, capsys: pytest.CaptureFixture[str], tmp_path: Path, logged: Logged
) -> None:
    (tmp_path / "bad.pem").write_text("no PEM")
    bad = dict.fromkeys(("SERVICE_TLS_CERT", "SERVICE_TLS_KEY"), str(tmp_path / "bad.pem"))
    with pytest.raises(SystemExit) as ended:
        configure(**bad)
    assert ended.value.code == 2
    assert "not a PEM certificate" in capsys.readouterr().err
    configure(SERVICE_WORKERS="7")
    settings = configure(SERVICE_WORKERS="8", **bad)["settings"]
    assert (settings.workers, settings.tls_cert, settings.tls_key) == (8, None, None)
    assert IOProcess.tls is None
    (line,) = logged()
    assert line["event"] == "certificates refused"
    assert "not a PEM certificate" in line["reason"]


@pytest.mark.parametrize(
    ("chosen", "says"),
    [
        ({"bind": ["127.0.0.1:0", "127.0.0.1:0"]}, "one TCP address"),
        ({"bind": "unix:/tmp/socket"}, "one TCP address"),
        ({"certfile": "cert.pem"}, "SERVICE_TLS_CERT"),
        ({"reuse_port": True}, "--reuse-port"),
        ({"workers": 3}, "--workers is 2"),
        ({"graceful_timeout": 1}, "--drain-notice 1"),
    ],
)
def test_what_gunicorn_can_do_and_we_cannot_is_refused(
    chosen: dict[str, Any], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(IOProcess, "settings", Settings(workers=2, drain_notice=1), raising=False)
    config = Config()
    for name, value in chosen.items():
        config.set(name, value)
    with pytest.raises(RuntimeError, match=says):
        IOProcess.check_config(config, None)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that an IO process would make, and does not."""
    made: list[float] = []

    def pause(_: IOProcess, seconds: float) -> int:
        made.append(seconds)
        return EXIT_FORCED

    monkeypatch.setattr(IOProcess, "_pause", pause)
    return made


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[IOProcess]:
    """A worker that has come as far as its heartbeat, and may answer three requests."""
    monkeypatch.setattr(values, "ValueClass", values.ValueClass)  # to be restored
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    monkeypatch.setattr(io_process, "collect_less", lambda: None)  # it would hold for all other tests
    config = Config()
    config.set("max_requests", 3)
    starts = Starts()
    monkeypatch.setattr(IOProcess, "starts", starts, raising=False)
    monkeypatch.setattr(IOProcess, "settings", Settings(), raising=False)
    made = IOProcess(1, os.getppid(), [], None, 30, config, logging.getLogger("test"))
    made._control = Control(force=lambda: pytest.fail("forced"))
    made._metrics = SharedMetrics(Slot(tmp_path))
    yield made
    made._metrics.slot.close()
    starts.close()
    made.tmp.close()
    values.close_all_multiprocess_files()  # type: ignore[no-untyped-call]


async def test_a_heartbeat_is_seen_by_arbiter_and_exporter(worker: IOProcess, tmp_path: Path) -> None:
    os.utime(worker.tmp.fileno(), (0, 0))
    worker._beat(True, "serving")
    assert worker.tmp.last_update() > 0
    (slot,) = look(tmp_path)
    assert (slot.ready, slot.why) == (True, "serving")
    assert worker.alive


async def test_max_requests_end_it_once_with_notice(worker: IOProcess) -> None:
    assert worker._metrics is not None
    for _ in range(3):
        assert worker.alive
        worker._metrics.request("GET", "/data", 200, 0.1)
        worker._beat(True, "serving")
    assert not worker.alive
    worker._beat(False, "notice")
    assert await worker._control.stop_ordered() is Event.TERMINATE


async def test_an_arbiter_that_has_gone_ends_it_without_notice(worker: IOProcess) -> None:
    worker.ppid = -1
    worker._beat(True, "serving")
    assert await worker._control.stop_ordered() is Event.INTERRUPT


async def test_the_arbiter_may_say_stop_again_and_again(worker: IOProcess) -> None:
    for _ in range(3):
        worker._stop(Event.TERMINATE)
        await asyncio.sleep(0.01)
    assert await worker._control.stop_ordered() is Event.TERMINATE


def test_the_first_that_cannot_start_halts_the_arbiter_and_no_second_one(
    worker: IOProcess, logged: Logged, pauses: list[float]
) -> None:
    assert worker._cannot_start(StartError("no")) == 3
    assert worker._cannot_start(StartError("no")) == 1
    assert [line["reason"] for line in logged()] == ["no"]
    assert pauses == [2]


def test_where_one_has_been_ready_those_that_cannot_start_wait_and_longer_each_time(
    worker: IOProcess, logged: Logged, pauses: list[float], tmp_path: Path
) -> None:
    worker.starts.succeed()
    assert [worker._cannot_start(OSError("no")) for _ in range(3)] == [1, 1, 1]
    worker.starts.succeed()
    assert worker._cannot_start(StartError("no")) == 1
    assert pauses == [1, 2, 4, 1]
    assert [line["reason"] for line in logged()] == ["OSError: no"] * 3 + ["no"]
    assert ["exception" in line for line in logged()] == [True] * 3 + [False]
    assert [slot.why for slot in look(tmp_path)] == ["cannot start"]


def test_one_that_fails_after_it_was_told_to_end_just_ends(worker: IOProcess, pauses: list[float]) -> None:
    worker._stop(Event.TERMINATE)
    assert worker._cannot_start(StartError("no")) == 0
    assert not pauses


def test_the_pause_between_two_tries_grows_to_half_a_minute() -> None:
    assert [pause_seconds(failures) for failures in range(1, 9)] == [1, 2, 4, 8, 16, 30, 30, 30]


def test_at_a_hup_one_that_serves_ends_when_as_many_others_as_there_shall_be_are_ready(
    worker: IOProcess, tmp_path: Path
) -> None:
    worker._started()
    worker.starts.reload(2)
    old, new = Slot(tmp_path), Slot(tmp_path)
    old.say(True, "serving")
    for _ in range(3):
        worker._terminate()
        worker._beat(True, "serving")
        assert worker.alive, "the others are one, and one that has just begun"
    new.say(True, "serving")
    worker._beat(True, "serving")
    assert not worker.alive
    for slot in (old, new):
        slot.close()


async def test_one_that_stays_unready_ends_without_notice_if_another_is_ready_and_not_because_it_drains(
    worker: IOProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(siblings, "UNREADY_SECONDS", 0.0)
    other = Slot(tmp_path)
    worker._beat(False, "workers keep dying")
    other.say(True, "serving")
    worker._beat(True, "serving")
    for why in ("notice", "draining"):
        worker._beat(False, why)
        assert worker.alive
    worker._beat(False, "workers keep dying")
    assert not worker.alive
    assert await worker._control.stop_ordered() is Event.INTERRUPT
    other.close()


@pytest.mark.parametrize("why", ["no hup", "not ready", "the arbiter stops"])
def test_one_that_nobody_will_replace_ends_at_once(worker: IOProcess, why: str) -> None:
    if why != "not ready":
        worker._started()
    if why != "no hup":
        worker.starts.reload(1)
    if why == "the arbiter stops":
        worker._terminate()
        assert worker.alive
        worker.starts.stop()
        worker._beat(True, "serving")
    else:
        worker._terminate()
    assert not worker.alive


def test_the_exporter_waits_for_two_heartbeats_at_least_before_it_calls_a_loop_stalled() -> None:
    assert exporter.TWO_HEARTBEATS_SECONDS == 2 * HEARTBEAT_SECONDS
    assert exporter.stall_seconds(Settings(loop_stall=0.1)) == 2 * HEARTBEAT_SECONDS
    assert exporter.stall_seconds(Settings(loop_stall=7)) == 7
