"""The experiment as a newcomer runs it: a folder that can be read however it ended, and no child left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from loadtests.experiment.verdict import rules_for

from .support import PARENT, ROOT, gone, processes

SHORT = ("--rounds", "1", "--phase-seconds", "0.4", "--overload-seconds", "1", "--work-ms", "4")


def loadtests(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "loadtests", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
    )


@pytest.mark.alone
def test_a_short_experiment_measures_judges_and_draws(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    short = (*SHORT, "--preset", "as-published", "--loads", "0.8,1.1")
    child = loadtests("experiment", *short, "--out", str(folder))
    out, err = child.communicate(timeout=110)
    assert child.returncode in (0, 3), err  # so short a phase may be invalid on a busy machine
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["status"]["state"] == "complete"
    kinds = [phase["kind"] for phase in summary["phases"]]
    assert (kinds.count("measure"), kinds.count("overload")) == (2 * 2, 2)
    for phase in summary["phases"] + summary["discarded"]:
        assert phase["ledger"]["unexplained"] == phase["ledger"]["server_gap"] == 0, phase["id"]
        assert phase["outcomes"].get("ok", 0) > 0
        assert phase["s_seconds"] > 0
        assert all(cores > 0 for cores in phase["cpu"].values()), phase["cpu"]
        assert phase["watch_per_second"] >= 5
    assert out.count("\n+ ") + out.count("\n- ") + out.count("\n? ") == len(rules_for(summary))
    for name in (
        "queues.png",
        "queues.svg",
        "capacity.png",
        "cpu.png",
        "report.html",
        "verdict.txt",
        "plan.json",
    ):
        assert (folder / name).stat().st_size > 0

    again = loadtests("report", str(folder))
    assert again.communicate(timeout=60)[0] == out
    assert again.returncode == child.returncode


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_end_by_signal_leaves_a_marked_folder_that_can_be_read_and_no_child(
    tmp_path: Path, number: signal.Signals
) -> None:
    folder = tmp_path / "run"
    child = loadtests("experiment", "--rounds", "1", "--phase-seconds", "5", "--out", str(folder))
    deadline = time.monotonic() + 60
    while len(started := processes(PARENT, child.pid)) < 2:  # the service and the generator
        assert time.monotonic() < deadline
        time.sleep(0.05)
    child.send_signal(number)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 128 + number, err
    assert "Traceback" not in err
    assert json.loads((folder / "status.json").read_text())["state"] == "interrupted"
    assert all(gone(pid) for pid in started)

    report = loadtests("report", str(folder))
    text = report.communicate(timeout=60)[0]
    assert "INTERRUPTED" in text.splitlines()[0]
    assert "No connection is unexplained." in text


@pytest.mark.alone
def test_a_service_that_dies_in_a_phase_is_named_and_ends_the_run(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    child = loadtests("experiment", "--rounds", "1", "--phase-seconds", "3", "--out", str(folder))
    deadline = time.monotonic() + 60
    while len(started := processes(PARENT, child.pid)) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (service,) = [
        pid for pid in started if b"service" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    ]
    os.kill(service, signal.SIGKILL)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 3
    assert "Traceback" not in err
    assert "service" in err.splitlines()[-1]
    assert json.loads((folder / "status.json").read_text())["state"] == "failed"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["experiment", "--out", "/dev/null/run"], "/dev/null/run"),
        (["experiment", "--preset", "unheard-of"], "unheard-of"),
        (["experiment", "--work-ms", "0"], "--work-ms"),
        (["experiment", "--loads", "0.5,none"], "--loads"),
        (["experiment", "--phase-seconds", "0.001", "--out", "OUT"], "sends no request"),
        (["experiment", "--work-ms", "much"], "--work-ms"),
        (["experiment", "--rounds", "0"], "--rounds"),
        (["experiment", "--no-such-flag"], "--no-such-flag"),
        (["report", "/dev/null/run"], "/dev/null/run"),
        (["measure"], "measure"),
    ],
)
def test_what_cannot_run_says_so_in_one_sentence(tmp_path: Path, arguments: list[str], says: str) -> None:
    child = loadtests(*(str(tmp_path / "run") if argument == "OUT" else argument for argument in arguments))
    out, err = child.communicate(timeout=60)
    assert child.returncode == 2
    assert says in err
    assert out == ""
    assert "Traceback" not in err
    assert sum(line.startswith("python -m loadtests") for line in err.splitlines()) == 1


def test_a_folder_that_holds_a_run_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text("{}")
    child = loadtests("experiment", "--out", str(tmp_path))
    _, err = child.communicate(timeout=60)
    assert child.returncode == 2
    assert "already holds a run" in err
    assert (tmp_path / "plan.json").read_text() == "{}"
