"""How hard the generator works: its CPU time while it sends, and in its busiest second. Pure.

Knows two clocks only by the readings that it is given. Touches nothing. Never judges.
"""

from collections import deque
from typing import Final

SPAN_SECONDS: Final = 1.0


class Effort:
    """Adds up readings of the wall clock and of the process's CPU clock, both in seconds.

    Call `note` a few times a second while requests come due, and not afterwards.
    """

    def __init__(self, now: float, cpu: float) -> None:
        self._began = (now, cpu)
        self._recent = deque([self._began])
        self._busiest = 0.0
        self.seconds = self.cpu_seconds = 0.0

    def note(self, now: float, cpu: float) -> None:
        """Take a reading."""
        self.seconds, self.cpu_seconds = now - self._began[0], cpu - self._began[1]
        recent = self._recent
        recent.append((now, cpu))
        while len(recent) > 2 and recent[1][0] <= now - SPAN_SECONDS:
            recent.popleft()
        span = now - recent[0][0]
        if span >= SPAN_SECONDS:
            self._busiest = max(self._busiest, (cpu - recent[0][1]) / span)

    @property
    def busiest_share(self) -> float:
        """Share of one core in the busiest second or so; of the whole time if it was shorter."""
        return self._busiest or (self.cpu_seconds / self.seconds if self.seconds else 0.0)
