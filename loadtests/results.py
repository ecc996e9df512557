"""From the raw phases of a run folder to its summary: pure once the files are read.

Knows what each figure of a phase means. Every verdict and every drawing is made from the summary
alone, so a committed summary is enough to redraw a report.
"""

from __future__ import annotations

import dataclasses
from bisect import bisect_right
from typing import Any

from loadtests.folder import DISCARDED, RunFolder
from loadtests.ledger import reconcile
from loadtests.plan import Phase
from loadtests.presets import Plan, Step
from loadtests.sample import Sample
from loadtests.summary import summarise

Result = dict[str, Any]


def build(folder: RunFolder) -> dict[str, Any]:
    """The summary of all phases that were measured: `{"status", "plan", "environment", "phases"}`.

    `discarded` holds phases that were invalid and repeated: no verdict uses them, the ledger does.
    """
    plan = folder.plan()
    kept = [step for step in plan.steps if folder.is_measured(step)]
    repeated = [dataclasses.replace(step, id=f"{step.id}{DISCARDED}") for step in plan.steps]
    discarded = [step for step in repeated if folder.is_measured(step)]
    return {
        "status": folder.read("status.json"),
        "plan": plan.to_json(),
        "environment": folder.read("environment.json"),
        "phases": [phase_result(plan, step, *folder.raw(step)) for step in kept],
        "discarded": [phase_result(plan, step, *folder.raw(step)) for step in discarded],
    }


def phase_result(
    plan: Plan,
    step: Step,
    phase: Phase,
    samples: list[Sample],
    facts: dict[str, Any],
    watched: dict[str, Any],
) -> Result:
    """One phase: the client's summary, the server's figures and both books reconciled.

    Adds to the client's summary: `s_seconds` (CPU seconds per task as the workers measured them in
    this phase), `limit_per_second` (workers / that S), `lead_max` (most connections accepted and not
    completed while load was sent), the highest queues, CPU shares of a core, and for overload phases
    a `timeline`.
    """
    variant = plan.variants[step.variant]
    client = summarise(samples, facts, phase, slo_seconds=plan.slo_seconds)
    rows = [dict(zip(watched["columns"], row, strict=True)) for row in watched["rows"]]
    begin = facts["started_monotonic"]
    during = [row for row in rows if begin <= row["time"] <= begin + phase.duration_seconds] or rows[:1]
    first, last = rows[0], rows[-1]
    tasks = last["tasks"] - first["tasks"]
    s_seconds = (last["task_cpu_seconds"] - first["task_cpu_seconds"]) / tasks if tasks else None
    elapsed = during[-1]["time"] - during[0]["time"]
    io_cpu = during[-1]["io_cpu_seconds"] - during[0]["io_cpu_seconds"]
    result = {
        **{name: getattr(step, name) for name in ("id", "variant", "round", "load", "rate")},
        **{
            key: value
            for key, value in client.items()
            if key not in ("address", "url", "thresholds", "ledger")
        },
        "samples": len(samples),
        "ledger": dataclasses.asdict(reconcile(client["ledger"], first, last, watched["listen_overflows"])),
        "s_seconds": s_seconds,
        "limit_per_second": variant.workers / s_seconds if s_seconds else None,
        "lead_max": max(int(row["active"]) for row in during),
        "kernel_queue_max": max(int(row["kernel_queue"]) for row in during),
        "kernel_queue_limit": int(first["kernel_queue_limit"]),
        "offload_queue_max": max(int(row["offload_queue"]) for row in during),
        "io_cpu_share": io_cpu / elapsed if elapsed else None,
        "watch_per_second": (len(during) - 1) / elapsed if elapsed else None,
    }
    if step.is_overload:
        result["timeline"] = timeline(samples, rows, begin)
    return result


def timeline(samples: list[Sample], rows: list[dict[str, float]], begin: float) -> dict[str, list[float]]:
    """Counts since the phase began, at each row of the watch: the two queues and three cumulative curves."""
    due = sorted(sample.intended for sample in samples)
    base = rows[0]
    return {
        "seconds": [round(row["time"] - begin, 3) for row in rows],
        "offered": [bisect_right(due, row["time"]) for row in rows],
        "accepted": [int(row["accepted"] - base["accepted"]) for row in rows],
        "completed": [int(row["completed"] - base["completed"]) for row in rows],
        "kernel_queue": [int(row["kernel_queue"]) for row in rows],
        "offload_queue": [int(row["offload_queue"]) for row in rows],
    }
