"""The accept loop: takes connections from the kernel's accept queue, as many as there are permits for.

Knows the listening socket, its registration with the event loop, permits, and failures in a row. What one
failed accept means is in accept_errors.py, what follows from a shortage in shortage.py. Callbacks decide what
becomes of a connection.

Why a loop of our own: `loop.create_server` hides what matters here. Under uvloop, when descriptors run out,
libuv silently accepts and closes the whole queue, and one exception in the protocol factory stops the
listener for good; asyncio retries every second but logs hundreds of times. Neither can limit connections
before it accepts them, and neither tells how many it accepted in one turn, which decides whether "accepted"
tracks "completed".

The shape is that of the async-std book, "Production-Ready Accept Loop": an error of one connection is
skipped, a shortage pauses the loop, and neither ends it. Added here: a permit is acquired before a connection
is accepted, so that a full service leaves clients in the accept queue instead of running into the shortage;
the last few descriptors are never spent on connections; and a shortage of descriptors teaches the limit.
"""

from __future__ import annotations

import asyncio
import math
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog

from metrics.instruments import Metrics
from service.net.accept_errors import EMPTY, ErrorClass, classify, errno_name
from service.net.connection_limit import ConnectionLimit, Permit
from service.net.refusing import Refusing
from service.net.shortage import Shortage
from service.net.tcp import backlog

log = structlog.get_logger("offloop.accept")

TRIES_BEFORE_BROKEN = 10
"""An unknown errno counts as a shortage until it has come this often without one success in between."""

LOOK_SECONDS = 0.002
"""Between two looks while requests are refused: at 3,000 connections a second six are taken at once. It is as
short as a turn of the loop under load, to those that are admitted. uvloop counts in whole milliseconds."""

LOOKS_IN_VAIN = 25
"""After so many looks in a row that have found nobody, 50 ms, the loop waits to be woken again, as a network
driver does (napi_defer_hard_irqs). To look on for the second after the last refusal costs 3 % of a core."""

TRIES_BEFORE_PAUSE = 1000
"""This many failed connections without one success in between are no bad luck: try again after a pause."""


@dataclass(frozen=True, slots=True)
class Callbacks:
    """What the accept loop calls.

    Attributes:
        hand_over: with each accepted socket and its permit, which it owns from then on, and the host of its
            peer; empty if that has no address.
        make_room: with the number of clients that wait while there is no permit or descriptor for them: as
            many connections should close, idle ones first.
        broken: once, with the error, when the listener is unusable.
    """

    hand_over: Callable[[socket.socket, Permit, str], Any]
    make_room: Callable[[int], Any]
    broken: Callable[[OSError], Any]


