"""The connection limit: set or derived from the open files, lowered in a shortage; and the permits under it.

A permit is acquired before a connection is accepted, and released when the connection has ended. All of it is
pure but for log lines and the last two functions: the limit is given what counts the open files.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import structlog

from metrics.places import MOST_CONNECTIONS as ADMIN_CONNECTIONS

log = structlog.get_logger("offloop.server")  # the name that users know these lines by

SPARE_DESCRIPTORS: Final = 64
"""Descriptors kept free for what handlers open, for replaced workers and logs. Those of the admin port are
kept free beside them: its clients may take all of its places, and must not take these."""

DEFAULT_MAXIMUM: Final = 10_000
"""The default is never higher; a higher limit must be set. A connection costs 5 to 11 KiB here
(`make memory`, docs/proofs.md); its buffers in the kernel and what its handler holds come on top: hundreds of
megabytes, which an operator who merely raised `ulimit -n` does not expect."""


class Permit:
    """The right to hold one connection."""

    __slots__ = ("_limit",)

    def __init__(self, limit: ConnectionLimit) -> None:
        self._limit: ConnectionLimit | None = limit

    def release(self) -> None:
        """Return the permit; only the first call counts."""
        limit, self._limit = self._limit, None
        if limit is not None:
            limit._returned()  # the two classes are one thing


class ConnectionLimit:
    """Lets at most `limit` permits be held at a time. For the event loop's thread alone.

    Args:
        chosen: the limit, or None for what the open files allow; see `set()`.
        open_files: returns the limit on open files of this process, and how many are open now; may raise
            OSError.

    Raises:
        OSError: the open files cannot be counted.
    """

    def __init__(self, chosen: int | None, open_files: Callable[[], tuple[int, int]]) -> None:
        self.limit = 0
        """What applies now: what is configured, or less while a shortage has taught so."""
        self.held = 0
        """Permits that are held now; more than `limit` after the limit was lowered, and in a drain."""
        self.at_capacity = False
        """Clients wait and there is no permit for them: a connection that has had its answer should close.
        Set and cleared by the accept loop, which alone sees the accept queue: cleared when the queue is empty
        and not when a permit is free, or it would flicker with every connection while a thousand wait."""
        self._open_files = open_files
        self._configured = 0  # what was set, or derived from the open files
        self._waiting: Callable[[], Any] | None = None
        self.set(chosen)

    def set(self, chosen: int | None) -> None:
        """Hold at most `chosen` connections from now on; with None, as many as the open files allow.

        Connections above a lower limit stay. A lower limit that a shortage has taught applies until it is
        over.

        Raises:
            OSError: the open files cannot be counted; the limit stays what it was.
        """
        open_files, in_use = self._open_files()
        default, why = default_limit(open_files, in_use - self.held)
        if chosen is None:
            log.info("connection limit", max_connections=default, derived=why)
        elif chosen > default:
            log.warning(
                "connection limit above what the open files allow",
                max_connections=chosen,
                possible=default,
                derived=why,
            )
        has_learned = self.limit < self._configured
        self._configured = default if chosen is None else chosen
        self.limit = min(self._configured, self.limit) if has_learned else self._configured
        self.wake()

    def learn(self) -> None:
        """In a shortage: hold no more connections than the open files allow now, until `forget()`.

        Raises:
            OSError: the open files cannot be counted; the limit stays what it was.
        """
        open_files, in_use = self._open_files()
        self.limit = min(self._configured, allowed(open_files, in_use - self.held))

    def forget(self) -> None:
        """The shortage is over: what is configured applies again."""
        self.limit = self._configured

    def acquire(self, *, over_limit: bool = False) -> Permit | None:
        """A permit; None at the limit, unless `over_limit` is true."""
        if self.held >= self.limit and not over_limit:
            return None
        self.held += 1
        return Permit(self)

    def is_reached(self) -> bool:
        """Whether as many permits are held as the limit allows, or more."""
        return self.held >= self.limit

    def call_when_free(self, callback: Callable[[], Any]) -> None:
        """Call `callback` once, as soon as a permit is free, in the present context.

        In that of the connection that releases its permit, all that the callback starts would bear the ids of
        a connection that has ended.
        """
        self._waiting = functools.partial(contextvars.copy_context().run, callback)

    def wake(self) -> None:
        """Call what waits for a permit if there is one now: the limit may have changed."""
        if self._waiting is not None and not self.is_reached():
            callback, self._waiting = self._waiting, None
            callback()

    def _returned(self) -> None:
        self.held -= 1
        if self._waiting is not None:
            self.wake()


def default_limit(open_files: int, in_use: int) -> tuple[int, str]:
    """The limit when none is set, and its derivation in words; arguments as for `allowed()`."""
    limit = allowed(open_files, in_use)
    if limit > DEFAULT_MAXIMUM:
        return DEFAULT_MAXIMUM, f"the default maximum; {open_files} open files would allow more"
    kept = f"{_spare(open_files)} spare - {ADMIN_CONNECTIONS} of the admin port"
    return limit, f"{open_files} open files - {in_use} in use - {kept}"


def allowed(open_files: int, in_use: int) -> int:
    """How many connections a limit of `open_files` allows when `in_use` of them are no connections."""
    return max(1, open_files - in_use - _spare(open_files) - ADMIN_CONNECTIONS)


def _spare(open_files: int) -> int:
    return min(SPARE_DESCRIPTORS, max(open_files // 8, 1))


def open_files() -> tuple[int, int]:
    """The limit on open files of this process, and how many are open now.

    Lists /dev/fd, which takes a descriptor, and milliseconds for ten thousand entries.

    Raises:
        OSError: no descriptor is left to list with.
    """
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit == resource.RLIM_INFINITY:
        limit = 2**31 - 1
    return limit, sum(1 for _ in Path("/dev/fd").iterdir())


def raise_open_files() -> None:
    """Raise the soft limit on open files to the hard one; where that is refused, leave it."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(OSError, ValueError):  # macOS refuses more than kern.maxfilesperproc
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
