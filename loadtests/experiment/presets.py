"""The presets: which variants an experiment compares, and what each question needs. Pure.

Knows the factors of the 2017 post and what each preset varies. A preset is a row of `PRESETS`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from loadtests.experiment import metastable
from loadtests.experiment.plan import DATA, Cost, Factors, Plan, PlanError, Ramp, Variant

PUBLISHED_SHARE: Final = 1 / 5
"""The post's public history has N = 5000 in the inline figures and N = 1000 in the commit that added
the offload: its offloaded requests did a fifth of the work."""

PUBLISHED_RATES: Final = (
    *(20.0, 60.0, 100.0, 120.0, 160.0, 180.0),
    *(float(rate) for rate in range(200, 351, 10)),
)
"""The 22 arrival rates of the post, requests per second, 20 s each."""

ALL_AT_ONCE: Final = 1000
"""An accept batch that empties the kernel queue in one turn of the loop."""

FEWEST_REQUESTS: Final = 10
"""Of an overload; with fewer no queue has a length."""

PLANTED: Final = 1.25
"""The work of a variant of `a-a`, as a multiple, for the instrument to find."""

DIGEST: Final = "service.work:digest"
"""Work that releases the GIL; `DATA` holds it throughout."""

Costs = Mapping[str, Cost]


@dataclasses.dataclass(frozen=True, slots=True)
class Preset:
    """One experiment: its question, its layout, its defaults and its work functions."""

    question: str
    build: Callable[[float, Costs, Factors], dict[str, Any]]
    factors: Factors = Factors()  # noqa: RUF009  # frozen
    works: tuple[str, ...] = (DATA,)


def plan(name: str, cores: float, costs: Costs, factors: Factors) -> Plan:
    """The plan of preset `name` from the calibrated costs of its works, by work function.

    Raises:
        PlanError: the factors contradict each other.
    """
    if factors.cycles < 1 or factors.overload_repeats < 1:
        raise PlanError("an experiment needs at least one cycle and one overload of each kind")
    made = Plan(preset=name, cores=cores, factors=factors, **PRESETS[name].build(cores, costs, factors))
    slowest = max(cost.s_seconds for cost in costs.values())
    requests = factors.overload * factors.overload_seconds / slowest
    if made.overloaded and requests < FEWEST_REQUESTS:
        raise PlanError(
            f"an overload of {factors.overload:g}x for {factors.overload_seconds:g} s is about "
            f"{requests:.0f} requests of {_ms(slowest)}, and shows nothing"
        )
    return made


def _ms(seconds: float) -> str:
    """Two significant digits, and never an exponent."""
    return f"{float(f'{seconds * 1e3:.2g}'):g} ms"


def _inline(factors: Factors, cost: Cost, **more: Any) -> Variant:
    fields = {
        "name": "inline",
        "title": f"inline, {_ms(cost.s_seconds)}",
        "offload": "inline",
        "workers": 1,
        "work_units": cost.work_units,
        "accept_batch": factors.accept_batch,
        "backlog": factors.backlog,
        "loop": factors.loop,
    }
    return Variant(**{**fields, **more})


def _one(factors: Factors, cost: Cost) -> Variant:
    """One worker of the stock executor, with the same work."""
    return _inline(
        factors,
        cost,
        name="executor-1",
        title=f"1 worker, {_ms(cost.s_seconds)}",
        offload="executor",
    )


def _per_core(one: Variant, cores: float) -> Variant:
    count = max(1, int(cores))
    title = one.title.replace("1 worker,", f"{count} workers," if count > 1 else "1 worker for 1 core,")
    return replace(one, name="executor-cores", title=title, workers=count)


def _fifth(one: Variant, cost: Cost) -> Variant:
    """One worker with a fifth of the work, as in the post's code history."""
    title = f"1 worker, {_ms(cost.s_seconds * PUBLISHED_SHARE)} (as published)"
    units = max(1, round(cost.work_units * PUBLISHED_SHARE))
    return replace(one, name="executor-1-fifth", title=title, work_units=units)


def _quick(cores: float, costs: Costs, factors: Factors) -> dict[str, Any]:
    cost = costs[DATA]
    inline, one = _inline(factors, cost), _one(factors, cost)
    batch = replace(
        inline,
        name="inline-batch",
        title=f"{inline.title}, accept batch {ALL_AT_ONCE}",
        accept_batch=ALL_AT_ONCE,
    )
    lanes = replace(
        one, name="lanes-1", title=f"{one.title}, lanes, protected", offload="process", protected=True
    )
    measured = (inline, one, _per_core(one, cores), _fifth(one, cost))
    return {
        "variants": (*measured, batch, lanes),
        "measured": tuple(variant.name for variant in measured),
        "beside": ("executor-1", "lanes-1"),
        "overloaded": ("inline", "executor-1", "inline-batch", "lanes-1"),
        "killed": ("executor-1", "lanes-1"),
    }


