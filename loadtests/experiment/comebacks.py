"""The rules for claims about what comes after a trigger: back, or down for good. Pure.

Each is a yes or no for one run; a case that is void, or was never up, leaves its claims open.
"""

from __future__ import annotations

import functools
import statistics
from typing import Final

from loadtests.experiment.evidence import Evidence
from loadtests.experiment.finding import DID_NOT_HOLD, HELD, INCONCLUSIVE, Finding
from loadtests.experiment.metastable import IN_FLIGHT, OURS
from loadtests.experiment.recovery import Recovery
from loadtests.load.retrying import REQUESTS_PER_RETRY

AT_ONCE_SECONDS: Final = 1

TOO_SLOW: Final = (
    "The machine was too slow to tell: what the trigger left alone keeps the workers busy for longer than "
    "the watch."
)


def stays_down(evidence: Evidence) -> Finding:
    """As usually written, with clients that try again at once: down in every second of the watch."""
    found = evidence.recovery("pool-immediate")
    if found.stays_down:
        why = "Each answer comes after its client has given up and sent the request again."
        return Finding(verdict=HELD, numbers=_told(found), why=why)
    return Finding(verdict=DID_NOT_HOLD, numbers=_told(found), why="It answered again while it was watched.")


def retries_keep_it_down(evidence: Evidence) -> Finding:
    """Down with retries, and back without."""
    with_, without = evidence.recovery("pool-immediate"), evidence.recovery("pool-none")
    numbers = f"with retries {_told(with_)}; without {_told(without)}"
    if not with_.stays_down:
        why = "Retries did not keep it down."
        return Finding(verdict=DID_NOT_HOLD, numbers=numbers, why=why)
    too_slow = functools.partial(_is_too_slow, evidence)
    if too_slow(with_) or (without.back_seconds is None and too_slow(without)):
        return Finding(verdict=INCONCLUSIVE, numbers=numbers, why=TOO_SLOW)
    if without.back_seconds is None:
        why = "It is still down at the end without retries, too."
        return Finding(verdict=DID_NOT_HOLD, numbers=numbers, why=why)
    why = "Same service, same load, same trigger: what differs is that clients try again."
    return Finding(verdict=HELD, numbers=numbers, why=why)


def budget_suffices(evidence: Evidence) -> Finding:
    """A retry for every tenth request lets it come back."""
    return _suffices(evidence, "pool-budget", 1 + 1 / REQUESTS_PER_RETRY)


def backoff_suffices(evidence: Evidence) -> Finding:
    """Waiting before a retry, ever longer and by chance, lets it come back."""
    return _suffices(evidence, "pool-backoff")


def bounded_is_back(evidence: Evidence) -> Finding:
    """A bound on requests in flight, with clients that try again at once.

    Open where it did not help because that many are more than a client waits for: a bound in requests is a
    bound in time only as long as S is short enough.
    """
    finding = _is_back(evidence, "bounded-immediate")
    found, patience = evidence.recovery("bounded-immediate"), evidence.plan.factors.timeout_seconds
    wait = IN_FLIGHT * max(found.loads[1:]) / found.base_per_second / _left(evidence)
    if finding.verdict == HELD or wait <= patience:
        return finding
    why = (
        f"The machine was too slow to tell: {IN_FLIGHT} in flight are {wait:.2f} s of work, and a client "
        f"waits for {patience:g} s."
    )
    return Finding(verdict=INCONCLUSIVE, numbers=finding.numbers, why=why)


def ours_is_back(evidence: Evidence) -> Finding:
    """Ours, with clients that try again at once."""
    return _is_back(evidence, "offloop-immediate")


def _suffices(evidence: Evidence, case: str, attempts: float = 1.0) -> Finding:
    """Back by the end of the watch, where clients that try again at once keep it down.

    Args:
        attempts: for each request, at least.
    """
    at_once, found = evidence.recovery("pool-immediate"), evidence.recovery(case)
    if found.back_seconds is None:
        if _is_too_slow(evidence, found, attempts):
            return Finding(verdict=INCONCLUSIVE, numbers=_told(found), why=TOO_SLOW)
        why = "It is still down at the end."
        return Finding(verdict=DID_NOT_HOLD, numbers=_told(found), why=why)
    if not at_once.stays_down:
        why = "Clients that try again at once did not keep it down either, so there is nothing to prevent."
        return Finding(verdict=INCONCLUSIVE, numbers=_told(found), why=why)
    if _is_too_slow(evidence, at_once):
        why = "Clients that try again at once may not have kept it down: the machine was too slow to tell."
        return Finding(verdict=INCONCLUSIVE, numbers=_told(found), why=why)
    why = "What is left of the retries is less than what the workers have to spare."
    return Finding(verdict=HELD, numbers=_told(found), why=why)


def _is_too_slow(evidence: Evidence, found: Recovery, attempts: float = 1.0) -> bool:
    """Whether it may be down at the end for what the trigger left alone, and not for retries."""
    return found.work_off_seconds(attempts, _left(evidence)) > found.after_seconds


def _left(evidence: Evidence) -> float:
    """The share of their cores that is left to the workers.

    What generator and service leave is known from the blocks that S is from. In a case they take somewhat
    more than that.
    """
    saturated = evidence.blocks(OURS, ("beside",)).values()
    return statistics.mean(one.utilisation / one.workers for one in saturated) if saturated else 1.0


def _is_back(evidence: Evidence, case: str) -> Finding:
    found = evidence.recovery(case)
    if found.back_seconds is not None and found.back_seconds <= AT_ONCE_SECONDS:
        why = "It had no queue that nobody waits for any more."
        return Finding(verdict=HELD, numbers=_told(found), why=why)
    why = "It was below half its goodput later than that."
    return Finding(verdict=DID_NOT_HOLD, numbers=_told(found), why=why)


def outcome(found: Recovery) -> str:
    """`back after 14 s`, `down for 30 s`, or what lies between."""
    if found.back_seconds is not None:
        return f"back after {found.back_seconds} s" if found.back_seconds else "back at once"
    return f"down for {found.after_seconds} s" if found.stays_down else "down at the end"


def _told(found: Recovery) -> str:
    before, after, attempts = (
        found.before_per_second,
        found.after_per_second,
        found.attempts_after_per_second,
    )
    return (
        f"{before:.0f} answers/s before the trigger, {after:.0f}/s after it at {attempts:.0f} attempts/s, "
        f"{outcome(found)}"
    )
