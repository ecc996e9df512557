"""The claims of the 2017 post, and ours, each with the variants or cases it needs and its rule. Pure.

A rule looks at numbers only. amounts.py has the rules that judge by an interval, queues.py those that judge
by the overload phases, comebacks.py those that judge by what comes after a trigger.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Final, Literal

from loadtests.experiment import amounts, comebacks, queues
from loadtests.experiment.evidence import Evidence
from loadtests.experiment.finding import Finding


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A claim, its source, the variants or cases that it needs, its rule, and whether an interval judges it.

    `short`: what the interval is of, for a table of 80 columns.
    """

    claim: str
    source: Literal["post", "offloop"]
    needs: tuple[str, ...]
    judge: Callable[[Evidence], Finding]
    by_interval: bool = False
    short: str = ""


RULES: Final = (
    Rule(
        claim="Inline, one worker caps at about 1/S (250 requests/s at 4 ms)",
        short="inline caps at 1/S: U",
        source="post",
        needs=("inline",),
        judge=amounts.inline_cap,
        by_interval=True,
    ),
    Rule(
        claim="Inline, accepted tracks completed",
        source="post",
        needs=("inline",),
        judge=queues.inline_tracks,
    ),
    Rule(
        claim="Offloaded, accepted outruns completed",
        source="post",
        needs=("executor-1",),
        judge=queues.offloaded_outruns,
    ),
    Rule(
        claim="Offloaded, capacity is about five times as high (5.2x)",
        short="a fifth of the work: X",
        source="post",
        needs=("executor-1-fifth", "inline"),
        judge=amounts.published_gain,
        by_interval=True,
    ),
    Rule(
        claim="It is the offloading to one worker that raises capacity",
        short="one worker: U over inline",
        source="post",
        needs=("executor-1", "inline"),
        judge=amounts.offloading_is_the_cause,
        by_interval=True,
    ),
    Rule(
        claim="With one worker per core, capacity follows the cores",
        short="one per core: U of the rest",
        source="offloop",
        needs=("executor-cores", "inline"),
        judge=amounts.cores_scale,
        by_interval=True,
    ),
    Rule(
        claim="Accepted tracks completed because of the accept batch, not of inline work",
        source="offloop",
        needs=("inline", "inline-batch"),
        judge=queues.batch_decides,
    ),
    Rule(
        claim="With a bound on the predicted wait, overload costs those who are refused and nobody else",
        source="offloop",
        needs=("executor-1", "lanes-1"),
        judge=queues.bound_keeps_goodput,
    ),
    Rule(
        claim="The accept batch alone decides, on either event loop",
        source="offloop",
        needs=queues.BATCH_VARIANTS,
        judge=queues.batch_alone_decides,
    ),
    Rule(
        claim="Threads suffice for work that releases the GIL",
        short="GIL released: U of the rest",
        source="offloop",
        needs=("thread-cores-releases", "inline-releases"),
        judge=amounts.threads_suffice,
        by_interval=True,
    ),
    Rule(
        claim="Threads bring nothing for work that holds the GIL",
        short="GIL held: U over inline",
        source="offloop",
        needs=("thread-cores-holds", "inline-holds"),
        judge=amounts.threads_do_not_help,
        by_interval=True,
    ),
    Rule(
        claim="Inline beside itself: no difference",
        short="inline again: U",
        source="offloop",
        needs=("inline", "inline-again"),
        judge=amounts.nothing_is_found,
        by_interval=True,
    ),
    Rule(
        claim="A quarter more work reads as a quarter more",
        short="25 % more work: S",
        source="offloop",
        needs=("inline", "inline-more"),
        judge=amounts.planted_is_found,
        by_interval=True,
    ),
    Rule(
        claim="As usually written, with clients that retry at once, it stays down after the trigger has gone",
        source="offloop",
        needs=("pool-immediate",),
        judge=comebacks.stays_down,
    ),
    Rule(
        claim="Retries alone keep it down",
        source="offloop",
        needs=("pool-immediate", "pool-none"),
        judge=comebacks.retries_keep_it_down,
    ),
    Rule(
        claim="A retry budget of 10 % suffices",
        source="offloop",
        needs=("pool-immediate", "pool-budget"),
        judge=comebacks.budget_suffices,
    ),
    Rule(
        claim="Backoff with jitter suffices",
        source="offloop",
        needs=("pool-immediate", "pool-backoff"),
        judge=comebacks.backoff_suffices,
    ),
    Rule(
        claim="With a bound on what is in flight, and cancellation, it is back within 1 s",
        source="offloop",
        needs=("bounded-immediate",),
        judge=comebacks.bounded_is_back,
    ),
    Rule(
        claim="offloop is back within 1 s",
        source="offloop",
        needs=("offloop-immediate",),
        judge=comebacks.ours_is_back,
    ),
)
