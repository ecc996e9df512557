"""Which requests are admitted, and when workers are given up on: pure decisions from numbers and the time.

A request is admitted only if it can be answered in time. Every other one is refused at once, while that is
cheap: work for a client that gives up before its turn is what makes a service collapse under overload.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

MOST_WAITING: Final = 10_000
"""A hard bound on the queue, however short the tasks: each that waits holds a connection and its request."""

WEIGHT: Final = 0.1
"""Of the newest observation in the measured service time: it follows a change within some 20 of them."""

AHEAD_SECONDS: Final = 0.01
"""How much work a worker is handed ahead, so that it need not idle while the loop is busy with others. As
little as will do: what it has can neither go to a worker that is idle nor be taken back if its client leaves.
"""

MOST_ABOVE: Final = 0.95
"""Of the workers, that more urgent classes are taken to keep busy. With all of them no wait could be told."""

MOST_EXPECTED: Final = 0.9
"""Of the longest deadline, that a task is expected to take. With all of it none would be admitted that has
waited for a microsecond, so nothing would be measured any more, and it would stay so for ever."""

MOST_MARGIN: Final = 0.5
"""Of the longest wait, that is kept free for waits that turn out longer than predicted. With work of 4 ms at
three and at ten times the limit, on cores that all processes share, the 99th percentile of answers was 60 to
220 ms above the longest wait without a margin, and is 14 to 68 ms above it with one (`make overload`)."""

LONGER: Final = 3
"""Times the longest wait, that a request may wait while less urgent ones are served. Those leave the room
that it needs, so what waits now is a spell in which the cores gave less, no overload by its own class. On
cores that others use as well, a class that takes 0.8 of them waited for up to 0.5 s (`make priorities`)."""

SHORTEST: Final = 1e-4
"""Seconds; tasks shorter than this are not worth handing over. It bounds how many a worker may have."""

LIMIT_PER_WORKER: Final = 3
"""Deaths per worker, without a finished task between them, that the breaker bears."""

FIRST_PROBE_SECONDS: Final = 0.5
LAST_PROBE_SECONDS: Final = 10.0


class Before(NamedTuple):
    """What a task has before it that comes now.

    waiting: tasks that do not run yet.
    running: tasks that run.
    up: workers that are up.
    oldest: seconds that the first one in the queue has waited already.
    above: workers that more urgent tasks keep busy.
    margin: seconds by which others have waited longer than was predicted.
    has_precedence: less urgent tasks wait, or have been served of late.
    """

    waiting: int
    running: int
    up: int
    oldest: float = 0.0
    above: float = 0.0
    margin: float = 0.0
    has_precedence: bool = False


class Admission:
    """A request is admitted as long as its wait is short; what it waits for is in room.py.

    Why predict the wait instead of bounding the number: the same bound is too long for tasks of 40 ms and too
    short for tasks of 0.5 ms. The wait is what a client feels, and it can be told before it is suffered.

    Args:
        workers: how many tasks run at the same time when all is well.
        queue_wait: longest predicted wait in seconds; `math.inf` admits every request.
        seconds: what a task is expected to take, until one has been measured; None: unknown.
        longest: the longest deadline there is. A worker that cannot be killed may be kept for longer than
            that, but no task is expected to take more than `MOST_EXPECTED` of it.
        client_share: most that one client may have of the tasks that may wait, from 0 to 1 and at least one.
    """

    def __init__(
        self,
        workers: int,
        queue_wait: float = math.inf,
        seconds: float | None = None,
        longest: float = math.inf,
        client_share: float = 1.0,
    ) -> None:
        self.workers = workers
        self.queue_wait = queue_wait
        self._client_share = client_share
        self._longest = MOST_EXPECTED * longest
        self.seconds = seconds
        """Service demand: seconds that a task keeps a worker from the next, with what the hand-over, a slow
        clock or a neighbour on the core add to it."""
        self._took = seconds  # without the hand-over: on the worker's own clock

    def observe(self, seconds: float, took: float, tasks: int) -> None:
        """Together, so many tasks kept their worker from the next for `seconds`, and ran for `took`."""
        self.seconds = _moved(self.seconds, min(seconds / tasks, self._longest))
        self._took = _moved(self._took, min(took / tasks, self._longest))

    @property
    def most_margin(self) -> float:
        """Seconds of `queue_wait` that may be kept free for waits that turn out longer than predicted."""
        return 0.0 if self.queue_wait == math.inf else MOST_MARGIN * self.queue_wait

    def longest(self, before: Before) -> float:
        """Seconds that a request may wait."""
        return self.queue_wait * (LONGER if before.has_precedence else 1)

    def wait(self, before: Before) -> float:
        """Seconds until a worker takes a task that comes now, by what tasks took in the past.

        While it waits others come that are served before it: what it waits for takes longer by the share of
        the workers that they take (Cobham, Priority Assignment in Waiting Line Problems, 1954).
        """
        ahead = self._ahead(before)
        return ahead / (1 - min(before.above / max(before.up, 1), MOST_ABOVE)) if before.above else ahead

    def compared(self, before: Before) -> float:
        """What is compared with `queue_wait`: the wait, with the margin where it may refuse anybody."""
        return self.wait(before) + (before.margin if before.waiting >= self.workers else 0.0)

    def retry_after(
        self, before: Before, *, deadline: float = math.inf, waited: float = 0.0, is_promised: bool = False
    ) -> int | None:
        """None if a request is admitted, else the seconds after which it is worth while to ask again.

        Args:
            deadline: seconds from its arrival within which the answer is needed.
            waited: seconds since its arrival. To its client a wait in the kernel is as long as one here.
            is_promised: it has a place in the queue already.
        """
        seconds, ahead = self.seconds or 0.0, self._ahead(before)
        # What it has waited counts for the decision. When to ask again follows from what lies ahead alone. Of
        # those who will come before it nothing is certain: who may miss a deadline for them gets its chance.
        if waited + ahead + seconds > deadline:
            return _whole(ahead + seconds - deadline)
        if self.queue_wait == math.inf or is_promised:
            return None
        if before.waiting >= MOST_WAITING:
            return _whole(ahead - self.queue_wait)
        # One for each worker may wait however long the tasks are, or a worker idles after each.
        if before.waiting < self.workers:
            return None
        # The prediction knows the tasks of the past. If the first in the queue has waited for longer than
        # it may, those of today are different.
        longest, wait = self.longest(before), self.wait(before)
        if max(waited + wait + before.margin, before.oldest) <= longest:
            return None
        return _whole(max(wait, before.oldest) - longest)

    def most_waiting(self, margin: float = 0.0) -> float:
        """Tasks that may wait at present."""
        if self.queue_wait == math.inf:
            return math.inf
        longest = self.queue_wait - margin
        possible = longest * self.workers / self.seconds if self.seconds else MOST_WAITING
        return max(self.workers, min(MOST_WAITING, int(possible)))

    def most_of_a_client(self, margin: float = 0.0) -> float:
        """Of these, tasks that one client may have in its class."""
        return max(1.0, self._client_share * self.most_waiting(margin))

    def tasks_per_worker(self) -> int:
        """How many tasks a worker may have: one that runs, and what it does in `AHEAD_SECONDS`."""
        return 1 + (round(AHEAD_SECONDS / max(self._took, SHORTEST)) if self._took is not None else 0)

    def _ahead(self, before: Before) -> float:
        # A task that runs now is half done, on average.
        return (before.waiting + before.running / 2) * (self.seconds or 0.0) / max(before.up, 1)


class Breaker:
    """Stops the work when workers die faster than they can be replaced.

    Counts deaths at work without one finished task between them. When there are too many, it opens: no task
    runs until a worker has finished a call that is known to be good. A request would be a bad probe: if
    an input kills workers, those that send it again and again are who comes first when a probe is due.

    A worker that cannot be started has not died: what keeps one from starting may leave all others well.
    """

    def __init__(self, workers: int) -> None:
        self._limit = LIMIT_PER_WORKER * workers + 1
        self._deaths = 0  # since the last success, of a task or of a probe
        self._in_vain = 0  # of these and all before them since the last task, those that (re)opened it
        self._next_probe: float | None = None

    @property
    def closed(self) -> bool:
        """Whether all is well."""
        return self._next_probe is None

    @property
    def pause(self) -> float:
        """Seconds until the next attempt; doubles with each death. Only a task that succeeds ends that."""
        return pause_after(self._in_vain)

    def died(self, now: float) -> bool:
        """A worker has died at work, or has not survived a probe; True if that opens the breaker."""
        self._deaths += 1
        was_closed = self.closed
        if self._deaths >= self._limit:
            self._in_vain += 1
            self._next_probe = now + self.pause
        return was_closed and not self.closed

    def succeeded(self, *, probe: bool) -> bool:
        """A worker has finished a task, or a probe; True if that closes the breaker."""
        was_open, self._deaths, self._next_probe = not self.closed, 0, None
        if not probe:
            self._in_vain = 0
        return was_open

    def retry_after(self, now: float) -> int | None:
        """None if a request is admitted, else the seconds until the next probe."""
        return None if self._next_probe is None else _whole(self._next_probe - now)


def pause_after(failures: int) -> float:
    """Seconds until the next attempt, after so many in vain: they double."""
    return min(LAST_PROBE_SECONDS, FIRST_PROBE_SECONDS * 2.0 ** min(max(failures - 1, 0), 16))


def _moved(mean: float | None, value: float) -> float:
    return value if mean is None else mean + WEIGHT * (value - mean)


def _whole(seconds: float) -> int:
    """`Retry-After` counts whole seconds (RFC 9110, 10.2.3); at least one: no client may come at once."""
    return max(1, math.ceil(seconds)) if math.isfinite(seconds) else 1
