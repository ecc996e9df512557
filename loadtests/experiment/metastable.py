"""The preset `metastable`: the same trigger for each design and each way to retry. Pure.

A failure is metastable if it outlives what started it (Bronson et al., Metastable Failures in Distributed
Systems, HotOS 2021; Huang et al., Metastable Failures in the Wild, OSDI 2022). Here a load above the limit
starts it, and clients that try again keep it up.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from loadtests.experiment.plan import DATA, Case, Cost, Factors, PlanError, Trigger, Variant

OURS: Final = "offloop"
POOL: Final = "pool"
"""In loadtests/peers: aiohttp and a process pool as usually written, without a bound and without
cancellation."""

BOUNDED: Final = "bounded"
"""The same with a bound on the requests in flight."""
IN_FLIGHT: Final = 64
"""That bound; loadtests/peers, which has it, is above this room."""

CASES: Final = (
    Case(name="pool-none", title="process pool, no retries", design=POOL, retry="none"),
    Case(name="pool-immediate", title="process pool, immediate", design=POOL, retry="immediate"),
    Case(name="pool-backoff", title="process pool, backoff", design=POOL, retry="backoff"),
    Case(name="pool-budget", title="process pool, 10 % budget", design=POOL, retry="budget"),
    Case(name="bounded-immediate", title="with a bound, immediate", design=BOUNDED, retry="immediate"),
    Case(name="offloop-immediate", title="offloop, immediate", design=OURS, retry="immediate"),
)

FACTORS: Final = Factors(
    # A request costs about 0.7 ms beside its work, in the generator and in the IO process: at the base load a
    # tenth of the cores with work of 4 ms, and a fiftieth with 20 ms, which leaves the workers what they need
    # to work the queue off within the watch. With retries at once almost ten times the limit is sent, which
    # one generator does on time at 20 ms. With longer work 64 in flight are more than a client waits for.
    work_ms=20.0,
    clients=4,  # of the blocks that measure S: with 8 ours would refuse some, should the machine be slow
    block_seconds=3.0,  # the rates of half a minute follow from one block, and the next has another S
    cycles=1,
    more_cycles=0,
    overload=3.0,
    overload_seconds=3.0,
    accept_batch=64,
    timeout_seconds=1.0,
    budget_seconds=345.0,
)


def build(cores: float, costs: Mapping[str, Cost], factors: Factors) -> dict[str, Any]:
    """Ours with its default bounds, whose work and workers the other designs have as well; and the trigger.

    Raises:
        PlanError: the trigger has no whole number of seconds, in which goodput is counted.
    """
    if factors.overload_seconds != int(factors.overload_seconds):
        raise PlanError(f"a trigger lasts whole seconds, not {factors.overload_seconds:g}")
    if not factors.base < 1 < factors.overload:
        raise PlanError(
            f"a trigger goes from below the limit to above it, not from {factors.base:g}x to "
            f"{factors.overload:g}x"
        )
    ours = Variant(
        name=OURS,
        title="offloop",
        offload="process",
        workers=max(1, int(cores)),
        work_units=costs[DATA].work_units,
        accept_batch=factors.accept_batch,
        backlog=factors.backlog,
        loop=factors.loop,
        protected=True,
    )
    trigger = Trigger(
        variant=OURS,
        cases=CASES,
        base=factors.base,
        peak=factors.overload,
        before_seconds=factors.before_seconds,
        seconds=int(factors.overload_seconds),
        after_seconds=factors.after_seconds,
        retries=factors.retries,
    )
    return {"variants": (ours,), "trigger": trigger}
