"""One function call on its way: what a caller has submitted, and what has become of it so far."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from service.offload.quarantine import name_of
from service.offload.worker_main import Packed


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