def _controlled(cores: float, costs: Costs, factors: Factors) -> dict[str, Any]:
    return {**_quick(cores, costs, factors), "curve": ("inline", "executor-1", "executor-cores", "lanes-1")}


def _accept_all_we_can(_: float, costs: Costs, factors: Factors) -> dict[str, Any]:
    """The post's phases as they were: rising rates on one start of the service, inline and offloaded."""
    variants = (_inline(factors, costs[DATA]), _one(factors, costs[DATA]))
    names = tuple(variant.name for variant in variants)
    return {
        "variants": variants,
        "ramp": Ramp(
            variants=names, rates_per_second=PUBLISHED_RATES, phase_seconds=factors.overload_seconds
        ),
    }


def _batches(_: float, costs: Costs, factors: Factors) -> dict[str, Any]:
    """Accept batch x loop, all inline: what makes accepted track completed?"""
    variants = tuple(
        _inline(
            factors,
            costs[DATA],
            name=f"inline-{loop}-{batch}",
            title=f"{loop}, accept batch {batch}",
            accept_batch=batch,
            loop=loop,
        )
        for batch in (1, 16, ALL_AT_ONCE)
        for loop in ("uvloop", "asyncio")
    )
    names = tuple(variant.name for variant in variants)
    return {"variants": variants, "measured": names, "overloaded": names}


def _threads(cores: float, costs: Costs, factors: Factors) -> dict[str, Any]:
    """Work that holds the GIL against work that releases it, in threads and in processes."""
    variants = []
    for kind, work in (("holds", DATA), ("releases", DIGEST)):
        cost = costs[work]
        inline = _inline(factors, cost, name=f"inline-{kind}", work=work)
        variants.append(replace(inline, title=f"{inline.title}, {kind} the GIL"))
        for offload, what in (("thread", "threads"), ("executor", "workers")):
            count = max(1, int(cores))
            title = f"{count} {what}, {_ms(cost.s_seconds)}, {kind} the GIL"
            name = f"{offload}-cores-{kind}"
            variants.append(replace(inline, name=name, title=title, offload=offload, workers=count))
    return {"variants": tuple(variants), "measured": tuple(variant.name for variant in variants)}


def _a_a(_: float, costs: Costs, factors: Factors) -> dict[str, Any]:
    """Inline beside itself, and beside itself with more work: does the instrument find what is there?"""
    cost = costs[DATA]
    inline = _inline(factors, cost)
    again = replace(inline, name="inline-again", title=f"{inline.title}, again")
    more = replace(
        inline,
        name="inline-more",
        title=f"inline, {_ms(cost.s_seconds * PLANTED)}",
        work_units=round(cost.work_units * PLANTED),
    )
    variants = (inline, again, more)
    return {"variants": variants, "measured": tuple(variant.name for variant in variants)}


PRESETS: Final[Mapping[str, Preset]] = {
    "quick": Preset("the post and its control (3 minutes)", _quick),
    "controlled": Preset(
        "the same with more cycles and a latency curve (8 minutes)",
        _controlled,
        Factors(cycles=24, more_cycles=12, overload_repeats=5, budget_seconds=400.0),
    ),
    "accept-all-we-can": Preset(
        "the 22 published phases of 20 s, backlog 4, inline and with one worker (18 minutes)",
        _accept_all_we_can,
        Factors(overload_seconds=20.0, backlog=4),
    ),
    "batches": Preset(
        "accept batch x event loop, inline: what makes accepted track completed? (3 minutes)",
        _batches,
        Factors(cycles=1, more_cycles=0),
    ),
    "threads": Preset(
        "when do threads suffice? work that holds the GIL and work that releases it (3 minutes)",
        _threads,
        works=(DATA, DIGEST),
    ),
    "a-a": Preset(
        "does the instrument find no difference where there is none, and 25 % more work where it is planted? "
        "(2 minutes)",
        _a_a,
        # Its regions are narrow, so the whole level goes to one look instead of three.
        Factors(cycles=16, more_cycles=0),
    ),
    "metastable": Preset(
        "does an overload go away with what started it? the usual design and clients that retry (6 minutes)",
        metastable.build,
        metastable.FACTORS,
    ),
}
