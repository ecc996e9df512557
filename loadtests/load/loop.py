"""The loop that sends: fires each request when it is due, receives, and gives up.

Knows what is under way and when to give up; the schedule says what is due. Touches sockets through
`Connection` and `Readiness`. Never reschedules: after a stall everything that is due is sent at once, and its
latency counts from when it was due. Retries wait for what is due by the schedule, never the other way round.
Without retries none of their calls is made: this is the hot path. The clocks are passed in.

One thread and one selector instead of asyncio: less CPU per request, and no layer between the readiness of a
socket and its timestamp.
"""

import math
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final

from loadtests.load.answer import Answer
from loadtests.load.attempt import Attempt, Owner
from loadtests.load.connection import Connection
from loadtests.load.effort import Effort
from loadtests.load.endpoint import Endpoint
from loadtests.load.facts import Progress
from loadtests.load.kept import Idle, KeptConnection
from loadtests.load.phase import Phase
from loadtests.load.readiness import Clocks, Readiness
from loadtests.load.retrying import Retries
from loadtests.load.sample import ABORTED, NOT_SENT, STOPPED, TIMEOUT, TOO_MANY_IN_FLIGHT, Sample
from loadtests.load.schedule import Arrivals, ClosedClients, OpenSchedule, offsets_of
from loadtests.load.tally import Tally

PROGRESS_SECONDS: Final = 0.2

# With `Connection: close` a server sends its FIN right after the last byte. If it has not done so within a
# second, it ignores the header, however busy it is. Waiting until the time-out would hold a port for ten
# seconds, and keep a client of a closed loop from its next request.
LEFT_OPEN_SECONDS: Final = 1.0

# How long the FIN after an answer may go unseen while nothing else wakes the loop. That holds a port and a
# connection, and changes no figure.
ENDING_SECONDS: Final = 0.002


