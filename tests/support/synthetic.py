"""A made-up experiment in which every figure is as measured on two cores, and the pieces it is made of.

The machine's speed drifts by a fifth from cycle to cycle and U scatters by a per cent, so intervals are
narrow and not of width zero.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, replace
from typing import Any, Final, Literal

from loadtests.experiment.blocks import Block, Inputs
from loadtests.experiment.counters import Reading
from loadtests.experiment.ledger import Ledger
from loadtests.experiment.plan import DATA, Case, Cost, Factors, Plan, Trigger, Variant
from loadtests.experiment.presets import DIGEST, PRESETS, plan
from loadtests.experiment.recovery import Recovery
from loadtests.experiment.results import STRETCHES, Kill, PhaseResult, Status, Summary, Timeline
from loadtests.load.facts import GeneratorFacts
from loadtests.load.histogram import Quantiles
from loadtests.load.results import ClientLedger
from loadtests.load.sample import Sample
from loadtests.machine import Environment

COSTS: Final[Mapping[str, Cost]] = {work: Cost(work_units=30_000, s_seconds=0.004) for work in (DATA, DIGEST)}
QUIET: Final = Inputs(stolen=0.0, others=0.01, throttled=0.0, generator=0.05)
NO_BOOKS: Final = Ledger(**dict.fromkeys((field.name for field in fields(Ledger)), 0))
READING: Final = Reading(**dict.fromkeys((field.name for field in fields(Reading)), 0))

FACTS: Final = GeneratorFacts(
    address="127.0.0.1:1",
    started_monotonic=100.0,
    started_epoch=1.7e9,
    wall_seconds=6.0,
    cpu_seconds=0.6,
    sending_seconds=6.0,
    sending_cpu_seconds=0.6,
    busiest_second_cpu_share=0.1,
    gc_pauses=0,
    gc_max_pause_seconds=0.0,
    interrupted=False,
    unreachable=False,
)

ENVIRONMENT: Final = Environment(
    date="2026-01-01T00:00:00+00:00",
    cpu="a processor",
    cores=2,
    memory_bytes=2**33,
    kernel="Linux 6",
    python="CPython 3",
    packages={"aiohttp": "3"},
    sysctl={"net.core.somaxconn": "4096"},
    open_files_limit=1024,
    load_average=0.1,
)


def reading(**values: Any) -> Reading:
    """A reading; what is not given is zero."""
    return replace(READING, **values)


def sample(
    intended: float,
    took: float | None = 0.004,
    outcome: str = "ok",
    *,
    connected: bool = True,
    port: int | None = None,
) -> Sample:
    """One request, sent on time."""
    finished = None if took is None else intended + took
    stood = intended if connected else None
    status = 200 if outcome == "ok" else None
    return Sample(intended, intended, stood, finished, finished, outcome, status, None, port)


def books(**changes: int) -> Ledger:
    """The books of a phase in which 100 connections went well."""
    went_well = dict.fromkeys(("planned", "sent", "connected", "accepted", "completed"), 100)
    return replace(NO_BOOKS, **{**went_well, **changes})


def plan_of(preset: str, cores: float = 2.0, **factors: Any) -> Plan:
    """A preset's plan as it is on a machine where one request costs 4 ms."""
    return plan(preset, cores, COSTS, replace(PRESETS[preset].factors, **factors))


def utilisation_of(variant: Variant, cores: float) -> float:
    """U as measured: one loop, one worker, or workers on what is left of the cores."""
    alone = 0.88 if variant.work_units < COSTS[DATA].work_units else 0.97
    if variant.offload == "inline" or (variant.offload == "thread" and variant.name.endswith("holds")):
        return 0.82
    if variant.workers == 1:
        return alone
    return 0.96 * (cores - 0.2 * variant.workers)


def block_of(
    variant: Variant,
    cycle: int,
    *,
    part: Literal["cycle", "beside", "ramp"] = "cycle",
    utilisation: float = 0.9,
    demand_seconds: float = 0.004,
    seconds: float = 1.2,
    io_per_worker: float = 0.15,
    generator: float = 0.05,
    offered_per_second: float | None = None,
    piece_seconds: float | None = None,
    void_because: tuple[str, ...] = (),
) -> Block:
    """A block with these figures; whole tasks, so U is a little off."""
    tasks = round(utilisation * seconds / demand_seconds)
    return Block(
        part=part,
        cycle=cycle,
        variant=variant.name,
        workers=variant.workers,
        offered_per_second=offered_per_second,
        seconds=seconds,
        tasks=tasks,
        work_cpu_seconds=tasks * demand_seconds,
        io_cpu_seconds=io_per_worker * variant.workers * seconds,
        generator_cpu_seconds=generator * variant.workers * seconds,
        inputs=QUIET,
        outcomes={} if part == "ramp" else {"ok": 100},  # of a ramp the phase has them
        ledger=None if part == "ramp" else books(),
        piece_seconds=piece_seconds,
        void_because=void_because,
    )


