"""What one of several IO processes gets of what the service may have. Pure.

The settings speak of the whole service, however many IO processes it has. The rule: workers of one process
times processes is at most --workers, and so with connections.
"""

from __future__ import annotations

import math
from typing import Final

from service.config.settings import Settings

CORES_EACH: Final = 10
"""How many cores one IO process feeds with work of 4 ms (`make hand-over`, docs/proofs.md)."""

DRAIN_SHARE: Final = 0.95
"""Of the time after which the arbiter kills: the rest is for what comes after a drain that was late."""


class ShareError(ValueError):
    """The settings cannot be divided; the message is one sentence."""


def processes(workers: int) -> int:
    """How many IO processes there should be: as many as it takes to feed the workers.

    And two at least, if there are two workers, so that one goes on when the other dies.
    """
    return min(workers, max(2, math.ceil(workers / CORES_EACH)))


def graceful_timeout(settings: Settings) -> int:
    """Seconds after which an arbiter may kill a process that it has told to stop."""
    return math.ceil((settings.drain_notice + settings.drain_timeout) / DRAIN_SHARE) + 1


def share(settings: Settings, processes: int, graceful_timeout: float) -> Settings:
    """The settings of one of `processes`, whose arbiter waits for `graceful_timeout` seconds.

    Raises:
        ShareError: they cannot be divided.
    """
    if not 1 <= processes <= settings.workers:
        raise ShareError(
            f"{processes} IO processes cannot have a worker each: --workers is {settings.workers}"
        )
    drain = DRAIN_SHARE * graceful_timeout - settings.drain_notice
    if drain <= 0:
        raise ShareError(
            f"a graceful timeout of {graceful_timeout:g} s leaves no time to drain after --drain-notice "
            f"{settings.drain_notice:g}"
        )
    connections = settings.max_connections
    return settings.model_copy(
        update={
            "workers": settings.workers // processes,
            "max_connections": connections and max(1, connections // processes),
            "drain_timeout": min(settings.drain_timeout, drain),
        }
    )
