"""The life of a service as a table: its states, what changes them, what probes answer in each. Pure.

docs/operations.md draws it as a diagram, and `Life` refuses a transition that the table does not hold.

Readiness asks "send me new clients?", liveness "would a restart help?". A service that drains is not ready
and is alive: a restart would take the responses away from the clients that it waits for.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

EXIT_CLEAN, EXIT_DRAIN_DEADLINE, EXIT_CANNOT_START, EXIT_LISTENER_BROKEN = 0, 1, 2, 3
EXIT_FORCED = EXIT_DRAIN_DEADLINE  # in both cases some clients did not get a response


class State(enum.Enum):
    """Where in its life a service is; the value is what /readyz says."""

    STARTING = "starting"
    SERVING = "serving"
    LAME_DUCK = "notice"  # after the flag: --drain-notice
    DRAINING = "draining"
    STOPPED = "stopped"


class Event(enum.Enum):
    """What takes a service from one state to the next; the value is its label in the diagram."""

    UP = "every part is up"
    CANNOT_START = "cannot start, exit 2"
    TERMINATE = "SIGTERM"
    INTERRUPT = "SIGINT"
    LAME_DUCK_OVER = "--drain-notice is over"
    BROKEN = "listener broken"
    DRAINED = "all answered, exit 0 (3 if the listener broke)"
    DRAIN_DEADLINE = "--drain-timeout is over, exit 1"
    FORCE = "second signal, exit 1"


@dataclass(frozen=True, slots=True)
class Row:
    """What holds in one state.

    ready: whether new clients are welcome.
    watched: whether a loop that does not turn is a reason for a restart.
    meaning: what the service does, for the diagram's table.
    """

    ready: bool
    watched: bool
    meaning: str


STATES = {
    State.STARTING: Row(False, False, "calibrates the work, starts workers; clients cannot connect yet"),
    State.SERVING: Row(True, True, "accepts and answers"),
    State.LAME_DUCK: Row(False, False, "accepts and answers; each response closes its connection"),
    State.DRAINING: Row(
        False, False, "accepts what waits in the accept queue and nothing after it; finishes running requests"
    ),
    State.STOPPED: Row(False, False, "workers and ports are gone"),
}

TRANSITIONS = {
    (State.STARTING, Event.UP): State.SERVING,
    (State.STARTING, Event.CANNOT_START): State.STOPPED,
    (State.STARTING, Event.TERMINATE): State.STOPPED,
    (State.STARTING, Event.INTERRUPT): State.STOPPED,
    (State.STARTING, Event.FORCE): State.STOPPED,
    (State.SERVING, Event.TERMINATE): State.LAME_DUCK,
    (State.SERVING, Event.INTERRUPT): State.DRAINING,
    (State.SERVING, Event.BROKEN): State.DRAINING,
    (State.LAME_DUCK, Event.LAME_DUCK_OVER): State.DRAINING,
    (State.LAME_DUCK, Event.BROKEN): State.DRAINING,
    (State.LAME_DUCK, Event.FORCE): State.STOPPED,
    (State.DRAINING, Event.DRAINED): State.STOPPED,
    (State.DRAINING, Event.DRAIN_DEADLINE): State.STOPPED,
    (State.DRAINING, Event.FORCE): State.STOPPED,
}


class Life:
    """The present state. Changed by the event loop's thread, read from any."""

    def __init__(self) -> None:
        self.state = State.STARTING

    def move(self, event: Event) -> None:
        """Go to the state that `event` leads to.

        Raises:
            KeyError: the table has no such transition.
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
