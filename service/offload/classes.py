"""What waits: tasks by urgency, each class in the order in which its tasks came, and whose they are. Pure.

A class is all that waits with one urgency: tasks, and places of requests that are on their way. There are at
most eight, each from its first request on, so a service whose requests are all alike looks at one.
"""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Final

from service.offload.task import USUAL, Client, Task

LOAD_SECONDS: Final = 1.0
"""How far back the load of a class goes: with the default `--queue-wait`, five times as long as a task may
wait, so that it does not follow the few that happen to be urgent at the moment."""

SERVED_SECONDS: Final = 10.0
"""Longer than the spells in which cores that others use as well give less: in one, more urgent classes may
need all of what is left."""

MISSED_SECONDS: Final = 10.0
"""How fast it is forgotten, exponentially, that a task has waited longer than was predicted. Cores that
others use as well are slow now and then, and what was admitted just before waits for all of that."""


class TaskClass:
    """All that waits with one urgency."""

    __slots__ = ("_busy", "_missed", "_missed_at", "_until", "held", "places", "tasks", "urgency")

    def __init__(self, urgency: int) -> None:
        self.urgency = urgency
        self.tasks: OrderedDict[Task, None] = OrderedDict()
        """Those that no worker has yet, the first in front."""
        self.places: set[Place] = set()
        """Of requests that are on their way."""
        self.held: dict[Client, int] = {}
        """How many tasks and places each client has, of those whose share is bounded; one with none is
        forgotten."""
        self._busy, self._until = 0.0, -math.inf
        self._missed, self._missed_at = 0.0, -math.inf

    def kept_busy(self, seconds: float, now: float) -> None:
        """A task of this class has kept a worker busy for so long, until `now` of a monotonic clock.

        A long one counts as `LOAD_SECONDS`, or for a while it would look like many.
        """
        self._busy = self.load(now) * LOAD_SECONDS + min(seconds, LOAD_SECONDS)
        self._until = now

    def is_served(self, now: float) -> bool:
        """Whether a worker has had a task of this class in the last `SERVED_SECONDS`."""
        return now - self._until <= SERVED_SECONDS

    def load(self, now: float) -> float:
        """Workers that this class keeps busy: the average over some `LOAD_SECONDS`."""
        return self._busy / LOAD_SECONDS * math.exp((self._until - now) / LOAD_SECONDS)

    def missed(self, seconds: float, now: float) -> None:
        """A task has waited for so many seconds longer than it was expected to, or for less."""
        if seconds > self.margin(now):
            self._missed, self._missed_at = seconds, now

    def margin(self, now: float) -> float:
        """Seconds by which tasks have waited longer than expected: the worst miss, which decays."""
        return self._missed * math.exp((self._missed_at - now) / MISSED_SECONDS)

    def enter(self, client: Client) -> None:
        """Count a task or a place of `client`."""
        self.held[client] = self.held.get(client, 0) + 1

    def leave(self, client: Client) -> None:
        """A task or a place that was counted does not wait any more."""
        left = self.held[client] - 1
        if left:
            self.held[client] = left
        else:
            del self.held[client]


class Place:
    """The place in the queue of a request that is on its way: nobody else of its class is admitted for it.

    Its connection gives it back: when the request submits its task, when it is answered without one, or when
    the connection ends. A set of places, and no count, because several of these may happen, in any order.
    """

    __slots__ = ("_client", "_kept_in")

    def __init__(self, kept_in: TaskClass, client: Client | None = None) -> None:
        self._kept_in = kept_in
        self._client = client
        kept_in.places.add(self)
        if client is not None:
            kept_in.enter(client)

    def release(self) -> bool:
        """Keep it no more; whether it was kept until now."""
        if self not in self._kept_in.places:
            return False
        self._kept_in.places.remove(self)
        if self._client is not None:
            self._kept_in.leave(self._client)
        return True


class Classes:
    """The classes that there are; iterating gives all tasks, in the order in which their turn comes.

    Args:
        begun: called with each class once it is there.
    """

    def __init__(self, begun: Callable[[TaskClass], object]) -> None:
        self._begun = begun
        self._of: dict[int, TaskClass] = {}
        self.in_order: tuple[TaskClass, ...] = ()
        """The most urgent first."""
        self._tasks: tuple[OrderedDict[Task, None], ...] = ()  # of each of these
        self._count = 0
        self.of(USUAL.urgency)

    def __len__(self) -> int:
        """Tasks of all classes; may be asked from any thread."""
        return self._count

    def __iter__(self) -> Iterator[Task]:
        """All tasks: the most urgent class first, within a class the first that came."""
        return itertools.chain.from_iterable(self._tasks)

    def of(self, urgency: int) -> TaskClass:
        """The class of this urgency."""
        found = self._of.get(urgency)
        if found is None:
            found = self._of[urgency] = TaskClass(urgency)
            self.in_order = tuple(self._of[one] for one in sorted(self._of))
            self._tasks = tuple(one.tasks for one in self.in_order)
            self._begun(found)
        return found

    def least_urgent(self) -> TaskClass | None:
        """The last class in which a task waits."""
        for one in reversed(self.in_order):
            if one.tasks:
                return one
        return None

    def add(self, task: Task, *, first: bool = False) -> None:
        """Add a task at the end of its class, or as its first."""
        urgency, client = task.rank
        one = self._of.get(urgency) or self.of(urgency)
        one.tasks[task] = None
        if first:
            one.tasks.move_to_end(task, last=False)
        if client is not None:
            one.enter(client)
        self._count += 1

    def kept_busy(self, task: Task, seconds: float, now: float) -> None:
        """A task has kept a worker busy for so long; where all are alike there is nobody to tell."""
        if len(self.in_order) > 1:
            self.of(task.rank.urgency).kept_busy(seconds, now)

    def remove(self, task: Task) -> None:
        """The task waits no more; nothing changes if it does not wait."""
        urgency, client = task.rank
        one = self._of[urgency]
        if task in one.tasks:
            del one.tasks[task]
            if client is not None:
                one.leave(client)
            self._count -= 1
