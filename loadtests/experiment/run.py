"""Runs an experiment: variant by variant, phase by phase, into a run folder.

Knows the order of things. Touches child processes (the service, the generator) and the folder; all
figures come later, from the folder. However it ends, no child is left and what was measured stays.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from loadtests import machine
from loadtests.experiment import results
from loadtests.experiment.child import ServiceChild
from loadtests.experiment.counters import Watch
from loadtests.experiment.folder import RunFolder
from loadtests.experiment.matrix import Cost, Factors, Plan, Step
from loadtests.experiment.presets import PRESETS
from loadtests.experiment.presets import plan as make_plan
from loadtests.load.generator import read_samples, run_phase

OVERHEAD_SECONDS: Final = 1.5
"""Per phase, besides sending: starting the generator, draining what an overload left, starting services."""


def run(preset: str, factors: Factors, path: Path, console: Console) -> dict[str, Any]:
    """Calibrate, plan, measure; return the summary, which is also in the folder.

    Ctrl-C and failures leave a folder that says so in status.json; the exception goes on.

    Raises:
        FolderError: the folder cannot be used; ServiceError, GeneratorError: a child failed.
    """
    folder = RunFolder.create(path)
    folder.write("status.json", {"state": "running"})
    folder.write("environment.json", machine.environment())
    stolen = machine.stolen_seconds()
    state = "failed"
    try:
        costs = {work: calibrate(folder, work, factors.work_ms, console) for work in PRESETS[preset].works}
        plan = make_plan(preset, machine.cores(), costs, factors)
        folder.write("plan.json", plan.to_json())
        measure(plan, folder, console)
        state = "complete"
    except KeyboardInterrupt:
        state = "interrupted"
        raise
    finally:
        now = machine.stolen_seconds()
        steal = None if now is None or stolen is None else round(now - stolen, 2)
        folder.write("status.json", {"state": state, "stolen_cpu_seconds": steal})
        if (folder.path / "plan.json").exists():
            summary = results.build(folder)
            folder.write("summary.json", summary)
    return summary


def calibrate(folder: RunFolder, work: str, work_ms: float, console: Console) -> Cost:
    """Units of `work` and their CPU seconds, by the service's own calibration, once for all variants."""
    flags = [
        "--port",
        "0",
        "--admin-port",
        "0",
        "--log-format",
        "json",
        "--offload",
        "inline",
        "--work",
        work,
    ]
    with ServiceChild([*flags, "--work-ms", str(work_ms)], folder.log) as service:
        cost = Cost(work_units=service.work["units"], s_seconds=service.work["cpu_ms"] / 1e3)
    spent = f"{cost.s_seconds * 1e3:.2f} ms of CPU"
    console.print(f"One request is {cost.work_units} units of {work}: {spent} on this machine.")
    return cost


def measure(plan: Plan, folder: RunFolder, console: Console) -> None:
    """Run all visits, with a bar on a terminal and a line per phase everywhere."""
    total = plan.load_seconds + OVERHEAD_SECONDS * len(plan.steps)
    console.print(f"{len(plan.steps)} phases, about {total / 60:.1f} minutes. Ctrl-C keeps what is measured.")
    columns = (BarColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=total)
        for visit in plan.visits:
            with ServiceChild(visit.variant.flags(), folder.log) as service:
                for step in visit.steps:
                    progress.update(bar, description=f"{visit.variant.title} at {step.load:g}x")
                    result = run_step(plan, step, service, folder)
                    if result["state"] == "invalid":  # a shared machine has bad moments: one more try
                        console.print(line_of(result), highlight=False)
                        console.print(f"  repeated: {result['invalid_because'][0]}", highlight=False)
                        folder.discard(step)
                        result = run_step(plan, step, service, folder)
                    console.print(line_of(result), highlight=False)
                    progress.advance(bar, step.duration_seconds + OVERHEAD_SECONDS)


def run_step(plan: Plan, step: Step, service: ServiceChild, folder: RunFolder) -> results.Result:
    """One phase: watch, send, let the server finish, keep both sides; return what it came to."""
    phase = step.phase(f"{service.url}/data", plan.factors.timeout_seconds)
    with Watch(service.admin_url) as watch:
        try:
            with contextlib.closing(run_phase(phase, folder.load_of(step))) as sending:
                for _ in sending:
                    pass
        finally:
            # Also after Ctrl-C: the books of an interrupted phase close as well.
            if folder.load_of(step).exists():
                watch.settle(_connected(folder, step))
            folder.write_server(step, phase, watch.to_json())
    return results.phase_result(plan, step, *folder.raw(step))


def line_of(result: results.Result) -> str:
    """What a phase came to, in a line that fits 80 columns."""
    p99 = result["latency_seconds"]["p99"]
    late = "never" if p99 is None else f"{p99 * 1e3:.0f} ms"
    return (
        f"{result['variant']:<16}{result['load']:>5g}x  offered {result['rate']:>6.0f}/s  "
        f"in time {result['goodput_per_second']:>6.0f}/s  p99 {late:>9}"
    )


def _connected(folder: RunFolder, step: Step) -> int:
    samples, _ = read_samples(folder.load_of(step))
    return sum(sample.connected is not None for sample in samples)
