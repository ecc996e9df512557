"""A made-up experiment that confirms every claim, and the changes that turn each of them round."""

from __future__ import annotations

import dataclasses
from typing import Any

from loadtests.ledger import Ledger
from loadtests.presets import quick

PLAN = quick(cores=2, work_units=30_000, s_seconds=0.004)

CAPACITY = {"inline": 230.0, "process-1": 240.0, "process-cores": 440.0, "process-1-fifth": 1100.0}
LEAD = {"inline": 6, "process-1": 700, "process-cores": 700, "process-1-fifth": 900, "inline-batch": 500}
KERNEL = {"inline": 129, "process-1": 2, "process-cores": 2, "process-1-fifth": 2, "inline-batch": 129}


def ledger(**changes: int) -> dict[str, int]:
    """The books of a phase in which 100 connections went well."""
    counts = dict.fromkeys((field.name for field in dataclasses.fields(Ledger)), 0)
    return counts | dict.fromkeys(("planned", "sent", "connected", "accepted", "completed"), 100) | changes


def summary() -> dict[str, Any]:
    """A summary as results.py builds it, with the fields that verdicts and drawings read."""
    phases = []
    for step in PLAN.steps:
        variant = PLAN.variants[step.variant]
        phase: dict[str, Any] = {
            "id": step.id,
            "variant": step.variant,
            "round": step.round,
            "load": step.load,
            "rate": step.rate,
            "state": "ok",
            "interrupted": False,
            "window_seconds": step.duration_seconds,
            "invalid_because": [],
            "goodput_per_second": min(step.rate, CAPACITY.get(step.variant, 100.0)),
            "latency_seconds": {"p50": 0.004, "p90": 0.006, "p99": 0.01, "p99_9": 0.02, "max": 0.02},
            "s_seconds": variant.s_seconds,
            "limit_per_second": variant.limit_per_second,
            "lead_max": LEAD[step.variant] if step.is_overload else 3,
            "kernel_queue_max": KERNEL[step.variant] if step.is_overload else 1,
            "kernel_queue_limit": variant.backlog,
            "offload_queue_max": LEAD[step.variant] if variant.offload == "process" else 0,
            "ledger": ledger(),
        }
        if step.is_overload:
            names = ("seconds", "offered", "accepted", "completed", "kernel_queue", "offload_queue")
            phase["timeline"] = {name: [0, 1, 2] for name in names}
        phases.append(phase)
    return {
        "status": {"state": "complete"},
        "plan": PLAN.to_json(),
        "environment": {
            "date": "2026-01-01T00:00:00+00:00",
            "cpu": "a processor",
            "cores": 2,
            "kernel": "Linux 6",
            "python": "CPython 3",
        },
        "phases": phases,
        "discarded": [],
    }


def of(content: dict[str, Any], variant: str, *, overload: bool) -> list[dict[str, Any]]:
    """The phases of one variant, measured or overloaded."""
    return [p for p in content["phases"] if p["variant"] == variant and ("timeline" in p) == overload]
