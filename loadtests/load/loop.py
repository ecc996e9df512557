"""The loop that sends: fires each request when it is due, receives, and gives up.

Knows what is under way and when to give up; the schedule says what is due. Touches sockets through
`Connection` and `Readiness`. Never reschedules: after a stall everything that is due is sent at once, and its
latency counts from when it was due. The clocks are passed in.

One thread and one selector instead of asyncio: less CPU per request, and no layer between the readiness of a
socket and its timestamp.
"""

from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from typing import Final

from loadtests.load.attempt import Attempt, Owner
from loadtests.load.connection import Connection
from loadtests.load.effort import Effort
from loadtests.load.endpoint import Endpoint
from loadtests.load.facts import Progress
from loadtests.load.kept import Idle, KeptConnection
from loadtests.load.phase import Phase
from loadtests.load.readiness import Clocks, Readiness
from loadtests.load.sample import (
    ABORTED,
    CONNECT_ERROR,
    LOCAL_ERRORS,
    NOT_SENT,
    STOPPED,
    TIMEOUT,
    TOO_MANY_IN_FLIGHT,
    Sample,
    outcome_label,
)
from loadtests.load.schedule import Arrivals, ClosedClients, OpenSchedule, offsets_of

PROGRESS_SECONDS: Final = 0.2
PROGRESS_OUTCOMES: Final = 40  # labels per line of progress, which must fit into PIPE_BUF (pipe(7))

# With `Connection: close` a server sends its FIN right after the last byte. If it has not done so within a
# second, it ignores the header, however busy it is. Waiting until the time-out would hold a port for ten
# seconds, and keep a client of a closed loop from its next request.
LEFT_OPEN_SECONDS: Final = 1.0

# How long the FIN after an answer may go unseen while nothing else wakes the loop. That holds a port and a
# connection, and changes no figure.
ENDING_SECONDS: Final = 0.002

# If nothing listens, stop at once instead of counting thousands of refusals. A probe before the load would
# find out as well, but the server would count one connection more than the ledger. Twenty errors in a row, or
# nothing but errors for a second, are no hiccup of a server that is up; and once a single connection was
# established, refusals are a finding, and the run goes on.
HOPELESS_ERRORS: Final = 20
HOPELESS_SECONDS: Final = 1.0


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
        self.samples: list[Sample] = []
        self.stop = self.interrupted = False
        self._phase, self._endpoint, self._emit, self._clocks = phase, endpoint, emit, clocks
        self._idle = Idle()
        self._make: Callable[[Endpoint, Owner, float], Connection] = (
            partial(KeptConnection, self._idle) if phase.keep_alive else Connection
        )
        self._deadlines: deque[Attempt] = deque()  # in the order of their starts: all have the same time-out
        self._left_open: deque[tuple[float, Attempt]] = deque()  # until when, ascending
        self._ending: list[Attempt] = []  # of those, not looked at yet
        self.not_closed_by_server = 0
        self._open = self._fired = self._reused = self._connected = self._failed_connects = 0
        self._outcomes: Counter[tuple[str, int | None, str | None]] = Counter()
        self._ports: set[int] = set()
        self._half_ports_after: int | None = None
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
    def unreachable(self) -> bool:
        """Whether connections failed and none was ever established."""
        return not self._connected and self._failed_connects > 0

    def run(self) -> None:
        """Send, receive and give up until all is done and the duration is over, or until stopped."""
        now, sending = self.started, True
        while not (self.stop or (self._failed_connects and self._hopeless(now))):
            now = self._clocks.wall()
            if self._arrivals.next_due <= now or now >= self._end:
                self._fire_due(now)
            if self._ending:
                self._look_for_ends()
            self._expire(now)
            if sending and (now >= self._next_progress or self._arrivals.finished):
                self.effort.note(now, self._clocks.cpu())
                sending = not self._arrivals.finished
            if now >= self._end and not self._open and self._arrivals.finished:
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
        self._connected += 1

    def on_finished(self, sample: Sample) -> None:
        """Keep what happened to one request."""
        self.samples.append(sample)
        self._outcomes[sample.outcome, sample.status, sample.reason] += 1
        if sample.outcome == CONNECT_ERROR and sample.reason not in LOCAL_ERRORS:
            self._failed_connects += 1

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

    def on_closed(self, now: float, *, stood: bool) -> None:
        """Count one open socket less."""
        self._open -= 1
        self._arrivals.on_ended(now, stood=stood)

    def _fire_due(self, now: float) -> None:
        while (intended := self._arrivals.take(now)) is not None:
            if self._open >= self._phase.max_in_flight:
                self._skip(intended, TOO_MANY_IN_FLIGHT)
                continue
            connection = self._make(self._endpoint, self, intended)
            self._open += 1
            self._fired += 1
            self._deadlines.append(connection)
            connection.start(now)
            if connection.reused:
                self._reused += 1
            elif (port := connection.local_port) is not None:
                self._ports.add(port)
                if self._half_ports_after is None and port & 1 == self.late_port_parity:
                    self._half_ports_after = self._fired - self._reused
            now = self._clocks.wall()

    def _skip(self, intended: float, reason: str) -> None:
        self.on_finished(Sample(intended, None, None, None, None, NOT_SENT, None, reason))

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

    def _hopeless(self, now: float) -> bool:
        enough = 1 if now >= self.started + HOPELESS_SECONDS else HOPELESS_ERRORS
        return not self._connected and self._failed_connects >= enough

    def _next_wake(self, now: float) -> float:
        wakes = [self._arrivals.next_due, self._next_progress]
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
        for intended in self._arrivals.never_due():
            self._skip(intended, STOPPED)
        self._idle.close()
        self._emit(self._progress(now))
        self.readiness.close()

    def _progress(self, now: float) -> Progress:
        return Progress(
            elapsed_seconds=round(now - self.started, 3),
            duration_seconds=self._phase.duration_seconds,
            planned=self._arrivals.planned,
            fired=self._fired,
            connected=self._connected,
            in_flight=self._open,
            outcomes={outcome_label(*key): n for key, n in self._outcomes.most_common(PROGRESS_OUTCOMES)},
            ports=len(self._ports),
            half_ports_after=self._half_ports_after,
        )
