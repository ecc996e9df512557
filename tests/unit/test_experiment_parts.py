"""The pure parts of an experiment: plan, ledger, results and report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from loadtests import report
from loadtests.folder import FolderError, RunFolder
from loadtests.ledger import reconcile
from loadtests.presets import MEASURED_LOADS, OVERLOAD, Plan, quick
from loadtests.results import phase_result
from loadtests.sample import Sample
from loadtests.watch import COLUMNS

from .synthetic import PLAN, summary

CLIENT = {
    "planned": 100, "sent": 95, "not_sent": 5, "connected": 90,
    "connect_failed": 2, "connect_timeout": 3, "connect_aborted": 0,
}  # fmt: skip


def row(**values: float) -> dict[str, float]:
    return dict.fromkeys(COLUMNS, 0.0) | values


@pytest.mark.parametrize(
    ("after", "overflows", "half_open", "unexplained", "server_gap"),
    [
        (row(accepted=90, completed=90), 0, 0, 0, 0),
        (row(accepted=80, completed=70, active=10, kernel_queue=10), 0, 0, 0, 0),
        (row(accepted=85, completed=85), 40, 5, 0, 0),  # final ACKs dropped by a full queue
        (row(accepted=85, completed=85), 3, 3, 2, 0),  # more than the kernel admits to
        (row(accepted=92, completed=92), 9, 0, -2, 0),  # somebody else was there
        (row(accepted=90, completed=88, active=1), 0, 0, 0, 1),  # the server lost one
    ],
)
def test_every_connection_has_a_name(
    after: dict[str, float], overflows: int, half_open: int, unexplained: int, server_gap: int
) -> None:
    books = reconcile(CLIENT, row(), after, overflows)
    assert (books.half_open, books.unexplained, books.server_gap) == (half_open, unexplained, server_gap)
    assert books.never_connected == 5
    assert books.closes == (unexplained == server_gap == 0)


def test_only_the_change_over_the_phase_counts() -> None:
    books = reconcile(
        CLIENT, row(accepted=1000, completed=1000), row(accepted=1090, completed=1090), listen_overflows=0
    )
    assert books.closes
    assert books.accepted == 90


def test_rates_follow_from_the_measured_limit() -> None:
    plan = quick(cores=4, work_units=10_000, s_seconds=0.01)
    assert plan.variants["process-cores"].limit_per_second == pytest.approx(400)
    assert plan.variants["process-1-fifth"].limit_per_second == pytest.approx(500)
    assert plan.variants["process-1-fifth"].work_units == 2000
    for step in plan.steps:
        limit = plan.variants[step.variant].limit_per_second
        assert step.rate == pytest.approx(step.load * limit, abs=0.1)


def test_rounds_alternate_and_overload_comes_last_in_a_visit() -> None:
    first = [visit.variant.name for visit in PLAN.visits if visit.steps[0].round == 1]
    second = [visit.variant.name for visit in PLAN.visits if visit.steps[0].round == 2]
    assert second == [name for name in reversed(first) if name != "inline-batch"]
    for visit in PLAN.visits:
        assert all(not step.is_overload for step in visit.steps[:-1])
    assert {step.load for step in PLAN.steps} == {*MEASURED_LOADS, OVERLOAD}
    assert len({step.id for step in PLAN.steps}) == len(PLAN.steps)


def test_the_quick_preset_sends_for_less_than_two_minutes_and_a_half() -> None:
    assert PLAN.load_seconds < 150


def test_a_plan_survives_the_way_to_disk() -> None:
    assert Plan.from_json(json.loads(json.dumps(PLAN.to_json()))) == PLAN


def measured(**changes: Any) -> dict[str, Any]:
    """The overload phase of `process-1`, ten requests in a second, through results.py."""
    step = next(s for s in PLAN.steps if s.variant == "process-1" and s.is_overload)
    phase = step.phase("http://127.0.0.1:1/data", 5.0)
    samples = [
        Sample(100 + n / 10, 100 + n / 10, 100 + n / 10, 101.0, 101.0, "ok", 200, None) for n in range(10)
    ]
    facts = {
        "started_monotonic": 100.0, "wall_seconds": 6.0, "cpu_seconds": 0.6, "gc_pauses": 0,
        "gc_max_pause_seconds": 0.0, "interrupted": False, "unreachable": False, "address": "127.0.0.1:1",
    }  # fmt: skip
    rows = [
        row(time=99.0, accepted=5, completed=5, kernel_queue_limit=128),
        row(time=101.0, accepted=15, completed=9, active=6, tasks=4, task_cpu_seconds=0.02, io_cpu_seconds=1),
        row(
            time=103.0, accepted=15, completed=12, active=3, tasks=7, task_cpu_seconds=0.03, io_cpu_seconds=2
        ),
        row(time=200.0, accepted=15, completed=15, tasks=10, task_cpu_seconds=0.05, io_cpu_seconds=9),
    ]
    table = [[one[name] for name in COLUMNS] for one in rows]
    watched = {"columns": list(COLUMNS), "rows": table, "listen_overflows": 0}
    return phase_result(PLAN, step, phase, samples, facts | changes, watched)


def test_s_and_limit_come_from_the_workers_own_cpu() -> None:
    result = measured()
    assert result["s_seconds"] == pytest.approx(0.005)
    assert result["limit_per_second"] == pytest.approx(200)


def test_the_lead_is_read_while_load_is_sent_and_the_ledger_after_it() -> None:
    result = measured()
    assert result["lead_max"] == 6
    assert result["io_cpu_share"] == pytest.approx(0.5)
    assert result["ledger"]["accepted"] == result["ledger"]["connected"] == 10
    assert result["ledger"]["unexplained"] == 0


def test_the_timeline_counts_from_the_beginning_of_the_phase() -> None:
    line = measured()["timeline"]
    assert line["seconds"] == [-1.0, 1.0, 3.0, 100.0]
    assert line["offered"] == [0, 10, 10, 10]
    assert line["accepted"] == [0, 10, 10, 10]
    assert line["completed"] == [0, 4, 7, 10]


def test_a_report_is_drawn_from_the_summary_alone(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text(json.dumps(summary()))
    _, text = report.draw(RunFolder(tmp_path))
    assert (tmp_path / "verdict.txt").read_text() == text
    assert text.count("HELD") >= 6
    assert "DID NOT HOLD" in text
    assert "No connection is unexplained." in text
    assert max(map(len, text.splitlines())) <= 80
    for name in ("queues.png", "queues.svg", "capacity.png", "capacity.svg"):
        assert (tmp_path / name).stat().st_size > 10_000


def test_drawing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    drawn = []
    for _ in range(2):
        (tmp_path / "summary.json").write_text(json.dumps(summary()))
        report.draw(RunFolder(tmp_path))
        drawn.append({path.name: path.read_bytes() for path in tmp_path.iterdir()})
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize("kept", [0, 1, 6])
def test_an_interrupted_run_is_drawn_as_far_as_it_came_and_says_so(tmp_path: Path, kept: int) -> None:
    content = summary()
    content["status"] = {"state": "interrupted"}
    content["phases"] = content["phases"][:kept]
    (tmp_path / "summary.json").write_text(json.dumps(content))
    assert "INTERRUPTED" in report.draw(RunFolder(tmp_path))[1].splitlines()[0]


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match="does not hold"):
        report.draw(RunFolder(tmp_path))


def test_a_run_is_never_overwritten(tmp_path: Path) -> None:
    RunFolder.create(tmp_path).write("plan.json", {})
    with pytest.raises(FolderError, match="already holds"):
        RunFolder.create(tmp_path)