# In flight at most, and in the kernel's queue at most, when overloaded.
PEAKS: Final = {"inline": 6, "executor-1": 700, "inline-batch": 500, "lanes-1": 60}
KERNEL: Final = {"executor-1": 2, "lanes-1": 2}
IN_TIME: Final = {"executor-1": 0.2, "lanes-1": 0.95}  # of workers / S


def phase_of(
    variant: Variant,
    kind: Literal["overload", "ramp", "curve"],
    number: int,
    *,
    pressure: float,
    seconds: float = 3.0,
    demand_seconds: float = 0.004,
) -> PhaseResult:
    """An open-loop phase as measured at so many times workers / S."""
    limit = variant.workers / demand_seconds
    overloaded = pressure > 1
    large = PEAKS["inline-batch"] if variant.accept_batch == 1000 else PEAKS["inline"]
    peak = PEAKS.get(variant.name, large) if overloaded else 2
    goodput = limit * min(pressure, IN_TIME.get(variant.name, 0.8))
    counts = tuple(range(31))
    line = Timeline(
        seconds=tuple(seconds * n / 30 for n in counts),
        offered=tuple(40 * n for n in counts),
        accepted=tuple(30 * n for n in counts),
        completed=tuple(25 * n for n in counts),
        kernel_queue=counts,
        offload_queue=counts,
    )
    return PhaseResult(
        id=f"{number:03d}-{kind}-{variant.name}-{limit * pressure:g}",
        kind=kind,
        variant=variant.name,
        workers=variant.workers,
        seconds=seconds,
        offered_per_second=limit * pressure,
        goodput_per_second=goodput,
        achieved_per_second=limit * min(pressure, 0.9),
        latency_seconds=Quantiles.of([0.004, 0.01] if not overloaded else [0.5, 2.0]),
        lateness_p99_seconds=0.001,
        samples=100,
        tasks=100,
        demand_seconds=demand_seconds,
        pressure=pressure,
        peak=peak,
        kernel_queue_max=KERNEL.get(variant.name, 129 if variant.backlog >= 129 else variant.backlog + 1)
        if overloaded
        else 1,
        kernel_queue_limit=variant.backlog,
        offload_queue_max=peak if variant.offload != "inline" else 0,
        outcomes={"ok": 100},
        ledger=books(),
        inputs=QUIET,
        interrupted=False,
        invalid_because=(),
        timeline=None if kind == "curve" else line,
    )


# After how many seconds without the trigger each case is back; None: never.
BACK: Final[Mapping[str, int | None]] = {
    "pool-none": 15,
    "pool-immediate": None,
    "pool-backoff": None,
    "pool-budget": 22,
    "bounded-immediate": 0,
    "offloop-immediate": 0,
}


def recovery_of(trigger: Trigger, case: Case, back: int | None) -> Recovery:
    """A case that answers nothing until it is back; up to four attempts for each request until then."""
    base, peak, rest = 120, 600, trigger.after_seconds
    down = rest if back is None else min(back, rest)
    retried = base if case.retry == "none" else 4 * base
    parts = ((trigger.before_seconds, base), (trigger.seconds, 30), (down, 0), (rest - down, base))
    sent = ((trigger.before_seconds, base), (trigger.seconds, 3 * peak), (down, retried), (rest - down, base))
    requests = base * (trigger.before_seconds + rest) + peak * trigger.seconds
    attempts = sum(seconds * rate for seconds, rate in sent)
    client = ClientLedger(
        **dict.fromkeys((field.name for field in fields(ClientLedger)), 0)
        | {"planned": requests, "sent": requests, "attempts": attempts, "connected": attempts}
        | {"connections": attempts, "answered": attempts}
    )
    whole = {"planned": requests, "sent": requests, "retried": attempts - requests}
    served = dict.fromkeys(("connected", "accepted", "completed"), attempts)
    return Recovery(
        case=case.name,
        limit_per_second=200.0,
        base_per_second=float(base),
        peak_per_second=float(peak),
        before_seconds=trigger.before_seconds,
        seconds=trigger.seconds,
        answered=tuple(rate for seconds, rate in parts for _ in range(seconds)),
        attempts=tuple(rate for seconds, rate in sent for _ in range(seconds)),
        loads=(0.58, 0.6, 0.62),
        lateness_p99_seconds=0.001,
        outcomes={"ok": requests},
        attempt_outcomes={"ok": attempts},
        client=client,
        ledger=books(**whole, **served) if case.design == trigger.variant else None,
        inputs=QUIET,
    )


def speed(cycle: int) -> float:
    """How much slower than usual the machine is."""
    return 1 + 0.2 * math.sin(cycle)


