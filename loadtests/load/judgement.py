"""What may be concluded from a run: when its figures say nothing about the server, and what they hide. Pure.

Knows how late a generator may be before it measures itself, and which errors are not the server's. Touches
nothing. Never changes a figure.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Final

from loadtests.load.facts import GeneratorFacts
from loadtests.load.histogram import Quantiles, caution
from loadtests.load.phase import Phase
from loadtests.load.results import MISSED, TOO_FEW, RunSummary, State
from loadtests.load.sample import (
    CONNECT_ERROR,
    DROPPED,
    LOCAL_ERRORS,
    TOO_MANY_IN_FLIGHT,
    Sample,
    elapsed,
    explain,
    requests,
)

# Lateness is part of every latency from the intended time, so it bounds the generator's own error; how late
# it looks at an answer is part of every latency as well. A tenth of the p99 is an acceptable error. Below 10
# ms lateness comes from the scheduler of a shared machine (a few time slices of about 3 ms), which affects
# the server too, and is no sign of overload. Above 50 ms it is a sign even beside a p99 of seconds: time-outs
# must not excuse the generator.
LATENESS_FLOOR_SECONDS: Final = 0.010
LATENESS_SHARE: Final = 0.1
LATENESS_CEILING_SECONDS: Final = 0.050
# The generator is one thread: at 80 % of a core it queues its own sends in every burst. A single busier
# second does not spoil the rest, so it makes no run INVALID, but its latency peaks may be the generator's.
BUSY_SHARE: Final = 0.8
BUSY_SECOND_SHARE: Final = 0.9
SYN_RETRANSMIT_SECONDS: Final = 1.0  # RFC 6298: the first retransmission, then 3 s and 7 s after the start


def judged(draft: RunSummary, samples: Sequence[Sample], phase: Phase) -> RunSummary:
    """Return the summary with its state, why it is invalid if it is, and its cautions.

    The generator's faults come first, because then no threshold can be judged. A missed threshold comes
    before one with too few samples: it is a finding.
    """
    faults = tuple(_faults(samples, draft))
    states = {result.state for result in draft.thresholds}
    if not faults and MISSED not in states and TOO_FEW in states:
        faults = tuple(
            f"too few samples to judge {result.threshold}: {result.samples} of {result.samples_needed}"
            for result in draft.thresholds
            if result.state == TOO_FEW
        )
    cautions = tuple(_cautions(samples, draft, phase, valid=not faults))
    if faults:
        return replace(draft, state="invalid", invalid_because=faults, cautions=cautions)
    return replace(draft, state="missed" if MISSED in states else "ok", cautions=cautions)


def all_of(states: Collection[State]) -> State:
    """Return the state of several runs together, each of which is judged by itself.

    Together they say "every step reaches its thresholds". A step that missed refutes that, whatever an
    invalid one would have said; if none missed, an invalid one leaves it open. (Kleene's conjunction: false
    and unknown is false, true and unknown is unknown.) So rates that rise beyond what the generator can send
    still report the limit that was found below.
    """
    order: tuple[State, ...] = ("missed", "invalid", "ok")
    return next(state for state in order if state in states)


def unreachable(samples: Iterable[Sample], facts: GeneratorFacts) -> str | None:
    """Return one sentence if no connection was ever established, or None."""
    if not facts.unreachable:
        return None
    reasons = Counter(
        s.reason for s in samples if s.outcome == CONNECT_ERROR and s.reason not in LOCAL_ERRORS
    )
    reason = str(reasons.most_common(1)[0][0])
    return f"no connection to {facts.address}: {reason}, {explain(reason)}"


def _faults(samples: Sequence[Sample], summary: RunSummary) -> Iterator[str]:
    """Why the run says nothing about the server, one sentence each; a cause before its effects."""
    local = Counter(s.reason for s in samples if s.outcome == CONNECT_ERROR and s.reason in LOCAL_ERRORS)
    for name, count in local.items():
        yield f"{count} requests failed here with {name}: {explain(str(name))}"
    allowed = _allowed_lateness(samples)
    if summary.surroundings is not None:  # before their effects
        yield from summary.surroundings.faults()
    if (share := summary.generator.cpu_share) > BUSY_SHARE:
        yield (
            f"the generator used {share:.0%} of its one core while it sent: "
            "split the load over several generators"
        )
    if (late := summary.lateness_seconds.p99) is not None and late > allowed:
        yield (
            f"1 % of the requests were sent more than {late * 1e3:.0f} ms late: "
            "the machine is too busy for this rate; give the generator a core of its own"
        )
    if (late := summary.receive_lateness_seconds.p99) is not None and late > allowed:
        yield (
            f"1 % of the answers may have waited {late * 1e3:.0f} ms for the generator to look at them: "
            "it has too much to do, or too little of a core"
        )


def _allowed_lateness(samples: Iterable[Sample]) -> float:
    """Return how late the generator may be, in seconds, by how long all requests took."""
    ended = (s for s in requests(samples) if s.started is not None)
    took = Quantiles.of(elapsed(s.intended, s.finished) for s in ended).p99
    share = LATENESS_SHARE * took if took is not None else 0.0
    return min(max(LATENESS_FLOOR_SECONDS, share), LATENESS_CEILING_SECONDS)


def _cautions(samples: Sequence[Sample], summary: RunSummary, phase: Phase, *, valid: bool) -> Iterator[str]:
    """What a reader of the figures should know, one sentence each."""
    if summary.clients is not None:
        yield (
            "a closed loop measures capacity; its latencies are not those of an offered load, because its "
            "clients send nothing while they wait (coordinated omission)"
        )
    if (few := caution(summary.ledger.sent)) is not None:
        yield few
    if summary.error_share:
        yield (
            f"{summary.error_share:.2%} of the requests failed: their latency is infinite (never); "
            "answered_latency_seconds is that of the others alone"
        )
    if summary.surroundings is not None:
        yield from summary.surroundings.cautions()
    if held_back := sum(sample.reason == TOO_MANY_IN_FLIGHT for sample in samples):
        yield f"{held_back} requests were held back by --max-in-flight {phase.max_in_flight}: they failed"
    if dropped := sum(sample.outcome == DROPPED for sample in requests(samples)):
        yield (
            f"{dropped} requests went out on a kept connection that ended without a byte of an answer "
            "(dropped), for instance because the server closed it then; clients may repeat such requests if "
            "they are idempotent (RFC 9110, 9.2.2), here they count as failed"
        )
    if open_ := summary.not_closed_by_server:
        yield (
            f"{open_} connections were left open by the server after its answer, in spite of "
            "`Connection: close`; the generator closed them, so their ports stay in TIME_WAIT"
        )
    connected = (s for s in samples if s.connected is not None)
    if slow := sum(elapsed(s.started, s.connected) >= SYN_RETRANSMIT_SECONDS for s in connected):
        yield f"{slow} connections took 1 s or more: SYN retransmissions, the accept queue was full"
    if not valid:
        return
    worst = max(summary.lateness_seconds.max or 0.0, summary.receive_lateness_seconds.max or 0.0)
    if worst > 10 * LATENESS_FLOOR_SECONDS:
        yield f"the generator stood still once for {worst * 1e3:.0f} ms; the latencies include that"
    if (share := summary.generator.busiest_second_cpu_share) > BUSY_SECOND_SHARE:
        yield f"in its busiest second the generator used {share:.0%} of its core: a peak then may be its own"
