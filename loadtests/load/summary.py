"""From samples to a verdict: pure, so that a run folder can be summed up again at any time.

Knows what each figure means and when a run says nothing about the server. Touches nothing. Never
leaves out a request that was sent: time-outs and failures count from when they were due.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Final

from loadtests.load.facts import GeneratorFacts
from loadtests.load.histogram import caution, quantiles
from loadtests.load.phase import Phase
from loadtests.load.sample import (
    ABORTED,
    CONNECT_ERROR,
    LOCAL_ERRORS,
    NOT_SENT,
    OK,
    STATUS,
    STOPPED,
    TIMEOUT,
    TOO_MANY_IN_FLIGHT,
    Sample,
    explain,
)
from loadtests.load.thresholds import Threshold, evaluate

# Lateness is part of every latency from the intended time, so it bounds the generator's own error.
# A tenth of the p99 is an error one can live with; below 10 ms it is the scheduler of a shared
# machine (a few time slices of about 3 ms), which also strikes the server, and no sign of overload.
# Above 50 ms it is one even beside a p99 of seconds: time-outs must not buy the generator an excuse.
LATENESS_FLOOR_SECONDS: Final = 0.010
LATENESS_SHARE: Final = 0.1
LATENESS_CEILING_SECONDS: Final = 0.050
# One thread: at 80 % of a core it has begun to queue up its own sends in every burst.
BUSY_SHARE: Final = 0.8
SYN_RETRANSMIT_SECONDS: Final = 1.0  # RFC 6298: the first retransmission, then 3 s and 7 s after the start


def summarise(
    samples: Sequence[Sample],
    facts: GeneratorFacts,
    phase: Phase,
    *,
    slo_seconds: float | None = None,
    thresholds: Iterable[Threshold] = (),
) -> dict[str, Any]:
    """Return the summary of one phase as JSON types; times in seconds, rates per second.

    `window_seconds`: the duration, or less when the run was stopped. `offered_per_second`: requests
    that came due in the window, sent or held back by `max_in_flight`; None for a closed loop, which
    offers nothing and is never late either. `achieved_per_second`: answers
    200 that *finished inside* the window; what a queue gives back after the end is no capacity.
    `goodput_per_second`: those of them that finished within `slo_seconds` of the intended time (all
    of them without one: the time-out is then the limit). `latency_seconds` counts from the intended
    time, `service_seconds` from the actual start; both hold every request that was sent, however it
    ended, the aborted ones with the time they had lasted. `error_share`: of the requests that came
    due and were not aborted, the share without an answer 200.

    `state`: `invalid` when generator or machine were the bottleneck (`invalid_because` says how),
    else `missed` when a threshold was, else `ok`. `unreachable`: a sentence when no connection ever
    stood, else None.
    """
    start = facts.started_monotonic
    window = min(phase.duration_seconds, facts.wall_seconds) if facts.interrupted else phase.duration_seconds
    sent = [sample for sample in samples if sample.started is not None]
    due = [sample for sample in samples if sample.reason != STOPPED]
    within = in_time(sent, start, window, None)
    good = in_time(sent, start, window, slo_seconds)
    judged = [sample for sample in due if sample.outcome != ABORTED]
    failed = sum(sample.outcome != OK for sample in judged)
    summary: dict[str, Any] = {
        "state": "ok",
        "interrupted": facts.interrupted,
        "unreachable": _unreachable(samples, facts),
        "url": phase.url,
        "address": facts.address,
        "load": phase.load,
        "clients": phase.clients,
        "window_seconds": window,
        "offered_per_second": len(due) / window if phase.clients is None else None,
        "achieved_per_second": len(within) / window,
        "goodput_per_second": len(good) / window,
        "slo_seconds": slo_seconds,
        "error_share": failed / len(judged) if judged else None,
        "latency_seconds": quantiles(_seconds(s.intended, s.finished) for s in sent),
        "service_seconds": quantiles(_seconds(s.started, s.finished) for s in sent),
        "connect_seconds": quantiles(
            _seconds(s.started, s.connected) for s in sent if s.connected is not None
        ),
        "lateness_seconds": quantiles(_seconds(s.intended, s.started) for s in sent if phase.clients is None),
        "outcomes": dict(Counter(sample.label for sample in samples).most_common()),
        "ledger": ledger(samples),
        "generator": {
            "cpu_share": facts.cpu_seconds / facts.wall_seconds,
            "gc_pauses": facts.gc_pauses,
            "gc_max_pause_seconds": facts.gc_max_pause_seconds,
        },
    }
    summary["invalid_because"] = _faults(samples, summary)
    summary["cautions"] = _cautions(samples, summary, phase)
    summary["thresholds"] = evaluate(thresholds, summary)
    if summary["invalid_because"]:
        summary["state"] = "invalid"
    elif not all(result["passed"] for result in summary["thresholds"]):
        summary["state"] = "missed"
    return summary


def in_time(
    samples: Iterable[Sample], start: float, window: float, slo_seconds: float | None
) -> list[Sample]:
    """Return the answers 200 inside the window, and within `slo_seconds` of their intended time."""
    within = (s for s in samples if s.outcome == OK and _seconds(start, s.finished) <= window)
    return [s for s in within if slo_seconds is None or _seconds(s.intended, s.finished) <= slo_seconds]


def ledger(samples: Iterable[Sample]) -> dict[str, int]:
    """Return the client's books, to be compared with the server's.

    planned = sent + not_sent; sent = connected + connect_failed + connect_timeout + connect_aborted;
    connected = answered + unanswered. `connected` counts handshakes of TCP, which the *kernel* of
    the server completes: connected minus the server's accepted is what waits in its accept queue.
    """
    books = dict.fromkeys(
        ("planned", "sent", "not_sent", "connected", "connect_failed", "connect_timeout", "connect_aborted",
         "answered", "unanswered"), 0
    )  # fmt: skip
    never_connected = {
        CONNECT_ERROR: "connect_failed",
        TIMEOUT: "connect_timeout",
        ABORTED: "connect_aborted",
    }
    for sample in samples:
        books["planned"] += 1
        if sample.outcome == NOT_SENT:
            books["not_sent"] += 1
            continue
        books["sent"] += 1
        if sample.connected is None:
            books[never_connected[sample.outcome]] += 1
        else:
            books["connected"] += 1
            books["answered" if sample.outcome in (OK, STATUS) else "unanswered"] += 1
    return books


def _seconds(begin: float | None, end: float | None) -> float:
    assert begin is not None
    assert end is not None
    return end - begin


def _unreachable(samples: Iterable[Sample], facts: GeneratorFacts) -> str | None:
    """Return one sentence on an address where no connection ever stood, or None."""
    if not facts.unreachable:
        return None
    reasons = Counter(
        s.reason for s in samples if s.outcome == CONNECT_ERROR and s.reason not in LOCAL_ERRORS
    )
    reason = str(reasons.most_common(1)[0][0])
    return f"no connection to {facts.address}: {reason}, {explain(reason)}"


def _faults(samples: Iterable[Sample], summary: dict[str, Any]) -> list[str]:
    """Return why the run says nothing about the server, one sentence each."""
    local = Counter(s.reason for s in samples if s.outcome == CONNECT_ERROR and s.reason in LOCAL_ERRORS)
    faults = [
        f"{count} requests failed here with {name}: {explain(name)}" for name, count in local.items() if name
    ]
    late, latency = summary["lateness_seconds"]["p99"], summary["latency_seconds"]["p99"]
    allowed = LATENESS_FLOOR_SECONDS
    if latency is not None:
        allowed = min(max(allowed, LATENESS_SHARE * latency), LATENESS_CEILING_SECONDS)
    if late is not None and late > allowed:
        faults.append(
            f"1 % of the requests were sent more than {late * 1e3:.0f} ms late: "
            "the machine is too busy for this rate; give the generator a core of its own"
        )
    if (share := summary["generator"]["cpu_share"]) > BUSY_SHARE:
        faults.append(
            f"the generator used {share:.0%} of its one core: split the rate over several generators"
        )
    return faults


def _cautions(samples: Sequence[Sample], summary: dict[str, Any], phase: Phase) -> list[str]:
    """Return what a reader of the figures should know, one sentence each."""
    cautions = []
    if (few := caution(summary["ledger"]["sent"])) is not None:
        cautions.append(few)
    if summary["error_share"]:
        cautions.append(
            f"{summary['error_share']:.2%} of the requests failed; latencies hold them, up to their end"
        )
    if held_back := sum(sample.reason == TOO_MANY_IN_FLIGHT for sample in samples):
        cautions.append(
            f"{held_back} requests were held back by --max-in-flight {phase.max_in_flight}: "
            "the latencies describe only the others"
        )
    connected = (s for s in samples if s.connected is not None)
    if slow := sum(_seconds(s.started, s.connected) >= SYN_RETRANSMIT_SECONDS for s in connected):
        cautions.append(
            f"{slow} connections took 1 s or more: SYN retransmissions, the accept queue was full"
        )
    worst = summary["lateness_seconds"]["max"]
    if worst is not None and worst > 10 * LATENESS_FLOOR_SECONDS and not summary["invalid_because"]:
        cautions.append(f"the generator stood still once for {worst * 1e3:.0f} ms; latencies count it in")
    return cautions
