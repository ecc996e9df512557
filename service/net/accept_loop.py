"""The accept loop: takes connections from the kernel's queue, as many as there are permits for.

Knows the listening socket, the event loop's reader registration, accept errors (accept_errors.py), permits.
Decides nothing about HTTP: what to do with an accepted socket is a callable it is given.

Why a loop of our own: `loop.create_server` hides what matters here. Under uvloop a shortage of file
descriptors makes libuv accept and close the whole queue without a word, and one exception in the
protocol factory stops the listener for good; asyncio retries every second but logs hundreds of
times. Neither can limit connections before it accepts them, and neither says how many it took in
one turn, which decides whether "accepted" tracks "completed".

The shape is that of the async-std book, "Production-Ready Accept Loop": an error of one connection is
skipped, a shortage pauses the listener, and neither ends it. Added here: a permit is taken before a
connection is accepted, so that a full service leaves clients in the kernel's queue instead of running
into the shortage; the last few descriptors are never spent on connections; and a shortage of
descriptors teaches the limit. Pausing alone admits one burst per pause: behind 900 clients that had
given up, the next one waited for seven seconds. With the limit that the descriptors allow, the end of
each connection lets the next one in at once.
"""

from __future__ import annotations

import asyncio
import math
import os
import socket
from collections.abc import Callable
from typing import Any

import structlog

from metrics.instruments import Metrics
from service.net.accept_errors import EMPTY, HELP, HINTS, ErrorClass, classify, name
from service.net.connection_limit import ConnectionLimit, Permit
from service.net.tcp import backlog

log = structlog.get_logger("offloop.accept")

PAUSE_SECONDS = 0.5
"""How long a shortage pauses the listener: the figure of the async-std book's accept loop. Long
enough to cost nothing, short enough that a client waiting in the kernel queue hardly notices."""

CALM_SECONDS = 1.0
"""A shortage is over when this long after a pause no other has begun. Until then it is one episode, with
one line in the log at its beginning and one at its end, however often the listener pauses."""

RESERVE_DESCRIPTORS = 8
"""Descriptors held back for the rest of the service: a handful of scrapes, log files, one worker's pipes."""

TRIES_BEFORE_BROKEN = 10
"""An errno we do not know is a shortage until it has failed this often without one success."""

TRIES_BEFORE_PAUSE = 1000
"""So many failed connections without one success in between are no bad luck: look again after a pause."""


