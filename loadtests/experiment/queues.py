"""The rules for claims about a queue: where it stands under overload. Pure.

Every overload phase must say the same, or the claim is inconclusive.
"""

from __future__ import annotations

from typing import Final

from loadtests.experiment.evidence import PRESSED, Evidence
from loadtests.experiment.finding import DID_NOT_HOLD, HELD, INCONCLUSIVE, Finding
from loadtests.experiment.presets import ALL_AT_ONCE
from loadtests.experiment.results import PhaseResult

TRACKS_BATCHES: Final = 8
"""Accepted "tracks" completed if at most this many accept batches are in flight: a connection takes about
five turns of the loop from accept to its end, and each turn accepts one batch."""

OUTRUNS: Final = 100
"""Accepted "outruns" completed if at least this many connections are in flight: "hundreds" in the post."""

STANDS: Final = 100
"""The queue "stands in the kernel" if it has at least this many connections, or is nearly full."""

FULL: Final = 0.9
SOME: Final = 0.05
"""The queue stands in the service if at most this share of the waiting connections is in the kernel, or fewer
than one turn of the loop may find there: a backlog of 4 is filled by 4 that arrive within one turn."""

KEPT: Final = 0.8
"""Share of the limit that a protected service answers in time under overload."""


def _agreed(verdicts: list[str], numbers: str, whys: dict[str, str]) -> Finding:
    """Every phase must say the same."""
    if len(set(verdicts)) == 1:
        return Finding(verdict=verdicts[0], numbers=numbers, why=whys[verdicts[0]])
    return Finding(verdict=INCONCLUSIVE, numbers=numbers, why="The overload phases do not agree.")


def _span(values: list[int]) -> str:
    return f"{min(values)}" if min(values) == max(values) else f"{min(values)} to {max(values)}"


def _queues(phases: list[PhaseResult]) -> str:
    pressure = max(phase.pressure or PRESSED for phase in phases)
    return (
        f"at {pressure:.1f}x the limit {_span([phase.peak for phase in phases])} in flight at most, kernel "
        f"queue up to {_span([phase.kernel_queue_max for phase in phases])}"
    )


def _stands_in_kernel(phase: PhaseResult) -> bool:
    return phase.kernel_queue_max >= min(STANDS, FULL * phase.kernel_queue_limit)


def inline_tracks(evidence: Evidence) -> Finding:
    """Inline, the queue stands in the kernel: few connections are in flight."""
    phases = evidence.overloads("inline")
    bound = TRACKS_BATCHES * evidence.plan.variant("inline").accept_batch
    verdicts = [
        DID_NOT_HOLD if phase.peak > bound else HELD if _stands_in_kernel(phase) else INCONCLUSIVE
        for phase in phases
    ]
    whys = {
        HELD: "The queue stands in the kernel: the loop takes one connection per turn and no more.",
        DID_NOT_HOLD: "Connections were accepted well before they were completed.",
        INCONCLUSIVE: "No queue stood in the kernel, so nothing pressed the loop to run ahead.",
    }
    return _agreed(verdicts, f"{_queues(phases)} (bound {bound})", whys)


def offloaded_outruns(evidence: Evidence) -> Finding:
    """Offloaded, the queue stands in the service: many connections are in flight."""
    phases = evidence.overloads("executor-1")
    verdicts = []
    for phase in phases:
        in_kernel = phase.kernel_queue_max > max(SOME * (phase.peak + phase.kernel_queue_max), 8)
        verdicts.append(DID_NOT_HOLD if phase.peak < OUTRUNS else INCONCLUSIVE if in_kernel else HELD)
    whys = {
        HELD: "The loop is free to accept, so the same queue now stands inside the service.",
        DID_NOT_HOLD: "Accepting did not get ahead of the work.",
        INCONCLUSIVE: "Part of the queue still stood in the kernel: the loop was a bottleneck too.",
    }
    inside = _span([phase.offload_queue_max for phase in phases])
    return _agreed(verdicts, f"{_queues(phases)}, offload queue up to {inside}", whys)


def batch_decides(evidence: Evidence) -> Finding:
    """Inline with a large accept batch, the queue stands in the service as well."""
    small, large = evidence.overloads("inline"), evidence.overloads("inline-batch")
    peaks = [phase.peak for phase in large]
    numbers = (
        f"{_span(peaks)} in flight at most with batch {ALL_AT_ONCE}, "
        f"{_span([phase.peak for phase in small])} with batch {evidence.plan.variant('inline').accept_batch}"
    )
    whys = {
        HELD: "Nothing was offloaded, and yet accepted outruns: a loop that empties the queue moves it.",
        DID_NOT_HOLD: "A larger batch did not let accepted run ahead.",
    }
    return _agreed([HELD if peak >= OUTRUNS else DID_NOT_HOLD for peak in peaks], numbers, whys)


def _kept(phase: PhaseResult) -> float:
    """The share of workers / S that was answered in time."""
    return phase.goodput_per_second * (phase.demand_seconds or 0.0) / phase.workers


def bound_keeps_goodput(evidence: Evidence) -> Finding:
    """With admission, most of the limit is answered in time under overload; without, less."""
    bound, without = evidence.overloads("lanes-1"), evidence.overloads("executor-1")
    kept, left = [_kept(phase) for phase in bound], [_kept(phase) for phase in without]
    numbers = (
        f"{min(kept):.2f} to {max(kept):.2f} of 1/S answered in time, "
        f"{min(left):.2f} to {max(left):.2f} by the stock executor without a bound"
    )
    whys = {
        HELD: "Requests that cannot be answered in time are refused at once; the worker serves the others.",
        DID_NOT_HOLD: "Saying no cost more than it saved, or came too late.",
    }
    verdicts = [HELD if share >= KEPT and share > max(left) else DID_NOT_HOLD for share in kept]
    return _agreed(verdicts, numbers, whys)


def batch_alone_decides(evidence: Evidence) -> Finding:
    """The same batches on two event loops."""
    peaks = {name: [phase.peak for phase in evidence.overloads(name)] for name in BATCH_VARIANTS}
    small = [peak for name, found in peaks.items() if name.endswith("-1") for peak in found]
    large = [peak for name, found in peaks.items() if name.endswith("-1000") for peak in found]
    numbers = "in flight at most, by loop and batch: " + ", ".join(
        f"{name.removeprefix('inline-')} {_span(found)}" for name, found in peaks.items()
    )
    if max(small) <= TRACKS_BATCHES and min(large) >= OUTRUNS:
        why = "Both loops track with batch 1 and outrun with batch 1000."
        return Finding(verdict=HELD, numbers=numbers, why=why)
    why = "One loop does not do what the other does with the same batch, or a phase what the others do."
    if max(large) < OUTRUNS:
        why = "A large batch did not let accepted run ahead on either loop."
    return Finding(verdict=DID_NOT_HOLD, numbers=numbers, why=why)


BATCH_VARIANTS: Final = tuple(
    f"inline-{loop}-{batch}" for batch in (1, 16, 1000) for loop in ("uvloop", "asyncio")
)
