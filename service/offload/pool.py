"""What the queue needs of a pool, and what a pool reports to the queue: two interfaces and no code.

A worker is a thread or a process that runs tasks; a pool is all workers. There are two kinds: lanes, one
for each worker (lane_pool.py), and an executor (executor_pool.py). Any other, one on other machines
included, is a class with these methods and a line in strategies.py.

Tasks are opaque to a pool. It is handed a task together with what its worker runs, and gives the task back:
finished or, if the worker died, unfinished.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from service.offload.worker_main import Done, Failure, Packed

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)


class PoolObserver(Protocol[T]):
    """What a pool reports, always in the event loop's thread."""

    def finished(self, outcomes: list[tuple[T, Done]], seconds: float) -> None:
        """One worker has finished these tasks; together they kept it from the next for `seconds`."""

    def lost(self, tasks: list[T], tried: int, *, blamed: bool = True) -> None:
        """No worker has these any more, oldest first; the first `tried` may have run. One of those may have
        killed it, unless none is to be blamed: then the pool has done it, for another task."""

    def dispatch(self) -> None:
        """A worker has room: hand over what waits."""


class Pool(Protocol[T_contra]):
    """Workers that run tasks, and are replaced when they die."""

    @property
    def kind(self) -> str:
        """One word for messages: what its workers are."""

    @property
    def count(self) -> int:
        """Workers when all of them are up."""

    @property
    def up(self) -> int:
        """Workers that are up."""

    @property
    def in_flight(self) -> int:
        """Tasks that workers have, whether they run or come next."""

    @property
    def running(self) -> int:
        """Tasks that run; safe from any thread."""

    @property
    def passing(self) -> bool:
        """Whether other tasks may pass a suspected one for which there is no opening."""

    @property
    def healthy(self) -> bool:
        """Whether requests have a chance: workers stay up."""

    @property
    def overdue(self) -> int:
        """Tasks past their deadline that keep their place, because nothing can end them; safe from any
        thread."""

    @property
    def trouble(self) -> str:
        """Why it is not healthy, for those who ask whether the service is ready; safe from any thread."""

    @property
    def stuck(self) -> bool:
        """Whether none is up, and none could be started for long; safe from any thread."""

    def retry_after(self, now: float) -> int | None:
        """None: workers stay up, and a task may come. Else the seconds until it is tried whether they do."""

    def pack(self, function: Callable[..., Any], args: tuple[Any, ...], /) -> Packed:
        """Function and arguments as they travel to a worker of this pool.

        Raises:
            Exception: they cannot travel.
        """

    def unpack(self, result: Any, /) -> Any:
        """The result of a worker of this pool as the function returned it.

        Raises:
            Exception: it cannot be unpacked.
        """

    async def start(self, packed: Packed | None, *, try_out: bool) -> Failure | None:
        """Start every worker before the first request needs it.

        Args:
            packed: what they import.
            try_out: run it once; the failure of that is returned.

        Raises:
            Exception: a worker could not be started, or cannot import the work.
        """

    def available(self, most: int, *, suspected: bool) -> Any:
        """Where the next task may go, as `send` takes it; None if every worker has `most` tasks, or workers
        do not stay up.

        Args:
            suspected: the task may kill its worker: what does not must keep one to run on.
        """

    def send(self, opening: Any, task: T_contra, packed: Packed, submitted: float, until: float) -> None:
        """Hand `task` over to what `available` has returned. It is not run if its turn comes later than
        `until`, which is a `time.monotonic()` like `submitted`."""

    def expire(self, task: T_contra) -> bool:
        """The time of `task` is over. False: call again, it waits behind another on its worker."""

    async def stop(self, seconds: float) -> int:
        """Let workers finish what they have within `seconds`, then kill the processes among them.

        Returns:
            Tasks that were cut off. A thread cannot be killed: it goes on until the process ends.
        """
