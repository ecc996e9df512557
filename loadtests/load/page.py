"""Draws report.html of a run folder, of one rate or of several, from what is in the folder alone.

Knows the templates and what a page says. Touches the pages in that folder. Never measures, and never shows
the value of a header or a body: they may be secrets, and a page is passed on.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from loadtests.files import write_whole
from loadtests.load import doctor, figures
from loadtests.load.folder import PAGE, Record, holds_steps, read_run, read_steps
from loadtests.load.results import MISSED, PASSED, TOO_FEW, StepsSummary
from loadtests.load.tell import COLUMNS, books_of, observed, retries_of, seconds, times, told, verdict_of
from loadtests.pages import frame

RUN: Final = Path(__file__).with_name("run.html.j2")
STEPS: Final = Path(__file__).with_name("steps.html.j2")

# Classes of the frame, each with its colour.
CLASSES: Final = {
    "ok": "held",
    "invalid": "invalid",
    PASSED: "held",
    MISSED: "did-not-hold",  # of a run and of a threshold
    TOO_FEW: "inconclusive",
}
CAPTIONS: Final = {
    "latency": "Latency counts from the moment a request was due, so a stall shows in all that came due "
    "meanwhile. The lines are quantiles of slices of at least a second and a hundred requests; a gap is a "
    "slice in which the quantile is never. A cross marks requests that did not get the expected answer.",
    "rates": "Offered and failed requests count when they were due, answered ones when they were complete; "
    "attempts, if clients retry, when they were sent.",
    "quantiles": "One request in a hundred waited longer than at 99 %. The last point is the maximum. "
    "The gap between the two lines is the wait before a request could be sent; if clients retry, before its "
    "last attempt.",
    "steps": "A mark for each step. Where answers leave the dotted line, capacity ends. A hollow mark is an "
    "INVALID step: it says nothing about the server. Each rate was sent by itself, because a continuous ramp "
    "overestimates the capacity: a queue that begins to grow shows only later, at a higher rate.",
}


def draw(folder: Path) -> Path:
    """Write the page of a run folder and of each of its steps; returns its path.

    Raises `ValueError` if the folder holds no readable run.
    """
    if holds_steps(folder):
        found = read_steps(folder)
        for step in found.steps:
            draw(folder / step.name)
        html = of_steps(found)
    else:
        html = of_run(read_run(folder))
    write_whole(folder / PAGE, html)
    return folder / PAGE


def of_run(record: Record) -> str:
    """The page of one phase as HTML."""
    summary = record.summary
    return frame.render(
        RUN,
        figures.of_run(record),
        captions=CAPTIONS,
        classes=CLASSES,
        summary=summary,
        phase=record.phase,
        told=told(summary).replace("  ", ", "),
        date=_date(record.facts.started_epoch),
        headings=[heading for heading, _ in COLUMNS],
        times=list(times(summary)),
        verdicts=[(result, verdict_of(result)) for result in summary.thresholds],
        observed=observed,
        books=books_of(summary).splitlines(),
        retries=retries_of(summary),
        generator_pause=seconds(summary.generator.gc_max_pause_seconds),
        forecast=list(doctor.sentences(record.forecast)),
        plan=_plan(record),
    )


def of_steps(found: StepsSummary) -> str:
    """The page of several steps as HTML."""
    return frame.render(
        STEPS,
        figures.of_steps(found),
        captions=CAPTIONS,
        classes=CLASSES,
        found=found,
        url=found.steps[0].summary.url,
        slo=found.steps[0].summary.slo_seconds,
        page=PAGE,
        seconds=seconds,
        verdict_of=verdict_of,
    )


def _date(epoch: float) -> str:
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _plan(record: Record) -> dict[str, str]:
    """The order of the run, by name."""
    phase, summary = record.phase, record.summary
    slo = summary.slo_seconds
    plan = {
        "request": f"{phase.method} {phase.url}",
        "address": summary.address,
        "load": f"{phase.workload} for {phase.duration_seconds:g} s",
        "seed": str(phase.seed) if phase.arrivals == "poisson" or phase.retries_at_most else "",
        "headers": ", ".join(f"{name} (value not shown)" for name, _ in phase.headers),
        "body": f"{len(phase.body_bytes):,} bytes" if phase.body else "",
        "success": phase.expect,
        "SLO": "" if slo is None else seconds(slo),
        "time-out": f"{phase.timeout_seconds:g} s",
        "retries": f"{phase.retry}, at most {phase.retries}" if phase.retries_at_most else "",
        "in flight at most": f"{phase.max_in_flight:,}",
        "local addresses": phase.source or "",
        "local ports": phase.port_range or "",
        "closes first": f"the {phase.who_closes}",
        "certificates": "not verified" if phase.insecure else "",
    }
    return {name: value for name, value in plan.items() if value}