class AcceptLoop:
    """Accepts whenever the listener is readable, at most `batch` connections per turn of the event loop.

    It does not watch the listener during a pause, nor while no permit is free: clients then wait in the
    kernel's accept queue, which is there for that. While requests are refused it looks by the clock instead,
    for as long as somebody comes.

    Args:
        listener: a listening, non-blocking socket; owned by the caller until `close()`.
        batch: most connections accepted per turn. A small batch leaves the queue in the kernel, a large one
            moves it into the process.
        limit: gives the permits: one is acquired before each accept and travels with the socket.
        shortage: pauses this loop.
        refusing: tells when to look for connections by the clock.
        callbacks: receive connections and news.
        metrics: counts accept errors.
    """

    def __init__(
        self,
        listener: socket.socket,
        batch: int,
        limit: ConnectionLimit,
        shortage: Shortage,
        refusing: Refusing,
        callbacks: Callbacks,
        metrics: Metrics,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        self._batch = batch
        self._limit = limit
        self._shortage = shortage
        self._refusing = refusing
        self._hand_over = callbacks.hand_over
        self._make_room = callbacks.make_room
        self._broken = callbacks.broken
        self._metrics = metrics
        self._unknown_in_a_row = 0
        self._failed_in_a_row = 0
        self._accepted = self._before_turn = 0
        self._in_vain = 0  # looks in a row that have found nobody
        self._is_closing = False
        self._is_stopped = True
        self._next_look: asyncio.TimerHandle | None = None
        self.is_short = False
        """Whether a shortage has ended the last `empty_queue()`: then another may accept more."""

    def start(self) -> None:
        """Begin to accept, or go on."""
        self._is_stopped = False
        try:
            self._loop.add_reader(self._listener, self._accept_batch)
        except OSError as error:  # epoll needs memory, too
            self._pause(error)

    def empty_queue(self, *, shared: bool = False) -> tuple[int, int]:
        """Accept what is left in the accept queue, over the limit too; `close()` comes next.

        Closing first would reset every connection that the kernel has already accepted for us. The limit
        protects a service that goes on; one that stops had better answer the clients it has.

        Args:
            shared: other processes hold the listener, too, and may go on with it. Its queue fills again at
                once and belongs to them; what waits now is accepted all the same, for perhaps none goes on.

        Returns:
            Connections accepted, and connections left behind; see `is_short`.
        """
        self._is_closing = True
        self._stop()
        self._shortage.stop()
        before, self.is_short = self._accepted, False
        most = backlog(self._listener)[0] if shared else math.inf
        while self._accepted - before < most and self._accept_one():
            pass
        return self._accepted - before, 0 if shared else backlog(self._listener)[0]

    def close(self) -> None:
        """Close the listener; unless it is shared, the kernel resets what is left in its queue."""
        self._listener.close()

    def _accept_batch(self) -> None:
        self._before_turn = self._accepted
        # To ask how many wait costs 1 us, to find out by an accept that fails 8. 0: the kernel does not tell.
        waiting, _ = backlog(self._listener)
        count = min(waiting or self._batch, self._batch)
        for number in range(count):
            if number and self._limit.is_reached():
                return  # the next turn tells whether another client waits
            if not self._accept_one():
                return
        if count == waiting:
            self._is_empty()

    def _is_empty(self) -> None:
        """All who waited are taken. While requests are refused others come soon, to be taken together."""
        self._limit.at_capacity = False
        self._in_vain = 0 if self._accepted > self._before_turn else self._in_vain + 1
        come_soon = self._refusing.now and self._in_vain <= LOOKS_IN_VAIN
        if come_soon and not self._is_closing and self._next_look is None:
            self._loop.remove_reader(self._listener)
            self._next_look = self._loop.call_later(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        self._next_look = None
        try:
            self._accept_batch()
        finally:  # whatever is raised there costs a turn, as it does with a reader
            if self._watches():
                self.start()

    def _watches(self) -> bool:
        return self._next_look is None and not self._is_stopped

    def _stop(self) -> None:
        """Accept nothing until `start()`."""
        self._is_stopped = True
        self._loop.remove_reader(self._listener)
        if self._next_look is not None:
            self._next_look.cancel()
            self._next_look = None

    def _accept_one(self) -> bool:
        """Accept one connection; False when there is no point in trying again in this turn."""
        permit = self._limit.acquire(over_limit=self._is_closing)
        if permit is None:
            self._wait_for_permit()
            return False
        try:
            sock, peer = self._listener.accept()
        except OSError as error:
            permit.release()
            # By number: Python's BlockingIOError is also EALREADY and EINPROGRESS, which do not mean "empty".
            if error.errno in EMPTY:
                self._is_empty()
                return False
            return self._failed(error)
        self._unknown_in_a_row = self._failed_in_a_row = 0
        self._accepted += 1
        try:
            self._hand_over(sock, permit, peer[0] if peer else "")
        except Exception as error:  # whatever it is, it costs this connection and no other
            sock.close()
            permit.release()
            log.error("connection lost at hand-over", error=repr(error))  # noqa: TRY400  # a line is enough
        return True

    def _wait_for_permit(self) -> None:
        self._stop()
        self._limit.call_when_free(self._permit_is_free)
        self._limit.at_capacity = True
        self._make_room_for_waiting()

    def _permit_is_free(self) -> None:
        if not self._is_closing and not self._shortage.is_pausing:
            self.start()

    def _make_room_for_waiting(self) -> None:
        waiting, _ = backlog(self._listener)
        self._make_room(max(waiting, 1))

    def _failed(self, error: OSError) -> bool:
        """Skip one connection and return True, or pause or stop and return False."""
        kind = classify(error.errno)
        self._metrics.accept_errors.labels(kind.value, errno_name(error)).inc()
        self._failed_in_a_row += 1
        if kind is ErrorClass.CONNECTION and self._failed_in_a_row < TRIES_BEFORE_PAUSE:
            return True
        if self._is_closing:
            self.is_short = kind is ErrorClass.SHORTAGE
            return False
        if kind is ErrorClass.UNKNOWN:
            self._unknown_in_a_row += 1
            if self._unknown_in_a_row >= TRIES_BEFORE_BROKEN:
                kind = ErrorClass.BROKEN
        if kind is ErrorClass.BROKEN:
            self._stop()
            log.error("listener broken", errno=errno_name(error), reason=os.strerror(error.errno or 0))
            self._broken(error)
        else:
            self._pause(error)
        return False

    def _pause(self, error: OSError) -> None:
        self._stop()
        self._failed_in_a_row = 0
        self._shortage.pause(error, make_room=self._make_room_for_waiting, resume=self.start)