class ReserveDescriptors:
    """A few descriptors held back and let go in a shortage, so that connections never take the last ones.

    Without it a service that is out of descriptors can neither be scraped nor replace a worker, just
    when somebody wants to know why.
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
        """Let all of them go."""
        while self._held:
            os.close(self._held.pop())


class AcceptLoop:
    """Reads the listener whenever it is readable, at most `batch` connections per loop turn.

    It does not read while it pauses for a shortage, nor while no permit is free: clients then wait in
    the kernel's queue, which is what a queue there is for.

    Args:
        loop: registers the reader and times the pause.
        listener: a listening, non-blocking socket; owned by the caller until `close()`.
        batch: most connections taken per turn of the event loop. A small one leaves the queue in the
            kernel, a large one moves it into the process.
        connection_limit: capacity; one is taken before each accept and travels with the socket.
        take: called with each accepted socket and its permit, and owns both from then on.
        evict_idle: asked to end that many idle connections when clients wait and there is no permit for
            them, or no descriptor.
        broken: called once, with the error, when the listener is unusable.
        possible: how many connections the open files allow, counted anew; asked in a shortage.
        shared: others hold the listener, too, and go on with it when this process ends.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listener: socket.socket,
        *,
        batch: int,
        connection_limit: ConnectionLimit,
        take: Callable[[socket.socket, Permit], Any],
        evict_idle: Callable[[int], Any],
        broken: Callable[[OSError], Any],
        possible: Callable[[], int],
        metrics: Metrics,
        reserve: ReserveDescriptors | None = None,
        shared: bool = False,
    ) -> None:
        self._loop = loop
        self._listener = listener
        self._batch = batch
        self._connection_limit = connection_limit
        self._take = take
        self._evict_idle = evict_idle
        self._broken = broken
        self._possible = possible
        self._limit = connection_limit.limit
        self._metrics = metrics
        self._reserve = reserve or ReserveDescriptors()
        self._shared = shared
        self._unknown_in_a_row = 0
        self._failed_in_a_row = 0
        self._taken = 0
        self._closing = False
        self.is_short = False
        """Whether a shortage has ended the last `empty()`: then another may take more."""
        self._resume: asyncio.TimerHandle | None = None
        self._calm: asyncio.TimerHandle | None = None
        self._episode_since: float | None = None
        self._pauses = 0

    def start(self) -> None:
        """Begin to accept."""
        try:
            self._loop.add_reader(self._listener, self._on_readable)
        except OSError as error:  # epoll needs memory, too
            self._pause(error)

    def set_limit(self, limit: int) -> None:
        """Hold at most so many connections from now on; a shortage may have taught a lower limit."""
        lowered = self._connection_limit.limit < self._limit
        self._limit = limit
        self._connection_limit.limit = min(limit, self._connection_limit.limit) if lowered else limit
        self._connection_limit.retry()

    def empty(self) -> tuple[int, int]:
        """Take what is left in the queue, above the limit too; `close()` comes next.

        Closing first would reset every connection that the kernel has already accepted for us. The
        limit protects a service that goes on; one that ends rather answers whom it has.

        The queue of a shared listener fills again at once and belongs to whoever goes on: of that, what
        waits now is taken, for it could be that nobody does.

        Returns:
            Connections taken, and connections that are left behind, see `is_short`.
        """
        self._closing = True
        self._loop.remove_reader(self._listener)
        for timer in (self._resume, self._calm):
            if timer is not None:
                timer.cancel()
        self._metrics.accept_paused.set(0)
        self._reserve.drop()
        before, self.is_short = self._taken, False
        most = backlog(self._listener)[0] if self._shared else math.inf
        while self._taken - before < most and self._accept_one():
            pass
        return self._taken - before, 0 if self._shared else backlog(self._listener)[0]

    def close(self) -> None:
        """Close the listener; whoever is left in its queue is reset, unless it is shared."""
        self._listener.close()

    def _on_readable(self) -> None:
        for number in range(self._batch):
            if number and self._connection_limit.is_reached():
                return  # whether anybody else waits is for the next turn to say
            if not self._accept_one():
                return

    def _accept_one(self) -> bool:
        """Accept one connection; False when there is no point in trying again in this turn."""
        permit = self._connection_limit.take(beyond=self._closing)
        if permit is None:
            self._wait_for_permit()
            return False
        try:
            sock, _ = self._listener.accept()
        except OSError as error:
            permit.release()
            # By number: Python's BlockingIOError is also EALREADY and EINPROGRESS, which do not say "empty".
            if error.errno in EMPTY:
                self._connection_limit.at_capacity = False
                return False
            return self._failed(error)
        self._unknown_in_a_row = self._failed_in_a_row = 0
        self._taken += 1
        try:
            self._take(sock, permit)
        except Exception as error:  # whatever it is, it costs this connection and no other
            sock.close()
            permit.release()
            log.error("connection lost at hand-over", error=repr(error))  # noqa: TRY400  # a line is enough
        return True

    def _wait_for_permit(self) -> None:
        self._loop.remove_reader(self._listener)
        self._connection_limit.when_free(self._permit_is_free)
        self._connection_limit.at_capacity = True
        self._evict_idle_for_waiting()

    def _evict_idle_for_waiting(self) -> None:
        waiting, _ = backlog(self._listener)
        self._evict_idle(max(waiting, 1))

    def _permit_is_free(self) -> None:
        if not self._closing and self._resume is None:
            self.start()

    def _failed(self, error: OSError) -> bool:
        kind = classify(error.errno)
        self._metrics.accept_errors.labels(kind.value, name(error)).inc()
        self._failed_in_a_row += 1
        if kind is ErrorClass.CONNECTION and self._failed_in_a_row < TRIES_BEFORE_PAUSE:
            return True
        if self._closing:
            self.is_short = kind is ErrorClass.SHORTAGE
            return False
        if kind is ErrorClass.UNKNOWN:
            self._unknown_in_a_row += 1
            if self._unknown_in_a_row >= TRIES_BEFORE_BROKEN:
                kind = ErrorClass.BROKEN
        if kind is ErrorClass.BROKEN:
            self._loop.remove_reader(self._listener)
            log.error("listener broken", errno=name(error), reason=os.strerror(error.errno or 0))
            self._broken(error)
        else:
            self._pause(error)
        return False

    def _pause(self, error: OSError) -> None:
        self._loop.remove_reader(self._listener)
        self._failed_in_a_row = 0
        self._reserve.drop()
        self._evict_idle_for_waiting()  # idle connections hold what is short, too
        self._metrics.accept_pauses.inc()
        self._metrics.accept_paused.set(1)
        self._pauses += 1
        if self._calm is not None:
            self._calm.cancel()
        if self._episode_since is None:
            self._episode_since = self._loop.time()
            log.warning(
                "accept paused",
                errno=name(error),
                reason=os.strerror(error.errno or 0),
                hint=HINTS.get(error.errno or 0, "see accept(2) for this error"),
                see=HELP,
                pause_seconds=PAUSE_SECONDS,
            )
        self._resume = self._loop.call_later(PAUSE_SECONDS, self._unpause)

    def _unpause(self) -> None:
        if not self._learn_limit():
            self._evict_idle_for_waiting()
            self._resume = self._loop.call_later(PAUSE_SECONDS, self._unpause)
            return
        self._resume = None
        self._metrics.accept_paused.set(0)
        self._calm = self._loop.call_later(CALM_SECONDS, self._calm_again)
        self.start()

    def _learn_limit(self) -> bool:
        """Hold no more connections than the open files allow now; False while there are not even enough for
        the rest of the service.

        Counting lists /dev/fd: milliseconds for ten thousand, twice a second at most and only in a shortage.
        """
        self._reserve.drop()  # listing needs a descriptor, too
        try:
            self._connection_limit.limit = min(self._limit, self._possible())
        except OSError:
            return False
        return self._reserve.refill()

    def _calm_again(self) -> None:
        """No pause for a while: the end of the shortage, unless the lower limit is what keeps it away."""
        if self._connection_limit.at_capacity:
            if self._learn_limit() and not self._connection_limit.is_reached():
                self._permit_is_free()
            self._calm = self._loop.call_later(CALM_SECONDS, self._calm_again)
            return
        self._connection_limit.limit, self._calm = self._limit, None
        since = self._episode_since if self._episode_since is not None else self._loop.time()
        log.info(
            "accept resumed",
            after_seconds=round(self._loop.time() - since - CALM_SECONDS, 1),
            pauses=self._pauses,
        )
        self._episode_since, self._pauses = None, 0
