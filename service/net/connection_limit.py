"""Capacity: the right to hold one connection, taken before it is accepted. Pure, but for the limit's source.

Knows how many connections may be held at once and who waits for the next free place. Opens nothing.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

SPARE: Final = 64
"""Descriptors kept free for what handlers open, for replaced workers, scrapes and logs."""

MOST: Final = 10_000
"""More must be asked for. A connection costs 5 to 11 KiB here (`make memory`, docs/proofs.md); its buffers in
the kernel and what its handler holds come on top: hundreds of megabytes that nobody who merely raised
`ulimit -n` expects."""


class Permit:
    """The right to hold one connection. Released once; later calls change nothing."""

    __slots__ = ("_connection_limit",)

    def __init__(self, connection_limit: ConnectionLimit) -> None:
        self._connection_limit: ConnectionLimit | None = connection_limit

    def release(self) -> None:
        """Give the place back."""
        connection_limit, self._connection_limit = self._connection_limit, None
        if connection_limit is not None:
            connection_limit._returned()  # the two classes are one thing


class ConnectionLimit:
    """At most `limit` connection_limit are out at a time. For the event loop's thread alone."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        """May be changed at any time; who is above a lower one stays."""
        self.taken = 0
        self.at_capacity = False
        """Clients wait who cannot be taken in: who has had an answer should give its place up. Set and
        cleared by the accept loop, which alone sees the queue: cleared when that is empty and not when a
        place is free, or it would flicker with every connection while a thousand wait."""
        self._waiting: Callable[[], Any] | None = None

    def take(self, *, beyond: bool = False) -> Permit | None:
        """A permit, or None at the limit; `beyond`: above the limit too."""
        if self.is_reached() and not beyond:
            return None
        self.taken += 1
        return Permit(self)

    def is_reached(self) -> bool:
        """Whether the limit is reached."""
        return self.taken >= self.limit

    def when_free(self, callback: Callable[[], Any]) -> None:
        """Call `callback` once, as soon as a place is free, in the context of now.

        Not in that of whoever gives its place back: what the callback sets going would bear the ids of a
        connection that has ended.
        """
        self._waiting = functools.partial(contextvars.copy_context().run, callback)

    def retry(self) -> None:
        """The limit has changed: tell whoever waits if there is a place now."""
        if self._waiting is not None and not self.is_reached():
            callback, self._waiting = self._waiting, None
            callback()

    def _returned(self) -> None:
        self.taken -= 1
        self.retry()


def derive(open_files: int, in_use: int) -> tuple[int, str]:
    """The default limit with `open_files` descriptors of which `in_use` are taken, and its derivation."""
    limit = possible(open_files, in_use)
    if limit > MOST:
        return MOST, f"the default maximum; {open_files} open files would allow more"
    return limit, f"{open_files} open files - {in_use} in use - {_spare(open_files)} spare"


def possible(open_files: int, in_use: int) -> int:
    """How many connections `open_files` descriptors allow when `in_use` serve something else."""
    return max(1, open_files - in_use - _spare(open_files))


def _spare(open_files: int) -> int:
    return min(SPARE, max(open_files // 8, 1))


def open_files() -> tuple[int, int]:
    """The limit on open files of this process, and how many are open now."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit == resource.RLIM_INFINITY:
        limit = 2**31 - 1
    return limit, sum(1 for _ in Path("/dev/fd").iterdir())


def raise_open_files() -> None:
    """Raise the soft limit on open files to the hard one; where that is refused, leave it."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(OSError, ValueError):  # macOS: none above kern.maxfilesperproc can be taken
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
