"""How many log lines may go out: a token bucket for each event. Pure: it is told the time.

Each event has a bucket of its own, so that a flood of one does not hide another: during an attack
the one "worker lost" between ten thousand other lines is the one to read. An event is any hashable. Writes
nothing.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple


class Allowance(NamedTuple):
    """What one event may write: `burst` lines at once, and `per_second` in the long run."""

    per_second: float
    burst: int


class RateLimiter:
    """Decides line by line; see `admit`. Keeps a bucket for every event that it has seen."""

    def __init__(self) -> None:
        self._buckets: dict[Hashable, _Bucket] = {}

    def admit(self, event: Hashable, allowance: Allowance, now: float) -> int | None:
        """Whether one more line of `event` may go out.

        Args:
            now: seconds of a clock that never goes back.

        Returns:
            None if it may not; else how many of its lines were held back since the last that went out.
        """
        bucket = self._buckets.get(event)
        if bucket is None:
            bucket = self._buckets[event] = _Bucket(allowance.burst, now)
        return bucket.take(allowance, now)


class _Bucket:
    """A token bucket: full at first, and each line takes one token."""

    __slots__ = ("_since", "_suppressed", "_tokens")

    def __init__(self, tokens: float, now: float) -> None:
        self._tokens = tokens
        self._since = now
        self._suppressed = 0

    def take(self, allowance: Allowance, now: float) -> int | None:
        self._tokens = min(allowance.burst, self._tokens + (now - self._since) * allowance.per_second)
        self._since = now
        if self._tokens < 1:
            self._suppressed += 1
            return None
        self._tokens -= 1
        suppressed, self._suppressed = self._suppressed, 0
        return suppressed
