"""Whether there is room in the queue: for a request that comes, and still for the last of those in it.

Knows what waits (classes.py), what workers have (pool.py), and what admission says to such numbers. Changes
nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from service.offload.admission import Admission, Before
from service.offload.classes import Classes, TaskClass
from service.offload.pool import Pool
from service.offload.task import Rank, Task


class Room:
    """What a task has before it: its own and more urgent classes, and what workers have already.

    Args:
        counts: whether how long a task has waited says something about those behind it.
    """

    def __init__(
        self, classes: Classes, pool: Pool[Any], admission: Admission, counts: Callable[[Task], bool]
    ) -> None:
        self._classes = classes
        self._pool = pool
        self._admission = admission
        self._counts = counts

    @property
    def waiting(self) -> int:
        """Tasks that do not run yet, whether a worker has them already or none."""
        return len(self._classes) + self._pool.in_flight - self._pool.running

    def predicted_wait(self) -> float:
        """Seconds that a task of the least urgent class which came now would wait; may be called from any
        thread.

        What the first in the queue has waited already is left out: another thread cannot look at it without a
        lock, which every task would have to take.
        """
        running = self._pool.running
        waiting = max(0, len(self._classes) + self._pool.in_flight - running)
        now, (*more_urgent, last) = time.monotonic(), self._classes.in_order
        above = sum(one.load(now) for one in more_urgent)
        return self._admission.compared(
            Before(waiting, running, self._pool.up, above=above, margin=last.margin(now))
        )

    def limit(self) -> float:
        """Tasks that may wait at present; may be called from any thread."""
        return self._admission.most_waiting(self._classes.in_order[-1].margin(time.monotonic()))

    def has_share(self, rank: Rank, margin: float) -> bool:
        """Whether one more task of this client does not exceed its share of its class."""
        held = self._classes.of(rank.urgency).held.get(rank.client, 0) if rank.client is not None else 0
        return not held or held + 1 <= self._admission.most_of_a_client(margin)

    def before(self, now: float, rank: Rank, *, with_places: bool = True) -> Before:
        """What a task has before it that comes now; without a class of its own, what the last one has.

        Args:
            with_places: requests that are on their way count as waiting.
        """
        running, classes = self._pool.running, self._classes.in_order
        waiting, oldest, above, margin = self._pool.in_flight - running, 0.0, 0.0, 0.0
        urgency = min(rank.urgency, classes[-1].urgency)
        for one in classes:
            if one.urgency > urgency:
                break
            if one.urgency < urgency:
                above += one.load(now)
            else:
                margin = one.margin(now)
            waiting += len(one.tasks) + (len(one.places) if with_places else 0)
            if (first := self._first(one)) is not None:
                oldest = max(oldest, now - first.submitted)
        has_precedence = self._has_precedence(urgency, now)
        # Those with less urgent ones behind them are not refused for being late now and then: an overload
        # fills the last class, and refuses that first.
        margin = 0.0 if has_precedence else margin
        return Before(waiting, running, self._pool.up, oldest, above, margin, has_precedence)

    def leaving(self, urgency: int) -> tuple[Task, int] | None:
        """Who has to leave for a task of this urgency that has come, and its `Retry-After`.

        None: all are as urgent, or the last in the queue waits for no longer than it may, even if nobody else
        comes: it was admitted for what comes on average, and no single one makes it leave. Else it is the
        first of the least urgent class if it has waited for longer than it may already: it was passed, and
        would be again. Else it is the last, which would wait for longest. What a worker has had already
        leaves for nobody: it was not passed, and may have run.
        """
        least = self._classes.least_urgent()
        if least is None or least.urgency <= urgency:
            return None
        first, now = self._first(least), time.monotonic()
        waited = now - first.submitted if first is not None else 0.0
        has_precedence = self._has_precedence(least.urgency, now)
        before = Before(
            self.waiting - 1, self._pool.running, self._pool.up, waited, has_precedence=has_precedence
        )
        retry_after = self._admission.retry_after(before)
        if retry_after is None:
            return None
        if first is not None and not first.sent and waited > self._admission.longest(before):
            return first, retry_after
        last = next((task for task in reversed(least.tasks) if not task.sent), None)
        return None if last is None else (last, retry_after)

    def _has_precedence(self, urgency: int, now: float) -> bool:
        """Whether less urgent tasks wait, or have been served of late."""
        for one in reversed(self._classes.in_order):
            if one.urgency <= urgency:
                return False
            if one.tasks or one.is_served(now):
                return True
        return False

    def _first(self, one: TaskClass) -> Task | None:
        for task in one.tasks:
            if self._counts(task):
                return task
        return None
