"""A made-up experiment that confirms every claim, and the changes that turn each of them round."""

from __future__ import annotations

import dataclasses
from typing import Any

from loadtests.experiment.ledger import Ledger
from loadtests.experiment.matrix import DATA, Cost, Factors, Plan
from loadtests.experiment.presets import DIGEST, PRESETS, plan

COSTS = {work: Cost(work_units=30_000, s_seconds=0.004) for work in (DATA, DIGEST)}


def plan_of(preset: str, cores: int = 2) -> Plan:
    """A preset's plan as it is on a machine where one request costs 4 ms."""
    return plan(preset, cores, COSTS, PRESETS[preset].factors)


PLAN = plan_of("quick")
assert PLAN.factors == Factors()

CAPACITY = {"inline": 230.0, "process-1": 240.0, "process-cores": 440.0, "process-1-fifth": 1100.0}
CAPACITY["process-1-protected"] = 235.0
LEFT = {"process-1": 60.0}  # of the capacity, when overload makes every answer late
LEAD: dict[str, int] = {
    "inline": 6,
    "process-1": 700,
    "process-cores": 700,
    "process-1-fifth": 900,
    "process-1-protected": 60,
    "inline-batch": 500,
}
KERNEL = {"inline": 129, "process-1": 2, "process-cores": 2, "process-1-fifth": 2, "inline-batch": 129}
KERNEL["process-1-protected"] = 2


def ledger(**changes: int) -> dict[str, int]:
    """The books of a phase in which 100 connections went well."""
    counts = dict.fromkeys((field.name for field in dataclasses.fields(Ledger)), 0)
    return counts | dict.fromkeys(("planned", "sent", "connected", "accepted", "completed"), 100) | changes


def summary(made: Plan = PLAN) -> dict[str, Any]:
    """A summary as results.py builds it, with the fields that verdicts and drawings read."""
    phases = []
    for step in made.steps:
        variant = made.variants[step.variant]
        capacity = CAPACITY.get(step.variant, 100.0)
        phase: dict[str, Any] = {
            "id": step.id,
            "variant": step.variant,
            "round": step.round,
            "kind": step.kind,
            "load": step.load,
            "rate": step.rate,
            "state": "ok",
            "interrupted": False,
            "window_seconds": step.duration_seconds,
            "invalid_because": [],
            "goodput_per_second": min(
                step.rate, (LEFT if step.kind == "overload" else {}).get(step.variant, capacity)
            ),
            "achieved_per_second": min(step.rate, capacity),
            "outcomes": {"ok": 100},
            "lateness_seconds": {"p50": 0.0, "p90": 0.0, "p99": 0.001, "p99_9": 0.001, "max": 0.001},
            "cpu": {"work": 0.9, "io": 0.1, "generator": 0.05},
            "latency_seconds": {"p50": 0.004, "p90": 0.006, "p99": 0.01, "p99_9": 0.02, "max": 0.02},
            "s_seconds": variant.s_seconds,
            "limit_per_second": variant.limit_per_second,
            "lead_max": LEAD.get(step.variant, 3) if (step.kind != "measure") else 3,
            "kernel_queue_max": KERNEL.get(step.variant, 129) if (step.kind != "measure") else 1,
            "kernel_queue_limit": variant.backlog,
            "offload_queue_max": LEAD.get(step.variant, 3) if variant.offload == "process" else 0,
            "ledger": ledger(),
        }
        if step.kind != "measure":
            names = ("seconds", "offered", "accepted", "completed", "kernel_queue", "offload_queue")
            phase["timeline"] = {name: [0, 1, 2] for name in names}
        phases.append(phase)
    return {
        "status": {"state": "complete"},
        "plan": made.to_json(),
        "environment": {
            "date": "2026-01-01T00:00:00+00:00",
            "cpu": "a processor",
            "cores": 2,
            "kernel": "Linux 6",
            "python": "CPython 3",
            "load_average": [0.0, 0.0, 0.0],
            "open_files_limit": 1024,
            "packages": {"aiohttp": "3"},
            "sysctl": {"net.core.somaxconn": "4096"},
        },
        "phases": phases,
        "discarded": [],
    }


def of(content: dict[str, Any], variant: str, *, overload: bool) -> list[dict[str, Any]]:
    """The phases of one variant, measured or overloaded."""
    kinds = ("overload", "ramp") if overload else ("measure", "ramp")
    return [p for p in content["phases"] if p["variant"] == variant and p["kind"] in kinds]


def serve(phase: dict[str, Any], capacity: float) -> None:
    """Let a service of this capacity answer the phase: never more than was offered."""
    phase["goodput_per_second"] = phase["achieved_per_second"] = min(phase["rate"], capacity)
