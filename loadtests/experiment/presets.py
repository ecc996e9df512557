"""The presets: which variants an experiment compares, and under which loads. Pure.

Knows the factors of the 2017 post and what each preset varies. A preset is a row of `PRESETS`: the
work it needs calibrated, its own defaults, and the function that lays out its plan.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from loadtests.experiment.matrix import (
    DATA,
    Cost,
    Factors,
    Plan,
    PlanError,
    Variant,
    Visit,
    alternate,
    step_of,
)

PUBLISHED_SHARE: Final = 1 / 5
"""The post's public history has N = 5000 in the inline figures and N = 1000 in the commit that added
the offload: its offloaded requests did a fifth of the work."""

PUBLISHED_RATES: Final = (
    20.0,
    60.0,
    100.0,
    120.0,
    160.0,
    180.0,
    *(float(rate) for rate in range(200, 351, 10)),
)
"""The 22 arrival rates of the post, requests per second, 20 s each."""

ALL_AT_ONCE: Final = 1000
"""An accept batch that empties the kernel queue in one turn of the loop."""

DIGEST: Final = "service.work:digest"
"""Work that releases the GIL; `DATA` holds it throughout."""

DEFAULTS: Final = Factors()
Costs = Mapping[str, Cost]


@dataclasses.dataclass(frozen=True, slots=True)
class Preset:
    """One experiment by name: what it asks, what it needs, its defaults and its layout."""

    question: str
    build: Callable[[int, Costs, Factors], tuple[Visit, ...]]
    factors: Factors = DEFAULTS
    works: tuple[str, ...] = (DATA,)


def plan(name: str, cores: int, costs: Costs, factors: Factors) -> Plan:
    """The plan of preset `name` from the calibrated costs of its works, by work function.

    Raises:
        PlanError: a phase would send nothing.
    """
    made = Plan(preset=name, cores=cores, factors=factors, visits=PRESETS[name].build(cores, costs, factors))
    for step in made.steps:
        try:
            step.phase("http://localhost/", factors.timeout_seconds)
        except ValueError as error:
            raise PlanError(f"phase {step.id} cannot be run: {error}") from error
    return made


def _variant(
    factors: Factors, cost: Cost, name: str, offload: str = "inline", workers: int = 1, **more: Any
) -> Variant:
    who = "inline" if offload == "inline" else f"{workers} {'thread' if offload == 'thread' else 'worker'}"
    who += "s" if workers > 1 else ""
    shared = {"accept_batch": factors.accept_batch, "backlog": factors.backlog, "loop": factors.loop}
    return Variant(
        name=name,
        title=f"{who}, {cost.s_seconds * 1e3:.2g} ms",
        offload=offload,
        workers=workers,
        work_units=cost.work_units,
        s_seconds=cost.s_seconds,
        **{**shared, **more},
    )


def _pair(factors: Factors, costs: Costs) -> tuple[Variant, Variant]:
    """Inline and one worker, with the same work."""
    cost = costs[DATA]
    return _variant(factors, cost, "inline"), _variant(factors, cost, "process-1", "process")


def _published(one: Variant) -> Variant:
    """One worker with a fifth of the work, as in the post's code history."""
    fifth = one.with_work_of(PUBLISHED_SHARE)
    title = f"1 worker, {fifth.s_seconds * 1e3:.2g} ms (as published)"
    return replace(fifth, name="process-1-fifth", title=title)


def _per_core(one: Variant, cores: int) -> Variant:
    title = one.title.replace("1 worker,", f"{cores} workers,")
    return replace(one, name="process-cores", title=title, workers=cores)


def _quick(cores: int, costs: Costs, factors: Factors) -> tuple[Visit, ...]:
    inline, one = _pair(factors, costs)
    measured = (inline, one, _per_core(one, cores), _published(one))
    title = f"{inline.title}, accept batch {ALL_AT_ONCE}"
    batch = replace(inline, name="inline-batch", title=title, accept_batch=ALL_AT_ONCE)
    protected = replace(one, name="process-1-protected", title=f"{one.title}, protected", protected=True)
    return alternate(measured, (*measured, protected, batch), factors)


def _controlled(cores: int, costs: Costs, factors: Factors) -> tuple[Visit, ...]:
    inline, one = _pair(factors, costs)
    measured = (inline, one, _per_core(one, cores))
    return alternate(measured, measured, factors)


def _as_published(_: int, costs: Costs, factors: Factors) -> tuple[Visit, ...]:
    inline, one = _pair(factors, costs)
    measured = (inline, _published(one))
    return alternate(measured, measured, factors)


def _accept_all_we_can(_: int, costs: Costs, factors: Factors) -> tuple[Visit, ...]:
    """The post's phases as they were: rising rates on one start of the service, inline and offloaded."""
    return tuple(
        Visit(
            variant=variant,
            steps=tuple(step_of(variant, 1, "ramp", rate, factors.phase_seconds) for rate in PUBLISHED_RATES),
        )
        for variant in _pair(factors, costs)
    )


def _batches(_: int, costs: Costs, factors: Factors) -> tuple[Visit, ...]:
    """Accept batch x loop, all inline: what makes accepted track completed?"""
    overloaded = [
        replace(
            _variant(factors, costs[DATA], f"inline-{loop}-{batch}", accept_batch=batch, loop=loop),
            title=f"{loop}, accept batch {batch}",
        )
        for batch in (1, 16, ALL_AT_ONCE)
        for loop in ("uvloop", "asyncio")
    ]
    return alternate((), overloaded, factors)


def _threads(cores: int, costs: Costs, factors: Factors) -> tuple[Visit, ...]:
    """Work that holds the GIL against work that releases it, in threads and in processes."""
    measured = []
    for kind, work in (("holds", DATA), ("releases", DIGEST)):
        for offload in ("inline", "thread", "process"):
            name = "inline" if offload == "inline" else f"{offload}-cores"
            workers = 1 if offload == "inline" else cores
            variant = _variant(factors, costs[work], f"{name}-{kind}", offload, workers, work=work)
            measured.append(replace(variant, title=f"{variant.title}, {kind} the GIL"))
    return alternate(measured, (), factors)


LONGER: Final = Factors(
    loads=(0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 1.0, 1.05, 1.1), phase_seconds=4.0, overload_seconds=10.0
)

PRESETS: Final[Mapping[str, Preset]] = {
    "quick": Preset("the post and its control, in under three minutes", _quick),
    "controlled": Preset("the same work inline, with one worker and with one per core", _controlled, LONGER),
    "as-published": Preset(
        "the work of the post's code history: S inline, S/5 offloaded", _as_published, LONGER
    ),
    "accept-all-we-can": Preset(
        "the 22 published phases of 20 s, backlog 4, inline and with one worker (25 minutes)",
        _accept_all_we_can,
        Factors(phase_seconds=20.0, backlog=4, rounds=1),
    ),
    "batches": Preset(
        "accept batch x event loop, inline: what makes accepted track completed?",
        _batches,
        Factors(rounds=1, overload_seconds=8.0),
    ),
    "threads": Preset(
        "work that holds the GIL against work that releases it: when do threads suffice?",
        _threads,
        works=(DATA, DIGEST),
    ),
}
