"""When an IO process may leave its listener to the others: what their slots say of them decides.

Knows slots (metrics/slots.py) and flock(2). Looks into the folder of the metrics, so it is not for every turn
of a loop: once a second, by a process that has a reason to leave.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable
from typing import Final

from metrics.shared import Together
from metrics.slots import Slot

UNREADY_SECONDS: Final = 15.0
"""Not ready for so long, it will not be soon. Workers that keep dying are probed every ten seconds at least
(offload/admission.py), so this is more than one probe in vain; until then its clients get 503."""


class Unready:
    """For how long this process has not been ready."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: float | None = None

    def too_long(self, ready: bool) -> bool:
        """Take in whether it is ready now; True once it has not been for `UNREADY_SECONDS`."""
        now = self._clock()
        self._since = None if ready else now if self._since is None else self._since
        return self._since is not None and now - self._since >= UNREADY_SECONDS


class Siblings:
    """The other IO processes that have a slot in this folder: those of an older arbiter, too (SIGUSR2).

    Args:
        slot: that of this process.
        stall_seconds: one whose last heartbeat is older is not ready, whatever it said then.
    """

    def __init__(self, slot: Slot, stall_seconds: float) -> None:
        self._slot = slot
        self._together = Together(slot.folder, stall_seconds)

    def let_go(self, wanted: int) -> bool:
        """Whether so many others are ready that this process may leave. From then on it counts as none.

        One process decides at a time, else two could leave because of each other. The others ask again at
        their next heartbeat: one that is stopped while it decides must not stop their loops.
        """
        with (self._slot.folder / "leaving").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            if self._together.count_ready(but=self._slot.number) < wanted:
                return False
            self._slot.say(False, "leaving")
            return True
