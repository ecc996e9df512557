"""The pure parts of an experiment: plan, ledger, results and report."""

from __future__ import annotations

import dataclasses
import json
import re
from html import escape
from pathlib import Path
from typing import Any

import pytest

from loadtests.experiment import report
from loadtests.experiment.counters import COLUMNS
from loadtests.experiment.figures import COLOURS
from loadtests.experiment.folder import FolderError, RunFolder
from loadtests.experiment.ledger import reconcile
from loadtests.experiment.matrix import DATA, Cost, Factors, Plan, PlanError
from loadtests.experiment.presets import PRESETS, plan
from loadtests.experiment.results import phase_result
from loadtests.experiment.verdict import judge
from loadtests.load.facts import GeneratorFacts
from loadtests.load.sample import Sample

from .synthetic import COSTS, PLAN, plan_of, summary

CLIENT = {
    "planned": 100, "sent": 95, "not_sent": 5, "connected": 90,
    "connect_failed": 2, "connect_timeout": 3, "connect_aborted": 0, "answered": 83, "unanswered": 7,
}  # fmt: skip


def row(**values: float) -> dict[str, float]:
    return dict.fromkeys(COLUMNS, 0.0) | values


@pytest.mark.parametrize(
    ("after", "overflows", "half_open", "unexplained", "server_gap"),
    [
        (row(accepted=90, completed=90), 0, 0, 0, 0),
        (row(accepted=80, completed=80, kernel_queue=10), 0, 0, 0, 0),
        (row(accepted=40, completed=40), 4000, 7, 43, 0),  # a client that was answered was accepted
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


def test_what_is_still_active_leaves_the_books_open() -> None:
    books = reconcile(CLIENT, row(), row(accepted=90, completed=80, active=10), 0)
    assert (books.unexplained, books.server_gap, books.active) == (0, 0, 10)
    assert not books.closes


def test_rates_follow_from_the_measured_limit() -> None:
    costs = {DATA: Cost(work_units=10_000, s_seconds=0.01)}
    made = plan("quick", 4, costs, Factors())
    assert made.variants["process-cores"].limit_per_second == pytest.approx(400)
    assert made.variants["process-1-fifth"].limit_per_second == pytest.approx(500)
    assert made.variants["process-1-fifth"].work_units == 2000
    for step in made.steps:
        limit = made.variants[step.variant].limit_per_second
        assert step.rate == pytest.approx(step.load * limit, rel=0.01)


def test_rounds_alternate_and_overload_comes_last_in_a_visit() -> None:
    first = [visit.variant.name for visit in PLAN.visits if visit.steps[0].round == 1]
    second = [visit.variant.name for visit in PLAN.visits if visit.steps[0].round == 2]
    assert second == [name for name in reversed(first) if name not in ("inline-batch", "process-1-protected")]
    for visit in PLAN.visits:
        assert all(step.kind == "measure" for step in visit.steps[:-1])
    assert len({step.id for step in PLAN.steps}) == len(PLAN.steps)


def test_the_published_phases_are_the_22_of_the_post() -> None:
    made = plan_of("accept-all-we-can")
    for visit in made.visits:
        assert [step.rate for step in visit.steps] == [20, 60, 100, 120, 160, 180, *range(200, 351, 10)]
        assert len(visit.steps) == 22
        assert {step.duration_seconds for step in visit.steps} == {20.0}
        assert visit.variant.backlog == 4
    assert len(made.visits) == 2


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_lays_out_a_plan_that_survives_the_way_to_disk(preset: str) -> None:
    made = plan_of(preset)
    assert Plan.from_json(json.loads(json.dumps(made.to_json()))) == made


def test_the_quick_preset_sends_for_less_than_two_minutes_and_a_half() -> None:
    assert PLAN.load_seconds < 150


def test_factors_that_send_nothing_are_refused() -> None:
    with pytest.raises(PlanError, match="sends no request"):
        plan("quick", 2, COSTS, dataclasses.replace(Factors(), phase_seconds=0.001))


def measured(**changes: Any) -> dict[str, Any]:
    """The overload phase of `process-1`, ten requests in a second, through results.py."""
    step = next(s for s in PLAN.steps if s.variant == "process-1" and s.kind == "overload")
    phase = step.phase("http://127.0.0.1:1/data", 5.0)
    samples = [
        Sample(100 + n / 10, 100 + n / 10, 100 + n / 10, 101.0, 101.0, "ok", 200, None) for n in range(10)
    ]
    facts = GeneratorFacts(
        address="127.0.0.1:1", started_monotonic=100.0, started_epoch=1.7e9, wall_seconds=6.0,
        cpu_seconds=0.6, sending_seconds=6.0, sending_cpu_seconds=0.6, busiest_second_cpu_share=0.1,
        gc_pauses=0, gc_max_pause_seconds=0.0, interrupted=False, unreachable=False,
    )  # fmt: skip
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
    return phase_result(PLAN, step, phase, samples, dataclasses.replace(facts, **changes), watched)


def test_s_and_limit_come_from_the_workers_own_cpu() -> None:
    result = measured()
    assert result["s_seconds"] == pytest.approx(0.005)
    assert result["limit_per_second"] == pytest.approx(200)


def test_the_lead_is_read_while_load_is_sent_and_the_ledger_after_it() -> None:
    result = measured()
    assert result["lead_max"] == 6
    assert result["cpu"]["io"] == pytest.approx(0.5)
    assert result["cpu"]["work"] == pytest.approx(0.005)
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
    for name in ("queues", "capacity", "cpu"):
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000
        assert "<svg" in (tmp_path / f"{name}.svg").read_text()


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_has_a_page_that_loads_nothing(tmp_path: Path, preset: str) -> None:
    content = summary(plan_of(preset))
    (tmp_path / "summary.json").write_text(json.dumps(content))
    report.draw(RunFolder(tmp_path))
    page = (tmp_path / "report.html").read_text()
    links = re.findall(r"(?:src|href|url)\s*[=(]\s*[\"']?([^\"')\s>]+)", page)
    assert all(link.startswith(("#", "data:", "url(#")) for link in links), links
    assert "<script" not in page
    for verdict in judge(content):
        assert escape(verdict.claim) in page
    assert page.count("<figure") == page.count("<svg") >= 1


def test_the_drawings_take_on_the_colours_of_the_page(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text(json.dumps(summary()))
    report.draw(RunFolder(tmp_path))
    page = (tmp_path / "report.html").read_text()
    drawn = page[page.index("<svg") :]
    assert "var(--blue)" in drawn
    assert not [colour for colour in COLOURS.values() if colour in drawn]


def test_a_variant_without_one_answer_in_time_is_drawn_as_well(tmp_path: Path) -> None:
    content = summary()
    for phase in content["phases"]:
        phase["goodput_per_second"] = 0.0
    (tmp_path / "summary.json").write_text(json.dumps(content))
    assert "INCONCLUSIVE" in report.draw(RunFolder(tmp_path))[1]


def test_a_summary_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text('{"state": "ok"}')
    with pytest.raises(FolderError, match="holds no experiment"):
        report.draw(RunFolder(tmp_path))


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
