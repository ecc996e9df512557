"""Stops, restarts and reloads, short form of `make restarts`; each function asserts what must hold."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from service.lifecycle.control import ONE_STOP_SECONDS
from tests.proofs import restarts
from tests.support.child import service
from tests.support.processes import gone
from tests.support.waiting import until


@pytest.mark.alone
def test_a_stop_under_load_answers_whoever_was_connected(tmp_path: Path) -> None:
    restarts.terminated(tmp_path, times=1, rate=80, seconds=0.8)


@pytest.mark.alone
def test_a_stop_while_requests_are_refused_answers_them_too(tmp_path: Path) -> None:
    restarts.terminated(tmp_path, times=1, rate=1500, seconds=1.5, refusing=True)


@pytest.mark.alone
def test_a_restart_on_a_listener_that_is_held_refuses_nobody(tmp_path: Path) -> None:
    restarts.handed_over(tmp_path, seconds=2, rate=50)


@pytest.mark.alone
def test_new_certificates_cost_no_request(tmp_path: Path) -> None:
    restarts.reloaded(tmp_path, seconds=0.8, rate=50)


def test_work_that_outlives_the_drain_is_abandoned_at_its_deadline(tmp_path: Path) -> None:
    restarts.late(tmp_path, seconds=0.3)


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("offload", ["process", "inline"])
def test_a_second_signal_forces(tmp_path: Path, second: signal.Signals, offload: str) -> None:
    restarts.forced(tmp_path, second, offload)


def test_a_loop_that_stalls_is_not_alive(tmp_path: Path) -> None:
    restarts.stalled(tmp_path, 0.4)


@pytest.mark.alone
def test_a_loop_that_is_late_is_alive(tmp_path: Path) -> None:
    restarts.busy(tmp_path, seconds=1, threshold=2)


def test_an_interrupt_skips_the_notice_and_a_termination_does_not(tmp_path: Path) -> None:
    flags = ("--work-units", "1", "--drain-notice", "60")
    with service(tmp_path / "first", *flags) as child:
        child.ready()
        assert child.end(signal.SIGINT) == 0
        assert not child.events("notice")
    with service(tmp_path / "second", *flags) as child:
        child.ready()
        child.process.send_signal(signal.SIGTERM)
        child.wait_until(lambda: child.events("notice"))
        heard = time.monotonic()
        assert child.scrape()["http_connections_active"] == 0  # it serves on
        until(lambda: time.monotonic() - heard > ONE_STOP_SECONDS, "a second signal is no repetition")
        assert child.end(signal.SIGINT) == 1


def test_a_hangup_reads_the_file_again_and_refuses_one_that_is_wrong(tmp_path: Path) -> None:
    config = tmp_path / "offloop.toml"
    config.write_text("work_units = 1\nmax_connections = 50\n")
    with service(tmp_path / "log", "--config", str(config)) as child:
        child.ready()
        assert child.scrape()["http_connections_limit"] == 50
        config.write_text("work_units = 2\nmax_connections = 70\n")
        child.process.send_signal(signal.SIGHUP)
        child.wait_until(lambda: child.events("reloaded"))
        assert child.scrape()["http_connections_limit"] == 70
        assert child.events("settings need a restart")[0]["settings"] == ["work_units"]
        config.write_text("max_connections = 0\n")
        child.process.send_signal(signal.SIGHUP)
        child.wait_until(lambda: child.events("reload refused"))
        assert child.scrape()["http_connections_limit"] == 70
        assert child.end() == 0


def test_a_hangup_of_the_whole_group_reloads_and_kills_no_worker(tmp_path: Path) -> None:
    with service(tmp_path / "log", "--work-units", "1", "--workers", "1") as child:
        child.ready()
        os.killpg(child.process.pid, signal.SIGHUP)
        child.wait_until(lambda: child.events("reloaded"))
        assert not child.events("worker lost")
        assert child.end() == 0


def test_a_thread_that_an_application_leaves_behind_does_not_hold_up_the_exit(tmp_path: Path) -> None:
    with service(tmp_path / "log", "--app", "tests.work:lingering_application") as child:
        child.ready()
        assert child.end() == 0  # within the 30 s of `end`; the thread takes a minute
        assert gone(child.process.pid)
