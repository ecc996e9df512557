"""How many log lines may go out: so many a second of each event, and a burst. Pure: it is told the time.

Each event has a bucket of its own, because a flood of one must not hide another: who is under attack wants to
read the one "worker lost" between ten thousand others. Knows events by whatever names them. Writes nothing.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple


class Allowance(NamedTuple):
    """What one event may write: `burst` lines at once, and `per_second` in the long run."""

    per_second: float
    burst: int


class Volume:
    """Decides line by line; see `admit`. It remembers every event it has seen."""

    def __init__(self) -> None:
        self._buckets: dict[Hashable, _Bucket] = {}

    def admit(self, event: Hashable, allowance: Allowance, now: float) -> int | None:
        """None if this line must not go out, else how many of its event did not since the last that did.

        Args:
            now: seconds of a clock that never goes back.
        """
        bucket = self._buckets.get(event)
        if bucket is None:
            bucket = self._buckets[event] = _Bucket(allowance.burst, now)
        return bucket.take(allowance, now)


class _Bucket:
    """A token bucket: full at first, and a line takes one token."""

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
