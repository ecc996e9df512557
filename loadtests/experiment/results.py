"""From the raw phases of a run folder to its summary: pure once the files are read.

Knows what each figure of a phase means. Every verdict and every drawing is made from the summary
alone, so a committed summary is enough to redraw a report.
"""

from __future__ import annotations

import dataclasses
from bisect import bisect_right
from typing import Any

from loadtests.experiment.folder import DISCARDED, RunFolder
from loadtests.experiment.ledger import reconcile
from loadtests.experiment.matrix import Plan, Step
from loadtests.load.facts import GeneratorFacts
from loadtests.load.phase import Phase
from loadtests.load.sample import Sample
from loadtests.load.summary import summarise

SLOWEST_WATCH = 5.0  # rows per second: with fewer, a lead or a queue can come and go unseen

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
    facts: GeneratorFacts,
    watched: dict[str, Any],
) -> Result:
    """One phase: the client's summary, the server's figures and both books reconciled.

    Adds to the client's summary: `s_seconds` (CPU seconds per task as the workers measured them in
    this phase), `limit_per_second` (workers / that S), `lead_max` (most connections accepted and not
    completed while load was sent), the highest queues, `cpu` (cores used by the work, by the rest of
    the IO process and by the generator while load was sent), and a `timeline` unless the phase only
    measures.
    """
    variant = plan.variants[step.variant]
    client = summarise(samples, facts, phase, slo_seconds=plan.factors.slo_seconds).to_json()
    rows = [dict(zip(watched["columns"], row, strict=True)) for row in watched["rows"]]
    begin = facts.started_monotonic
    during = [row for row in rows if begin <= row["time"] <= begin + phase.duration_seconds] or rows[:1]
    first, last = rows[0], rows[-1]
    tasks = last["tasks"] - first["tasks"]
    s_seconds = (last["task_cpu_seconds"] - first["task_cpu_seconds"]) / tasks if tasks else None
    elapsed = during[-1]["time"] - during[0]["time"]
    result = {
        **{name: getattr(step, name) for name in ("id", "variant", "round", "kind", "load", "rate")},
        **{
            key: value
            for key, value in client.items()
            if key not in ("address", "url", "thresholds", "ledger")
        },
        "samples": len(samples),
        "listen_overflows": watched["listen_overflows"],
        "ledger": dataclasses.asdict(reconcile(client["ledger"], first, last, watched["listen_overflows"])),
        "s_seconds": s_seconds,
        "limit_per_second": variant.workers / s_seconds if s_seconds else None,
        "lead_max": max(int(row["active"]) for row in during),
        "kernel_queue_max": max(int(row["kernel_queue"]) for row in during),
        "kernel_queue_limit": int(first["kernel_queue_limit"]),
        "offload_queue_max": max(int(row["offload_queue"]) for row in during),
        "cpu": _cpu(variant.offload, during[0], during[-1], client["generator"]["cpu_share"]),
        "watch_per_second": (len(during) - 1) / elapsed if elapsed else None,
    }
    if result["watch_per_second"] is not None and result["watch_per_second"] < SLOWEST_WATCH:
        result["state"] = "invalid"
        rate = f"{result['watch_per_second']:.1f} times a second"
        result["invalid_because"] = [*client["invalid_because"], f"the server could only be watched {rate}"]
    if step.kind != "measure":
        # A ramp is drawn as rates over about a second: every fifth row keeps its summary small.
        result["timeline"] = timeline(samples, rows[::5] if step.kind == "ramp" else rows, begin)
    return result


def _cpu(offload: str, first: dict[str, float], last: dict[str, float], generator: float) -> dict[str, float]:
    """Cores used between two rows; work done inline or in threads is part of the IO process."""
    elapsed = last["time"] - first["time"]
    if not elapsed:
        return {"work": 0.0, "io": 0.0, "generator": generator}
    work = (last["task_cpu_seconds"] - first["task_cpu_seconds"]) / elapsed
    io = (last["io_cpu_seconds"] - first["io_cpu_seconds"]) / elapsed
    return {"work": work, "io": io if offload == "process" else max(io - work, 0.0), "generator": generator}


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