def scatter(variant: Variant, cycle: int) -> float:
    """What a block's U is off by, as a factor."""
    return 1 + 0.01 * random.Random(f"{variant.name}:{cycle}").uniform(-1, 1)


def share_of_work(variant: Variant) -> float:
    """How much of the usual work one request of a variant is."""
    return variant.work_units / COSTS[variant.work].work_units


def _blocks(made: Plan, names: Iterable[str], part: Literal["cycle", "beside"], cycles: int) -> list[Block]:
    return [
        block_of(
            made.variant(name),
            cycle,
            part=part,
            utilisation=utilisation_of(made.variant(name), made.cores) * scatter(made.variant(name), cycle),
            demand_seconds=0.004 * speed(cycle) * share_of_work(made.variant(name)),
        )
        for cycle in range(1, cycles + 1)
        for name in made.order(tuple(names), cycle)
    ]


def _ramp(made: Plan) -> tuple[list[PhaseResult], list[Block]]:
    phases: list[PhaseResult] = []
    blocks: list[Block] = []
    if made.ramp is None:
        return phases, blocks
    for number, rate in enumerate(made.ramp.rates_per_second):
        for name in made.ramp.variants:
            variant = made.variant(name)
            pressure = rate * 0.004 / variant.workers
            phases.append(phase_of(variant, "ramp", len(phases) + 1, pressure=pressure, seconds=20.0))
            most = utilisation_of(variant, made.cores)
            blocks += [
                block_of(
                    variant,
                    number * STRETCHES + k,
                    part="ramp",
                    utilisation=min(most * scatter(variant, number * STRETCHES + k), pressure),
                    offered_per_second=rate,
                )
                for k in range(STRETCHES)
            ]
    return phases, blocks


def summary_of(made: Plan, *, cycles: int | None = None) -> Summary:
    """A whole run of this plan, as folder.py builds it, in which everything went as measured."""
    phases, cut = _ramp(made)
    for _ in range(made.factors.overload_repeats):
        for name in made.overloaded:
            phases.append(phase_of(made.variant(name), "overload", len(phases) + 1, pressure=1.4))
    for name in made.curve:
        for load in (0.5, 0.9, 1.05):
            phases.append(phase_of(made.variant(name), "curve", len(phases) + 1, pressure=load))
    blocks = _blocks(made, made.measured, "cycle", cycles or made.factors.cycles)
    blocks += _blocks(made, made.beside, "beside", 4)
    trigger = made.trigger
    recoveries = (
        tuple(recovery_of(trigger, case, BACK[case.name]) for case in trigger.cases)
        if trigger is not None
        else ()
    )
    kills = tuple(
        Kill(variant=name, answered=600, failed=number, longest_seconds=0.1, usual_p99_seconds=0.04)
        for number, name in enumerate(made.killed)
    )
    return Summary(
        status=Status(state="complete", seconds=150.0),
        environment=replace(ENVIRONMENT, cores=made.cores),
        plan=made,
        blocks=(*blocks, *cut),
        phases=tuple(phases),
        kills=kills,
        recoveries=recoveries,
    )


def quick() -> Summary:
    """The preset that a newcomer runs."""
    return summary_of(plan_of("quick"))


def with_blocks(summary: Summary, variant: str, change: Callable[[Block], Block]) -> Summary:
    """The same run with other blocks of one variant."""
    changed = tuple(change(block) if block.variant == variant else block for block in summary.blocks)
    return replace(summary, blocks=changed)


def with_phases(summary: Summary, variant: str, only: int | None = None, **changes: Any) -> Summary:
    """The same run with other open-loop phases of one variant; `only` the n-th of them, from 0."""
    of_variant = [phase.id for phase in summary.phases if phase.variant == variant]
    chosen = set(of_variant if only is None else of_variant[only : only + 1])
    changed = tuple(replace(phase, **changes) if phase.id in chosen else phase for phase in summary.phases)
    return replace(summary, phases=changed)


def with_recovery(summary: Summary, case: str, **changes: Any) -> Summary:
    """The same run in which a case came back after `back` seconds, or with other changes of its figures."""
    trigger = summary.plan.trigger
    assert trigger is not None
    (which,) = [one for one in trigger.cases if one.name == case]
    back = changes.pop("back", BACK[case])
    made = replace(recovery_of(trigger, which, back), **changes)
    changed = tuple(made if one.case == case else one for one in summary.recoveries)
    return replace(summary, recoveries=changed)


def faster(factor: float) -> Callable[[Block], Block]:
    """A block with so many times the tasks, and the CPU time they take."""
    return lambda block: replace(
        block, tasks=round(block.tasks * factor), work_cpu_seconds=block.work_cpu_seconds * factor
    )


def costlier(factor: float) -> Callable[[Block], Block]:
    """A block in which each unit of work takes so many times the CPU time; U stays."""
    return lambda block: replace(block, tasks=round(block.tasks / factor))


assert PRESETS["quick"].factors == Factors()
