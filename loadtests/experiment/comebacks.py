"""The rules for claims about what comes after a trigger: back, or down for good. Pure.

Each is a yes or no for one run; a case that is void, or was never up, leaves its claims open.
"""

from __future__ import annotations

import math
from typing import Final

from loadtests.experiment.evidence import Evidence
from loadtests.experiment.finding import DID_NOT_HOLD, HELD, INCONCLUSIVE, Finding
from loadtests.experiment.recovery import Recovery
from loadtests.load.retrying import REQUESTS_PER_RETRY

AT_ONCE_SECONDS: Final = 1


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
    if without.back_seconds is None:
        if without.work_off_seconds() > without.after_seconds:
            return Finding(verdict=INCONCLUSIVE, numbers=numbers, why=_too_slow(without.work_off_seconds()))
        why = "It is still down at the end without retries, too."
        return Finding(verdict=DID_NOT_HOLD, numbers=numbers, why=why)
    why = "Same service, same load, same trigger: what differs is that clients try again."
    return Finding(verdict=HELD, numbers=numbers, why=why)


def budget_suffices(evidence: Evidence) -> Finding:
    """A retry for every tenth request lets it come back."""
    found = evidence.recovery("pool-budget")
    needed = found.work_off_seconds(1 + 1 / REQUESTS_PER_RETRY)
    if found.back_seconds is None and needed > found.after_seconds:
        return Finding(verdict=INCONCLUSIVE, numbers=_told(found), why=_too_slow(needed))
    return _suffices(evidence, "pool-budget")


def backoff_suffices(evidence: Evidence) -> Finding:
    """Waiting before a retry, ever longer and by chance, lets it come back."""
    return _suffices(evidence, "pool-backoff")


def bounded_is_back(evidence: Evidence) -> Finding:
    """A bound on requests in flight, with clients that try again at once."""
    return _is_back(evidence, "bounded-immediate")


def ours_is_back(evidence: Evidence) -> Finding:
    """Ours, with clients that try again at once."""
    return _is_back(evidence, "offloop-immediate")


def _suffices(evidence: Evidence, case: str) -> Finding:
    """Back by the end of the watch, where clients that try again at once keep it down."""
    at_once, found = evidence.recovery("pool-immediate"), evidence.recovery(case)
    if found.back_seconds is None:
        why = "It is still down at the end."
        return Finding(verdict=DID_NOT_HOLD, numbers=_told(found), why=why)
    if not at_once.stays_down:
        why = "Clients that try again at once did not keep it down either, so there is nothing to prevent."
        return Finding(verdict=INCONCLUSIVE, numbers=_told(found), why=why)
    why = "What is left of the retries is less than what the workers have to spare."
    return Finding(verdict=HELD, numbers=_told(found), why=why)


def _too_slow(seconds: float) -> str:
    """The base load depends on the machine's speed; what it leaves of the limit, far more so."""
    last = f"for {seconds:.0f} s" if seconds < math.inf else "for ever"
    return f"The machine was too slow to tell: what the trigger left keeps the workers busy {last}."


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
