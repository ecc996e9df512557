"""Clients that retry: what they send again, and when. Pure.

Knows the policies, the failed attempts that wait for their next one, and a seed. Touches nothing and never
reads the clock: the loop passes the time with each call. Never sends: the loop does, when a retry is due.

A *request* is what a client wants, an *attempt* what goes over the wire. Retries are load that no schedule
holds: under overload each failure makes more of it, and a service that is slow because its clients retry
stays slow when the first cause has long gone (Bronson et al., Metastable Failures in Distributed Systems,
HotOS 2021).
"""

import heapq
import math
import random
from collections.abc import Sequence
from typing import Final

from loadtests.load.answer import Answer
from loadtests.load.phase import BUDGET, IMMEDIATE, NO_RETRY, RETRY_AFTER
from loadtests.load.sample import (
    CONNECT_ERROR,
    DROPPED,
    LOCAL_ERRORS,
    RESET,
    SHORT,
    STATUS,
    TIMEOUT,
    TLS_ERROR,
    Sample,
)

# A server that is overloaded, or that limits its clients, asks them to come later (RFC 9110, 15.6.4; RFC
# 6585, 4). Any other status would be the same the next time.
RETRIED_STATUSES: Final = frozenset({429, 503})
CUT_OFF: Final = frozenset({CONNECT_ERROR, RESET, SHORT, DROPPED, TIMEOUT})
# A handshake that was cut off, as the TLS library calls it; a bad certificate is no better the next time.
CUT_HANDSHAKES: Final = frozenset({"ECONNRESET", "EPIPE", "UNEXPECTED_EOF_WHILE_READING"})

FIRST_BACKOFF_SECONDS: Final = 0.1
LONGEST_BACKOFF_SECONDS: Final = 10.0
# Whoever is asked to come back later than this does not wait: a run would never end.
LONGEST_RETRY_AFTER_SECONDS: Final = 60.0

REQUESTS_PER_RETRY: Final = 10  # 10 %
MOST_IN_BUDGET: Final = 100  # retries: what ten seconds leave of 100 requests per second


def is_retried(outcome: str, status: int | None, reason: str | None) -> bool:
    """Whether a client that retries sends such an attempt again; a status that is expected is no failure.

    Nor is an error of the sending machine one of the server's: it makes the run INVALID, and real clients,
    each on a machine of its own, would not meet it.
    """
    if reason in LOCAL_ERRORS:
        return False
    if outcome == STATUS:
        return status in RETRIED_STATUSES
    if outcome == TLS_ERROR:
        return reason in CUT_HANDSHAKES
    return outcome in CUT_OFF


def backoff_seconds(seed: int, request: int, attempt: int) -> float:
    """How long to wait after a failed attempt (from 1): exponential, with full jitter.

    Uniform between 0 and 100 ms, doubled with each attempt, 10 s at most (Brooker, Exponential Backoff And
    Jitter, AWS Architecture Blog, 2015). Drawn for each attempt by itself: the order in which requests fail
    differs from run to run, the waits do not.
    """
    longest = min(FIRST_BACKOFF_SECONDS * 2 ** (attempt - 1), LONGEST_BACKOFF_SECONDS)
    return random.Random(f"{seed} {request} {attempt}").uniform(0, longest)


def worst_case(requests: Sequence[float], policy: str, retries: int) -> list[float]:
    """When attempts start if every request needs all its retries, each as soon as it may be sent.

    `requests`: when each is due, ascending. `retries`: for each at most.
    """
    if policy != BUDGET:
        return [due for due in requests for _ in range(1 + retries)]
    budget = Budget()
    found = []
    for due in requests:
        budget.deposit()
        found += [due, due] if budget.withdraw() else [due]
    return found


class Budget:
    """A token bucket: each request puts in a tenth of a retry, each retry takes out a whole one.

    As Finagle's RetryBudget does with `percentCanRetry` 0.1 and `minRetriesPerSec` 0. There, what was put in
    expires after ten seconds; here the bucket has a size instead, which needs no clock. It starts empty, so
    at no moment are retries more than a tenth of the requests.
    """

    def __init__(self) -> None:
        self._tokens = 0  # in tenths of a retry, so that the sum is exact

    def deposit(self) -> None:
        """Note a request."""
        self._tokens = min(self._tokens + 1, MOST_IN_BUDGET * REQUESTS_PER_RETRY)

    def withdraw(self) -> bool:
        """Take out a retry; False if there is none."""
        if self._tokens < REQUESTS_PER_RETRY:
            return False
        self._tokens -= REQUESTS_PER_RETRY
        return True


class Retries:
    """The retries of a phase: which attempts have one, and those that wait for theirs.

    `retries`: at most so many for each request.
    """

    def __init__(self, policy: str, retries: int, seed: int) -> None:
        self._policy, self._seed = policy, seed
        self._retries = 0 if policy == NO_RETRY else retries
        self._budget = Budget()
        self._waiting: list[tuple[float, int, Sample]] = []  # heap: when, the number of the request
        self.next_due = math.inf  # when the next one is due

    def __len__(self) -> int:
        """The number of those that wait."""
        return len(self._waiting)

    def on_request(self) -> None:
        """Note that a request is sent, for the first time."""
        self._budget.deposit()

    def accept(self, failed: Sample, answer: Answer) -> bool:
        """Keep an attempt that is to be followed by another; False if it was the last of its request.

        `answer`: as far as it came. An attempt that is kept comes back from `take` or `rest`, once.
        """
        if failed.attempt > self._retries or not is_retried(failed.outcome, failed.status, failed.reason):
            return False
        wait = self._wait_seconds(failed, answer)
        if wait is None:
            return False
        assert failed.finished is not None
        heapq.heappush(self._waiting, (failed.finished + wait, failed.request, failed))
        self.next_due = self._waiting[0][0]
        return True

    def take(self, now: float) -> Sample | None:
        """Return an attempt whose next one is due by `now`, the longest overdue first; or None."""
        return self._pop() if self.next_due <= now else None

    def rest(self) -> list[Sample]:
        """Return all that wait: nothing is sent any more."""
        return [self._pop() for _ in range(len(self._waiting))]

    def _wait_seconds(self, failed: Sample, answer: Answer) -> float | None:
        """How long the client waits; None: it gives up."""
        if self._policy == IMMEDIATE:
            return 0.0
        if self._policy == BUDGET:
            return 0.0 if self._budget.withdraw() else None
        if self._policy == RETRY_AFTER and failed.outcome == STATUS:
            asked = answer.retry_after_seconds
            if asked is not None:
                return asked if asked <= LONGEST_RETRY_AFTER_SECONDS else None
        return backoff_seconds(self._seed, failed.request, failed.attempt)

    def _pop(self) -> Sample:
        sample = heapq.heappop(self._waiting)[2]
        self.next_due = self._waiting[0][0] if self._waiting else math.inf
        return sample
