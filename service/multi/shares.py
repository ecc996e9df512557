"""The share of one IO process among several in what the service may have. Pure.

The settings are those of the whole service, however many IO processes it has. The rule: the workers of one IO
process times the number of IO processes are at most --workers, and so are connections and --max-connections,
and those of one client and --max-connections-per-client.
"""

from __future__ import annotations

import math
from typing import Final

from service.config.settings import Settings
from service.config.types import MOST

CORES_EACH: Final = 10
"""Cores that one IO process keeps busy with tasks of 4 ms (`make hand-over`, docs/proofs.md)."""

DRAIN_SHARE: Final = 0.95
"""Of the arbiter's graceful timeout; the rest is for stopping what is left at the drain's deadline."""


class ShareError(ValueError):
    """The settings cannot be divided; the message is one sentence for the operator."""


def processes(workers: int) -> int:
    """The default number of IO processes for so many workers: as many as keep the workers busy.

    At least two if there are two workers, so that one goes on when the other dies.
    """
    return min(workers, max(2, math.ceil(workers / CORES_EACH)))


def graceful_timeout(settings: Settings) -> int:
    """Whole seconds after which an arbiter may kill an IO process that it has told to stop."""
    return math.ceil((settings.drain_notice + settings.drain_timeout) / DRAIN_SHARE) + 1


def share(settings: Settings, processes: int, graceful_timeout: float) -> Settings:
    """The settings of one IO process of `processes`.

    Args:
        settings: of the whole service.
        graceful_timeout: seconds after which the arbiter kills a process that it has told to stop; the drain
            is shortened to end before.

    Raises:
        ShareError: there are fewer workers than processes, or the lame duck takes all of the timeout.
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
    connections, each = settings.max_connections, settings.max_connections_per_client
    return settings.model_copy(
        update={
            "workers": settings.workers // processes,
            "max_connections": connections and max(1, connections // processes),
            # The kernel spreads one client's connections over the processes, though not evenly.
            "max_connections_per_client": each if each in (None, MOST) else max(1, each // processes),
            "max_queue_bytes": max(1, settings.max_queue_bytes // processes),
            "drain_timeout": min(settings.drain_timeout, drain),
        }
    )
