"""A shortage of descriptors or kernel memory: what is held back for it, the pause, the lower limit, its end.

Knows the reserve descriptors, the event loop's timers and the connection limit. Accepts nothing: the accept
loop begins a pause, and is called when the pause is over.

Pausing alone admits one burst per pause: behind 900 clients that had given up, the next one waited for seven
seconds. So a shortage also teaches the connection limit: with no more connections than the descriptors allow,
the end of each lets the next one in at once.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

import structlog

from metrics.instruments import Metrics
from service.net.accept_errors import HELP, HINTS, errno_name
from service.net.connection_limit import ConnectionLimit

log = structlog.get_logger("offloop.accept")

PAUSE_SECONDS = 0.5
"""How long a shortage pauses the accept loop: the figure of the async-std book. Long enough to cost nothing,
short enough that a client waiting in the accept queue hardly notices."""

CALM_SECONDS = 1.0
"""A shortage is over when no pause has begun for this long after the last one. Until then it is one episode,
with one line in the log at its beginning and one at its end, however many pauses it has."""

RESERVE_DESCRIPTORS = 8
"""Descriptors held back for the rest of the service: a handful of scrapes, log files, one worker's pipes."""


class ReserveDescriptors:
    """A few descriptors held back and dropped in a shortage, so that connections never take the last ones.

    Without them a service that is out of descriptors can neither be scraped nor replace a worker, just when
    an operator wants to know why.
    """

    def __init__(self, size: int = RESERVE_DESCRIPTORS) -> None:
        self._size = size
        self._held: list[int] = []
        self.refill()

    def refill(self) -> bool:
        """Take all of them again; False while there are not enough."""
        try:
            while len(self._held) < self._size:
                self._held.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        except OSError:
            self.drop()
            return False
        return True

    def drop(self) -> None:
        """Close all of them."""
        while self._held:
            os.close(self._held.pop())


class Shortage:
    """Pauses the accept loop until the reserve is back, and lowers the limit until no client waits any more.

    Args:
        limit: learns what the open files allow while the shortage lasts.
        reserve: dropped in a pause; a pause lasts until it can be refilled.
        metrics: counts pauses and shows whether one is on.
    """

    def __init__(self, limit: ConnectionLimit, reserve: ReserveDescriptors, metrics: Metrics) -> None:
        self._loop = asyncio.get_running_loop()
        self._limit = limit
        self._reserve = reserve
        self._metrics = metrics
        self._timer: asyncio.TimerHandle | None = None  # ends the pause, and after it the episode
        self.is_pausing = False
        self._since = 0.0
        self._pauses = 0  # of this episode; 0: there is none

    def pause(self, error: OSError, *, make_room: Callable[[], Any], resume: Callable[[], Any]) -> None:
        """Begin a pause.

        Args:
            error: what the accept loop met; the first error of an episode is logged.
            make_room: called now, and again while the pause lasts: idle connections hold what is short, too.
            resume: called at the end of the pause.
        """
        self._reserve.drop()
        make_room()
        self._metrics.accept_pauses.inc()
        self._metrics.accept_paused.set(1)
        if self._timer is not None:
            self._timer.cancel()
        if not self._pauses:
            self._since = self._loop.time()
            log.warning(
                "accept paused",
                errno=errno_name(error),
                reason=os.strerror(error.errno or 0),
                hint=HINTS.get(error.errno or 0, "see accept(2) for this error"),
                see=HELP,
                pause_seconds=PAUSE_SECONDS,
            )
        self._pauses += 1
        self.is_pausing = True
        self._timer = self._loop.call_later(PAUSE_SECONDS, self._end_pause, make_room, resume)

    def stop(self) -> None:
        """Give up pause and reserve: a service that stops accepts as far as the descriptors go."""
        if self._timer is not None:
            self._timer.cancel()
        self._metrics.accept_paused.set(0)
        self._reserve.drop()

    def _end_pause(self, make_room: Callable[[], Any], resume: Callable[[], Any]) -> None:
        if not self._learn():
            make_room()
            self._timer = self._loop.call_later(PAUSE_SECONDS, self._end_pause, make_room, resume)
            return
        self.is_pausing = False
        self._metrics.accept_paused.set(0)
        self._timer = self._loop.call_later(CALM_SECONDS, self._end_episode)
        resume()

    def _end_episode(self) -> None:
        """No pause for a while: the shortage is over, unless it is the lower limit that keeps it away."""
        if self._limit.at_capacity:
            self._timer = self._loop.call_later(CALM_SECONDS, self._end_episode)
            if self._learn():
                self._limit.wake()
            return
        self._limit.forget()
        log.info(
            "accept resumed",
            after_seconds=round(self._loop.time() - self._since - CALM_SECONDS, 1),
            pauses=self._pauses,
        )
        self._pauses = 0

    def _learn(self) -> bool:
        """Lower or raise the limit to what the open files allow now, and refill the reserve.

        Twice a second at most, and only in a shortage: counting takes milliseconds.

        Returns:
            False while there are not even enough descriptors for the rest of the service.
        """
        self._reserve.drop()  # counting needs a descriptor, too
        try:
            self._limit.learn()
        except OSError:
            return False
        return self._reserve.refill()
