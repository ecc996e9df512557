"""Several IO processes under gunicorn are one service; the first is the short form of `make io-processes`."""

from __future__ import annotations

from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.proofs import io_processes
from tests.proofs.io_processes import Gunicorn
from tests.support.processes import gone


@pytest.mark.alone
def test_kill_hup_and_usr2_under_load_cost_nothing_but_what_was_killed(tmp_path: Path) -> None:
    io_processes.under_load(tmp_path, 2.0, 80, Gunicorn.kill, Gunicorn.hang_up, Gunicorn.upgrade)


@pytest.mark.alone
def test_both_signals_of_an_upgrade_at_once_cost_no_counter(tmp_path: Path) -> None:
    io_processes.under_load(tmp_path, 4.0, 80, lambda child: child.upgrade(waits=False))


@pytest.mark.alone
def test_wrk_and_all_io_processes_together_count_the_same(tmp_path: Path) -> None:
    io_processes.through_wrk(tmp_path, 1)


def test_each_io_process_may_have_an_executor_of_its_own(tmp_path: Path) -> None:
    with io_processes.gunicorn(tmp_path / "log", offload="executor", workers="2") as child:
        address, _ = child.ready()
        with urlopen(f"{address}/data") as answer:
            assert answer.status == 200
        child.wait_until(lambda: child.scrape()["offload_tasks_total{outcome=completed}"] == 1)
        assert child.scrape()["offload_workers"] == 2
        child.hang_up()
        assert child.end() == 0
        assert gone(child.process.pid)


def test_work_that_cannot_run_ends_it_at_start_with_one_sentence(tmp_path: Path) -> None:
    with io_processes.gunicorn(tmp_path / "log", work="tests.work:raises") as child:
        assert child.process.wait(30) == 3
        assert gone(child.process.pid)
        (line,) = child.events("cannot start")
    assert "ZeroDivisionError" in line["reason"]
    assert "Traceback" not in (tmp_path / "log").read_text()