class LoadLoop:
    """The loop of one phase. `stop` may be set at any time, also from a signal handler."""

    def __init__(
        self,
        phase: Phase,
        endpoint: Endpoint,
        emit: Callable[[Progress], bool],
        clocks: Clocks,
        late_port_parity: int | None = None,
    ) -> None:
        self.stop = self.interrupted = False
        self._phase, self._endpoint, self._emit, self._clocks = phase, endpoint, emit, clocks
        self._idle = Idle()
        self._make: Callable[[Endpoint, Owner, float, int, int], Connection] = (
            partial(KeptConnection, self._idle) if phase.keep_alive else Connection
        )
        self._deadlines: deque[Attempt] = deque()  # in the order of their starts: all have the same time-out
        self._left_open: deque[tuple[float, Attempt]] = deque()  # until when, ascending
        self._ending: list[Attempt] = []  # of those, not looked at yet
        self.not_closed_by_server = 0
        self._open = 0
        self._requests = 0  # that came due
        self._tally = Tally(late_port_parity)
        self._retrying = phase.retries_at_most > 0
        self._retries = Retries(phase.retry, phase.retries, phase.seed)
        self.late_port_parity = late_port_parity
        offsets = offsets_of(phase)
        self.readiness = Readiness(clocks)
        self.started = self._next_progress = clocks.wall()
        self.effort = Effort(self.started, clocks.cpu())
        self._end = self.started + phase.duration_seconds
        self._arrivals: Arrivals = (
            OpenSchedule(offsets, self.started)
            if phase.clients is None
            else ClosedClients(phase.clients, self._end)
        )

    @property
    def samples(self) -> list[Sample]:
        """All attempts, in the order in which it was known what follows them."""
        return self._tally.samples

    @property
    def unreachable(self) -> bool:
        """Whether connections failed and none was ever established."""
        return not self._tally.connected and self._tally.failed_connects > 0

    def run(self) -> None:
        """Send, receive and give up until all is done and the duration is over, or until stopped."""
        now, sending = self.started, True
        while not (self.stop or (self._tally.failed_connects and self._tally.hopeless(now - self.started))):
            now = self._clocks.wall()
            again = self._retrying and self._next_retry <= now
            if again or self._arrivals.next_due <= now or now >= self._end:
                self._fire_due(now)
            if self._ending:
                self._look_for_ends()
            self._expire(now)
            if sending and (now >= self._next_progress or self._arrivals.finished):
                self.effort.note(now, self._clocks.cpu())
                sending = not self._arrivals.finished
            if now >= self._end and not (self._open or self._retries) and self._arrivals.finished:
                break
            if now >= self._next_progress:
                self._next_progress = now + PROGRESS_SECONDS
                # Not `stop |= ...`: that reads the flag before the call, and would undo a SIGTERM that
                # arrives during the call.
                if not self._emit(self._progress(now)):
                    self.stop = True
            self._handle_ready(self._next_wake(now))
        else:
            self.interrupted = self.stop
        self._wind_up(self._clocks.wall())

    def now(self) -> float:
        """The time."""
        return self._clocks.wall()

    def on_connected(self) -> None:
        """Count an established connection."""
        self._tally.connected += 1

    def on_finished(self, sample: Sample, answer: Answer) -> bool:
        """Keep what happened to an attempt, or hand it to the retries if another one is to follow."""
        if sample.connected is None:
            self._tally.not_connected(sample)
        again = self._retrying and self._retries.accept(sample, answer)
        if not again:
            self._tally.keep(sample)
        return again

    def on_left_open(self, connection: Attempt, now: float) -> None:
        """Give the server a while to close a connection after its answer.

        Its FIN usually follows the answer at once: an open load looks for it when something else wakes the
        loop. A closed client waits for nothing but the FIN.
        """
        self._left_open.append((now + LEFT_OPEN_SECONDS, connection))
        if self._phase.clients is None:
            self._ending.append(connection)
        else:
            connection.step(now)

    def on_closed(self, now: float, *, stood: bool, last: bool) -> None:
        """Count one open socket less; a client of a closed loop goes on when its request has ended."""
        self._open -= 1
        if last:
            self._arrivals.on_ended(now, stood=stood)

    @property
    def _next_retry(self) -> float:
        """When there is something to send again; inf while there is no room for it."""
        return self._retries.next_due if self._open < self._phase.max_in_flight else math.inf

    def _fire_due(self, begun: float) -> None:
        """Send what was due when this call began; what comes due meanwhile waits for the next.

        An attempt that fails in `start` may be due again at once. Were that sent here as well, this might
        never end, and nobody would look at `stop`, at time-outs, or whether anyone listens.
        """
        now = begun
        while (intended := self._arrivals.take(now)) is not None:
            self._requests += 1
            if self._open >= self._phase.max_in_flight:
                self._skip(intended, TOO_MANY_IN_FLIGHT)
            else:
                if self._retrying:
                    self._retries.on_request()
                self._send(now, intended, self._requests, 1)
                now = self._clocks.wall()
            if self._arrivals.next_due > begun:
                break
        if self._retrying:
            self._send_again(begun)

    def _send_again(self, begun: float) -> None:
        """Send the retries that were due then, until something is due by the schedule."""
        while self._next_retry <= begun and (now := self._clocks.wall()) < self._arrivals.next_due:
            failed = self._retries.take(begun)
            assert failed is not None
            self._tally.keep(failed._replace(last=False))
            self._send(now, failed.intended, failed.request, failed.attempt + 1)

    def _send(self, now: float, intended: float, request: int, attempt: int) -> None:
        connection = self._make(self._endpoint, self, intended, request, attempt)
        self._open += 1
        self._deadlines.append(connection)
        connection.start(now)
        self._tally.sent(connection, attempt)

    def _skip(self, intended: float, reason: str) -> None:
        skipped = Sample(intended, None, None, None, None, NOT_SENT, None, reason, request=self._requests)
        self._tally.keep(skipped)

    def _look_for_ends(self) -> None:
        ending, self._ending = self._ending, []
        for connection in ending:
            connection.step(self._clocks.wall())

    def _expire(self, now: float) -> None:
        waiting, left_open = self._deadlines, self._left_open
        while waiting and (waiting[0].finished or waiting[0].started + self._phase.timeout_seconds <= now):
            connection = waiting.popleft()
            if not connection.finished:
                connection.give_up(TIMEOUT, now)
        while left_open and (left_open[0][1].closed or left_open[0][0] <= now):
            connection = left_open.popleft()[1]
            if not connection.closed:
                self.not_closed_by_server += 1
                connection.close(now)

    def _next_wake(self, now: float) -> float:
        wakes = [self._arrivals.next_due, self._next_progress]
        if self._retrying:
            wakes.append(self._next_retry)
        if self._deadlines:
            wakes.append(self._deadlines[0].started + self._phase.timeout_seconds)
        if self._left_open:
            wakes.append(self._left_open[0][0])
        if now < self._end:
            wakes.append(self._end)
        if self._ending:
            wakes.append(now + ENDING_SECONDS)
        return min(wakes)

    def _handle_ready(self, until: float) -> None:
        for connection in self.readiness.wait(until):
            now = self._clocks.wall()
            if self._arrivals.next_due <= now:  # a send does not wait for a batch of answers
                self._fire_due(now)
                now = self._clocks.wall()
            connection.step(now)

    def _wind_up(self, now: float) -> None:
        if not self._arrivals.finished:
            self.effort.note(now, self._clocks.cpu())
        for connection in (*self._deadlines, *(connection for _, connection in self._left_open)):
            if not connection.closed:
                connection.give_up(ABORTED, now)
        for sample in self._retries.rest():
            self._tally.keep(sample)
        for intended in self._arrivals.never_due():
            self._requests += 1
            self._skip(intended, STOPPED)
        self._idle.close()
        self._emit(self._progress(now))
        self.readiness.close()

    def _progress(self, now: float) -> Progress:
        duration, planned = self._phase.duration_seconds, self._arrivals.planned
        return self._tally.progress(now - self.started, duration, planned, self._open)
