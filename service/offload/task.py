"""One function call on its way: what a caller has submitted, and what has become of it so far."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from service.offload.quarantine import name_of
from service.offload.worker_main import Packed

Client = str | bytes
"""Whose connections, and so whose tasks, are counted together; see `client_limit.Client`."""


class Rank(NamedTuple):
    """Where a request stands in the queue.

    urgency: 0 is served first, 7 last, and 3 is that of a request of which nothing is known (RFC 9218, 4.1).
    client: whose share of the queue it takes; None: its client's share is not bounded.
    """

    urgency: int = 3
    client: Client | None = None


USUAL: Final = Rank()


@dataclass(slots=True, eq=False)
class Task:
    """One function call, and the caller that awaits its outcome."""

    packed: Packed
    submitted: float
    outcome: asyncio.Future[Any]
    is_wanted: Callable[[], bool] | None
    size: int = 0  # bytes of function and arguments as they travel; 0 if they do not
    until: float = math.inf  # its caller waits for it until then: from then on it does not start
    limit: float = math.inf  # from then on its worker is killed for it
    timer: asyncio.TimerHandle | None = None
    kills: int = 0  # workers that died when they may have run it: its attempts
    in_flight: bool = False  # a worker has it
    sent: float = 0.0  # when it was handed over
    call: bytes | None = None  # its name, once somebody has asked
    rank: Rank = USUAL
    expected: float = math.inf  # how long it was expected to wait when it came; inf: nobody knows

    @property
    def name(self) -> bytes:
        """See `quarantine.name_of`."""
        if self.call is None:
            self.call = name_of(self.packed)
        return self.call

    def forget_deadline(self) -> None:
        """It can expire no more."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
