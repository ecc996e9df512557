"""The experiment as a newcomer runs it: a folder that can be read however it ended, and no child left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from loadtests.experiment.evidence import ledger, ledger_gaps
from loadtests.experiment.folder import RunFolder
from loadtests.experiment.plan import Plan
from loadtests.experiment.results import Status, Summary
from loadtests.experiment.verdict import judge
from tests.support import ROOT
from tests.support.processes import argv, children, gone

# A busy machine may need several times as long as another.
pytestmark = pytest.mark.timeout(300)

BLOCKS = ("--block-seconds", "0.3", "--settle-seconds", "0.1", "--work-units", "20000")
A_A = ("--preset", "a-a", "--cycles", "2", *BLOCKS)
QUICK = (
    *("--preset", "quick", "--cycles", "1", "--more-cycles", "0", *BLOCKS),
    *("--overload-seconds", "0.5", "--overload-repeats", "1"),
)
DRAWN = {"verdict.txt", "report.html"}
KEPT = {"plan.json", "environment.json", "status.json", "blocks.json", "summary.json"}


@contextmanager
def loadtests(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The command, in a session of its own, and nothing of it left whatever the test does."""
    with subprocess.Popen(
        [sys.executable, "-m", "loadtests", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
    ) as child:
        try:
            yield child
        finally:
            for pid in {child.pid, *children(child.pid)} if child.poll() is None else ():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def ended(*arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command that runs to its end."""
    with loadtests(*arguments) as child:
        out, err = child.communicate(timeout=280)
        return child.returncode, out, err


def judged_by_its_machine(folder: Path, code: int, err: str) -> Summary:
    """The summary of a run that a neighbour may have spoilt, which it must then say."""
    assert "Traceback" not in err
    summary = RunFolder(folder).summary()
    assert summary.status.state in ("complete", "invalid"), err
    assert code == (3 if summary.status.state == "invalid" else 0), err
    assert ledger_gaps(summary) == []
    assert ledger(summary).connected > 0
    return summary


@pytest.mark.alone
def test_a_short_experiment_measures_judges_and_draws(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    code, out, err = ended("experiment", *A_A, "--out", str(folder))
    summary = judged_by_its_machine(folder, code, err)
    names = {path.name for path in folder.iterdir()}
    assert names >= KEPT | DRAWN | {f"{name}.log" for name in ("inline", "inline-again", "inline-more")}
    assert RunFolder(folder).read("plan.json", Plan) == summary.plan
    assert (folder / "verdict.txt").read_text() in out
    for block in summary.blocks:
        assert block.tasks > 0
        assert block.outcomes["ok"] > 0
        assert 0 < block.utilisation < 1.2
    if summary.status.state == "complete":
        assert {block.cycle for block in summary.blocks} == {1, 2}
        assert len(judge(summary)) == 3
        assert (folder / "cycles.svg").stat().st_size > 0

    again, redrawn, _ = ended("report", str(folder))
    assert (again, redrawn) == (code, out)


@pytest.mark.alone
def test_the_quick_preset_measures_blocks_overloads_and_a_killed_worker(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    code, _, err = ended("experiment", *QUICK, "--out", str(folder))
    summary = judged_by_its_machine(folder, code, err)
    if summary.status.state == "invalid":
        return
    plan = summary.plan
    assert {phase.variant for phase in summary.phases} == set(plan.overloaded)
    assert {kill.variant for kill in summary.kills} == set(plan.killed)
    for phase in summary.phases:
        assert phase.kind == "overload"
        assert phase.outcomes
        assert phase.demand_seconds is None or phase.demand_seconds > 0
        assert phase.timeline is not None
    lost = {kill.variant: kill.failed for kill in summary.kills}
    assert lost["lanes-1"] == 0, "a request of a killed worker is tried again"
    stock, lanes = plan.beside
    assert {block.variant for block in summary.blocks if block.part == "beside"} == {stock, lanes}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_end_by_signal_leaves_a_marked_folder_that_can_be_read_and_no_child(
    tmp_path: Path, number: signal.Signals
) -> None:
    folder = tmp_path / "run"
    with loadtests(
        "experiment",
        "--preset",
        "a-a",
        "--block-seconds",
        "0.5",
        "--work-units",
        "20000",
        "--out",
        str(folder),
    ) as child:
        assert child.stderr is not None
        for line in child.stderr:  # until it measures
            if line.startswith(("cycle 1:", "  void")):
                break
        started = children(child.pid)
        assert len(started) == 4, "three services and a generator"
        child.send_signal(number)
        _, err = child.communicate(timeout=60)
        assert child.returncode == 128 + number, err
    assert "Traceback" not in err
    assert f"python -m loadtests report {folder}" in " ".join(err.split())
    assert all(gone(pid) for pid in started)
    assert RunFolder(folder).read("status.json", Status).state == "interrupted"
    assert RunFolder(folder).summary().blocks

    code, text, _ = ended("report", str(folder))
    assert code == 0
    assert "INTERRUPTED" in text.splitlines()[0]
    assert "No connection is unexplained." in text


def test_a_signal_in_an_open_loop_phase_keeps_both_of_its_sides(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with loadtests(
        *(
            "experiment",
            "--preset",
            "accept-all-we-can",
            "--overload-seconds",
            "3",
            "--work-units",
            "20000",
            "--out",
            str(folder),
        )
    ) as child:
        assert child.stderr is not None
        for line in child.stderr:
            if line.startswith("ramp executor-1"):  # the first of them is over, the second has begun
                break
        started = children(child.pid)
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=60)
        assert child.returncode == 130, err
    assert "Traceback" not in err
    assert all(gone(pid) for pid in started)
    summary = RunFolder(folder).summary()
    assert summary.status.state == "interrupted"
    assert not summary.phases[0].interrupted
    assert [phase.interrupted for phase in summary.phases[1:]] in ([], [True])
    assert ledger_gaps(summary) == []
    assert ended("report", str(folder))[0] == 0


def test_a_service_that_dies_is_named_and_ends_the_run(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with loadtests(
        "experiment",
        "--preset",
        "a-a",
        "--block-seconds",
        "0.5",
        "--work-units",
        "20000",
        "--out",
        str(folder),
    ) as child:
        assert child.stderr is not None
        for line in child.stderr:
            if line.startswith(("cycle 1:", "  void")):
                break
        started = children(child.pid)
        services = {pid for pid in started if "service" in argv(pid)}
        for pid in services:
            os.kill(pid, signal.SIGKILL)
        _, err = child.communicate(timeout=60)
        assert child.returncode == 3
    assert "Traceback" not in err
    assert "service" in err.splitlines()[-1]
    assert RunFolder(folder).read("status.json", Status).state == "failed"
    assert all(gone(pid) for pid in started)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["experiment", "--out", "/dev/null/run"], "/dev/null/run"),
        (["experiment", "--preset", "unheard-of"], "unheard-of"),
        (["experiment", "--work-ms", "0"], "--work-ms"),
        (["experiment", "--work-ms", "much"], "--work-ms"),
        (["experiment", "--cycles", "0"], "--cycles"),
        (["experiment", "--more-cycles", "-1"], "--more-cycles"),
        (["experiment", "--block-seconds", "inf"], "--block-seconds"),
        (["experiment", "--loop", "trio"], "--loop"),
        (["experiment", "--overload-seconds", "0.001", "--out", "OUT"], "shows nothing"),
        (["experiment", "--no-such-flag"], "--no-such-flag"),
        (["report", "/dev/null/run"], "/dev/null/run"),
        (["measure"], "measure"),
    ],
)
def test_what_cannot_run_says_so_in_one_sentence(tmp_path: Path, arguments: list[str], says: str) -> None:
    given = [str(tmp_path / "run") if argument == "OUT" else argument for argument in arguments]
    code, out, err = ended(*given)
    assert code == 2
    assert says in err
    assert out == ""
    assert "Traceback" not in err
    assert sum(line.startswith("python -m loadtests") for line in err.splitlines()) == 1


def test_a_folder_that_holds_a_run_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text("{}")
    code, _, err = ended("experiment", "--out", str(tmp_path))
    assert code == 2
    assert "already holds a run" in err
    assert (tmp_path / "plan.json").read_text() == "{}"
    assert {path.name for path in tmp_path.iterdir()} == {"plan.json", "phases"}


@pytest.mark.parametrize("command", ["experiment", "report", "run", "compare"])
def test_every_command_explains_itself(command: str) -> None:
    code, out, err = ended(command, "--help")
    assert (code, err) == (0, "")
    assert f"usage: python -m loadtests {command}" in out
