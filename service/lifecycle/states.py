"""The life of a service as a table: its states, what moves it on, what probes are told in each. Pure.

Knows words alone. The README's diagram is drawn from here, and `Life` refuses a step that it does not hold.

Readiness asks "send me new clients?", liveness "would a restart help?". A service that drains is not ready
and well alive: whoever restarts it then takes the answers away from the clients that it is waiting for.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

EXIT_CLEAN, EXIT_DRAIN_DEADLINE, EXIT_CANNOT_START, EXIT_LISTENER_BROKEN = 0, 1, 2, 3
EXIT_FORCED = EXIT_DRAIN_DEADLINE  # in both cases somebody did not get an answer


class State(enum.Enum):
    """Where in its life a service is; the value is what /readyz says."""

    STARTING = "starting"
    SERVING = "serving"
    NOTICE = "notice"
    DRAINING = "draining"
    STOPPED = "stopped"


class Event(enum.Enum):
    """What moves a service from one state to the next; the value is its name in the diagram."""

    UP = "every part is up"
    CANNOT_START = "cannot start, exit 2"
    TERMINATE = "SIGTERM"
    INTERRUPT = "SIGINT"
    NOTICE_OVER = "--drain-notice is over"
    BROKEN = "listener broken"
    ENDED = "all answered, exit 0 (3 if the listener broke)"
    LATE = "--drain-timeout is over, exit 1"
    FORCE = "second signal, exit 1"


@dataclass(frozen=True, slots=True)
class Row:
    """What is so in one state. `watched`: whether a loop that does not turn means that it is dead."""

    ready: bool
    watched: bool
    meaning: str


STATES = {
    State.STARTING: Row(False, False, "work is calibrated, workers start; clients cannot connect yet"),
    State.SERVING: Row(True, True, "accepts and answers"),
    State.NOTICE: Row(False, False, "accepts and answers; each answer is the last on its connection"),
    State.DRAINING: Row(False, False, "takes who waits in the queue, then nobody; answers whom it has"),
    State.STOPPED: Row(False, False, "workers and ports are gone"),
}

TRANSITIONS = {
    (State.STARTING, Event.UP): State.SERVING,
    (State.STARTING, Event.CANNOT_START): State.STOPPED,
    (State.STARTING, Event.TERMINATE): State.STOPPED,
    (State.STARTING, Event.INTERRUPT): State.STOPPED,
    (State.STARTING, Event.FORCE): State.STOPPED,
    (State.SERVING, Event.TERMINATE): State.NOTICE,
    (State.SERVING, Event.INTERRUPT): State.DRAINING,
    (State.SERVING, Event.BROKEN): State.DRAINING,
    (State.NOTICE, Event.NOTICE_OVER): State.DRAINING,
    (State.NOTICE, Event.BROKEN): State.DRAINING,
    (State.NOTICE, Event.FORCE): State.STOPPED,
    (State.DRAINING, Event.ENDED): State.STOPPED,
    (State.DRAINING, Event.LATE): State.STOPPED,
    (State.DRAINING, Event.FORCE): State.STOPPED,
}


class Life:
    """The present state. Moved by the event loop's thread, read from any."""

    def __init__(self) -> None:
        self.state = State.STARTING

    def move(self, event: Event) -> None:
        """Go on to the next state.

        Raises:
            KeyError: the table has no such step.
        """
        self.state = TRANSITIONS[self.state, event]

    @property
    def ready(self) -> bool:
        """Whether new clients are welcome."""
        return STATES[self.state].ready

    @property
    def watched(self) -> bool:
        """Whether a loop that does not turn is a reason for a restart."""
        return STATES[self.state].watched
