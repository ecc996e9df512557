"""From samples to a summary. Pure, so that a run folder can be summed up again at any time.

Knows what each figure means; judgement.py says what may be concluded from them. Touches nothing. Never omits
a request that came due: one without an answer waits for ever, and its latency is infinite.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, replace

from loadtests.load import judgement
from loadtests.load.facts import GeneratorFacts
from loadtests.load.histogram import Quantiles
from loadtests.load.phase import Phase
from loadtests.load.ports import PortUse, ports_used
from loadtests.load.results import ClientLedger, GeneratorShare, RunSummary
from loadtests.load.sample import (
    ABORTED,
    CONNECT_ERROR,
    NO_PORT,
    NOT_SENT,
    OK,
    STATUS,
    STOPPED,
    TIMEOUT,
    Sample,
    elapsed,
    requests,
)
from loadtests.load.surroundings import Surroundings
from loadtests.load.thresholds import Measured, Threshold, check_slo


def summarise(
    samples: Sequence[Sample],
    facts: GeneratorFacts,
    phase: Phase,
    *,
    slo_seconds: float | None = None,
    thresholds: Iterable[Threshold] = (),
    surroundings: Surroundings | None = None,
) -> RunSummary:
    """Return the summary of one phase. `surroundings`: what else used machine and server; None: unknown.

    `window_seconds`: the duration, or less if the run was stopped. `offered_per_second`: requests that came
    due in the window, sent or held back by `max_in_flight`; None for a closed loop, which offers no rate and
    is never late. `achieved_per_second`: expected answers that *finished inside* the window; what a queue
    gives back later is no capacity. `goodput_per_second`: those of them that finished within `slo_seconds` of
    the intended time (without an SLO all of them: the time-out is the limit). `error_share`: of the requests
    that came due and were not aborted, the share without the expected answer.

    `latency_seconds` counts from the intended time and includes every request that came due;
    `service_seconds` counts from the actual start and includes every attempt that was sent. Failures are
    infinitely late in both: a refusal within a millisecond is no fast answer, and a time-out after ten
    seconds is no answer after ten. Requests that were aborted with the run count with the time that they had
    taken, because the generator ended them.

    `state`: `invalid` if the figures say nothing about the server (`invalid_because` says why), else `missed`
    if a threshold was missed, else `invalid` if a threshold had too few samples, else `ok`. Raises
    `ValueError` for a threshold on goodput without `slo_seconds`.
    """
    thresholds = tuple(thresholds)
    check_slo(thresholds, slo_seconds)
    window = min(phase.duration_seconds, facts.wall_seconds) if facts.interrupted else phase.duration_seconds
    due = [sample for sample in requests(samples) if sample.reason != STOPPED]
    judged = [sample for sample in due if sample.outcome != ABORTED]
    measured = Measured(
        latencies=sorted(waits(due)),
        judged=len(judged),
        failed=sum(sample.outcome != OK for sample in judged),
        achieved_per_second=len(in_time(due, facts.started_monotonic, window, None)) / window,
        goodput_per_second=len(in_time(due, facts.started_monotonic, window, slo_seconds)) / window,
    )
    draft = _draft(samples, facts, phase, measured)
    draft = replace(
        draft,
        window_seconds=window,
        offered_per_second=len(due) / window if phase.clients is None else None,
        slo_seconds=slo_seconds,
        surroundings=surroundings,
        thresholds=tuple(threshold.evaluate(measured) for threshold in thresholds),
    )
    return judgement.judged(draft, samples, phase)


def in_time(
    samples: Iterable[Sample], start: float, window: float, slo_seconds: float | None
) -> list[Sample]:
    """Return the expected answers inside the window, and within `slo_seconds` of their intended time."""
    within = (s for s in samples if s.outcome == OK and elapsed(start, s.finished) <= window)
    return [s for s in within if slo_seconds is None or elapsed(s.intended, s.finished) <= slo_seconds]


def ledger(samples: Iterable[Sample]) -> ClientLedger:
    """Return the client's ledger."""
    books = dict.fromkeys((field.name for field in fields(ClientLedger)), 0)
    never_connected = {
        CONNECT_ERROR: "connect_failed",
        TIMEOUT: "connect_timeout",
        ABORTED: "connect_aborted",
    }
    for sample in samples:
        books["planned"] += sample.last
        if sample.outcome == NOT_SENT:
            books["not_sent"] += 1
            continue
        books["sent"] += sample.last
        books["attempts"] += 1
        if sample.connected is None:
            books[never_connected[sample.outcome]] += 1
        else:
            books["connected"] += 1
            books["connections"] += not sample.reused
            books["answered" if sample.outcome in (OK, STATUS) else "unanswered"] += 1
    return ClientLedger(**books)


def _draft(samples: Sequence[Sample], facts: GeneratorFacts, phase: Phase, measured: Measured) -> RunSummary:
    """Return all figures that need neither window nor judgement."""
    sent = [sample for sample in samples if sample.started is not None]
    answered = [sample for sample in requests(sent) if sample.outcome == OK]
    on_schedule = [] if phase.clients is not None else [sample for sample in sent if sample.attempt == 1]
    books = ledger(samples)
    late_looks = (s.receive_lateness_seconds for s in sent)
    return RunSummary(
        state="ok",
        interrupted=facts.interrupted,
        unreachable=judgement.unreachable(samples, facts),
        url=phase.url,
        address=facts.address,
        workload=phase.workload,
        clients=phase.clients,
        keep_alive=phase.keep_alive,
        expect=phase.expect,
        retry=phase.retry,
        retries=phase.retries,
        started=facts.started_epoch,
        window_seconds=phase.duration_seconds,
        offered_per_second=None,
        achieved_per_second=measured.achieved_per_second,
        goodput_per_second=measured.goodput_per_second,
        slo_seconds=None,
        error_share=measured.failed / measured.judged if measured.judged else None,
        infinitely_late=measured.failed,
        latency_seconds=Quantiles.of(measured.latencies),
        answered_latency_seconds=Quantiles.of(elapsed(s.intended, s.finished) for s in answered),
        service_seconds=Quantiles.of(waits(sent, from_start=True)),
        connect_seconds=Quantiles.of(
            elapsed(s.started, s.connected) for s in sent if s.connected is not None and not s.reused
        ),
        tls_seconds=Quantiles.of(elapsed(s.connected, s.secured) for s in sent if s.secured is not None),
        first_byte_seconds=Quantiles.of(
            elapsed(s.ready, s.first_byte) for s in sent if s.first_byte is not None
        ),
        rest_seconds=Quantiles.of(
            elapsed(s.first_byte, s.finished)
            for s in sent
            if s.first_byte is not None and s.status is not None
        ),
        lateness_seconds=Quantiles.of(elapsed(s.intended, s.started) for s in on_schedule),
        receive_lateness_seconds=Quantiles.of(late for late in late_looks if late is not None),
        not_closed_by_server=facts.not_closed_by_server,
        ports=_ports((s for s in sent if not s.reused), facts),
        outcomes=_counted(requests(samples)),
        attempt_outcomes=_counted(sent),
        amplification=books.attempts / books.sent if books.sent else None,
        ledger=books,
        generator=GeneratorShare(
            cpu_share=facts.sending_cpu_seconds / facts.sending_seconds if facts.sending_seconds else 0.0,
            busiest_second_cpu_share=facts.busiest_second_cpu_share,
            gc_pauses=facts.gc_pauses,
            gc_max_pause_seconds=facts.gc_max_pause_seconds,
        ),
        surroundings=None,
        invalid_because=(),
        cautions=(),
        thresholds=(),
    )


def _counted(samples: Iterable[Sample]) -> dict[str, int]:
    return dict(Counter(sample.label for sample in samples).most_common())


def _ports(connecting: Iterable[Sample], facts: GeneratorFacts) -> PortUse:
    """Return what the run did to the local ports."""
    in_order = sorted(connecting, key=lambda sample: sample.started or 0.0)
    return ports_used(
        [sample.local_port for sample in in_order],
        [sample.reason == NO_PORT for sample in in_order],
        facts.late_port_parity,
    )


def waits(samples: Iterable[Sample], *, from_start: bool = False) -> Iterator[float]:
    """For how long each request waited for the expected answer, in seconds; infinite if it did not come."""
    for sample in samples:
        if sample.outcome in (OK, ABORTED):
            yield elapsed(sample.started if from_start else sample.intended, sample.finished)
        else:
            yield math.inf
