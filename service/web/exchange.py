"""The life of a connection between accept and close, one exchange (request and response) after another. Pure.

Knows states, events and what follows from each pair: the next state, what has to be done, and why the
connection then ends. Knows no socket, no clock and no HTTP: protocol.py sees the events and carries the
actions out, deadlines.py keeps the time of each state. The diagram in docs/design.md is drawn from here.

Every pair has an answer. A pair that `MOVES` does not hold changes nothing: an eviction, for instance, ends
no connection whose handler works.
"""

from __future__ import annotations

import enum
from typing import Final, NamedTuple

from metrics.instruments import ConnectionEnd
from service.web.deadlines import Stage

# StrEnum, because a plain Enum hashes by a Python function: 0.1 us for each lookup of a request.


class State(enum.StrEnum):
    """Where a connection is; the value is its name in the diagram."""

    FRESH = "fresh"
    HEAD = "head"
    BODY = "body"
    HANDLER = "handler"
    READING = "reading"
    FILE = "file"
    LAST = "last"
    IDLE = "idle"
    ARRIVING = "arriving"
    LEAVING = "leaving"
    FLUSHING = "flushing"
    GONE = "gone"


class Event(enum.StrEnum):
    """What happens to a connection; the value is its name in the diagram."""

    BYTES = "bytes of a request"
    REQUEST = "whole head, no more body to come"
    REQUEST_WITH_BODY = "whole head, body to come"
    BODY_END = "end of the body"
    BUFFER_FULL = "write buffer full"
    BUFFER_LOW = "write buffer low"
    BUFFER_LOW_IN_BODY = "write buffer low, body to come"
    FILE = "a file is sent"
    ANSWERED = "answered"
    ANSWERED_PIPELINED = "answered, next request has begun"
    ANSWERED_LAST = "answered for the last time"
    SERVED = "server loop over"
    HEAD_TOO_LONG = "head too long"
    EVICT = "evict"
    DRAIN = "drain"
    ABANDON = "drain deadline"
    LATE = "deadline passed"
    UNREAD = "deadline passed, bytes unread"
    ALL_READ = "deadline passed, all was read"
    LOST = "connection lost"


class Action(enum.Enum):
    """What the protocol has to do."""

    NOTHING = enum.auto()
    CLOSE = enum.auto()  # after everything that was written has been sent
    ABORT = enum.auto()  # at once
    RESET = enum.auto()  # at once, and what the client has not read is thrown away
    RESET_FILE = enum.auto()  # the same, while the kernel may be sending a file
    ANSWER_408 = enum.auto()  # and close
    ANSWER_431 = enum.auto()  # and close
    ANSWER_503 = enum.auto()  # and close; abort if an answer has begun
    FAIL_BODY = enum.auto()  # the handler that reads it gets an exception


class Step(NamedTuple):
    """What follows from an event: the next state, the action, and why the connection ends, if it does."""

    state: State
    action: Action = Action.NOTHING
    reason: ConnectionEnd | None = None


class Row(NamedTuple):
    """One state: its deadline, its meaning, and whether the client has more to expect than a close."""

    stage: Stage | None
    meaning: str
    has_pending_response: bool = True


STATES: Final[dict[State, Row]] = {
    State.FRESH: Row(Stage.HEAD, "connected, not a byte has come"),
    State.HEAD: Row(Stage.HEAD, "part of a head is here"),
    State.BODY: Row(Stage.BODY, "the handler works, part of the body is still to come"),
    State.HANDLER: Row(None, "the handler works, the client has nothing to do"),
    State.READING: Row(Stage.WRITE, "the write buffer is full: the client has to read"),
    State.FILE: Row(Stage.WRITE, "the kernel sends a file: the client has to read"),
    State.LAST: Row(None, "the last answer is written, an unread body is read for a moment"),
    State.IDLE: Row(Stage.IDLE, "between two requests"),
    State.ARRIVING: Row(Stage.ARRIVE, "draining, and a request may be on its way"),
    State.LEAVING: Row(Stage.LEAVE, "closed by us, the client has to close", has_pending_response=False),
    State.FLUSHING: Row(Stage.WRITE, "closed by us, the client has to read the rest"),
    State.GONE: Row(None, "closed or aborted", has_pending_response=False),
}

_AT_WORK: Final = (State.BODY, State.HANDLER, State.READING, State.FILE)
"""A handler has the request."""
_BEFORE: Final = (State.FRESH, State.HEAD, State.IDLE, State.ARRIVING)
"""No handler has one yet."""
_OPEN: Final = (*_BEFORE, *_AT_WORK, State.LAST)
"""Not closed by us."""


def _from(states: tuple[State, ...], event: Event, step: Step) -> dict[tuple[State, Event], Step]:
    return {(state, event): step for state in states}


_CLOSE: Final = Step(State.LEAVING, Action.CLOSE)
_RESET: Final = Step(State.GONE, Action.RESET, ConnectionEnd.DEADLINE)
_ABANDON: Final = Step(State.GONE, Action.ABORT, ConnectionEnd.ABANDONED)

MOVES: Final[dict[tuple[State, Event], Step]] = {
    # A request comes. Its deadline runs on from accept; on an idle connection it begins with the first byte.
    (State.FRESH, Event.BYTES): Step(State.HEAD),
    (State.IDLE, Event.BYTES): Step(State.HEAD),
    **_from(_BEFORE, Event.REQUEST, Step(State.HANDLER)),
    **_from(_BEFORE, Event.REQUEST_WITH_BODY, Step(State.BODY)),
    (State.BODY, Event.BODY_END): Step(State.HANDLER),
    # A head that does not end is no request; behind one that a handler has, it waits for the answer.
    **_from(_BEFORE, Event.HEAD_TOO_LONG, Step(State.LEAVING, Action.ANSWER_431)),
    # It is answered. What has no handler is answered too: garbage with 400.
    **_from((*_BEFORE, *_AT_WORK), Event.BUFFER_FULL, Step(State.READING)),
    (State.READING, Event.BUFFER_LOW): Step(State.HANDLER),
    (State.READING, Event.BUFFER_LOW_IN_BODY): Step(State.BODY),
    # While the kernel sends a file, the write buffer is empty and says nothing about the client.
    **_from((*_BEFORE, *_AT_WORK), Event.FILE, Step(State.FILE)),
    (State.FILE, Event.BUFFER_FULL): Step(State.FILE),
    **_from((*_BEFORE, *_AT_WORK), Event.ANSWERED, Step(State.IDLE)),
    **_from((*_BEFORE, *_AT_WORK), Event.ANSWERED_PIPELINED, Step(State.HEAD)),
    **_from((*_BEFORE, *_AT_WORK), Event.ANSWERED_LAST, Step(State.LAST)),
    **_from(_OPEN, Event.SERVED, Step(State.LEAVING)),
    # We end it. A connection without a request ends at once, one whose request may be on its way gets a
    # moment, and one with a handler at work ends after its answer: the protocol then says ANSWERED_LAST.
    (State.IDLE, Event.EVICT): Step(State.LEAVING, Action.CLOSE, ConnectionEnd.EVICTED),
    # Of the rest, those may be evicted whose client sends slowly.
    (State.FRESH, Event.EVICT): Step(State.LEAVING, Action.ANSWER_408, ConnectionEnd.EVICTED),
    (State.HEAD, Event.EVICT): Step(State.LEAVING, Action.ANSWER_408, ConnectionEnd.EVICTED),
    (State.BODY, Event.EVICT): Step(State.HANDLER, Action.FAIL_BODY, ConnectionEnd.EVICTED),
    (State.FRESH, Event.DRAIN): Step(State.ARRIVING),
    (State.HEAD, Event.DRAIN): Step(State.ARRIVING),
    (State.IDLE, Event.DRAIN): _CLOSE,
    (State.LAST, Event.DRAIN): _CLOSE,
    # The drain's own deadline; the second time it waits for no client. A client that has only to close has
    # had its answer: its connection is not counted as abandoned.
    **_from((*_BEFORE, State.READING, State.LAST, State.FLUSHING), Event.ABANDON, _ABANDON),
    (State.FILE, Event.ABANDON): Step(State.GONE, Action.RESET_FILE, ConnectionEnd.ABANDONED),
    (State.GONE, Event.ABANDON): Step(State.GONE, Action.ABORT),
    (State.BODY, Event.ABANDON): Step(State.LEAVING, Action.ANSWER_503, ConnectionEnd.ABANDONED),
    (State.HANDLER, Event.ABANDON): Step(State.LEAVING, Action.ANSWER_503, ConnectionEnd.ABANDONED),
    (State.LEAVING, Event.ABANDON): Step(State.GONE, Action.ABORT),
    # The client is late.
    (State.FRESH, Event.LATE): Step(State.LEAVING, Action.ANSWER_408, ConnectionEnd.DEADLINE),
    (State.HEAD, Event.LATE): Step(State.LEAVING, Action.ANSWER_408, ConnectionEnd.DEADLINE),
    (State.BODY, Event.LATE): Step(State.HANDLER, Action.FAIL_BODY),
    (State.READING, Event.LATE): _RESET,
    (State.FILE, Event.LATE): Step(State.GONE, Action.RESET_FILE, ConnectionEnd.DEADLINE),
    (State.FLUSHING, Event.LATE): _RESET,
    (State.IDLE, Event.LATE): Step(State.LEAVING, Action.CLOSE, ConnectionEnd.DEADLINE),
    (State.ARRIVING, Event.LATE): _CLOSE,
    (State.LEAVING, Event.LATE): Step(State.GONE, Action.ABORT),
    (State.LEAVING, Event.UNREAD): Step(State.FLUSHING),
    (State.FLUSHING, Event.ALL_READ): Step(State.GONE, Action.ABORT),
    **_from(tuple(State), Event.LOST, Step(State.GONE)),
}

TABLE: Final[dict[State, dict[Event, Step]]] = {
    state: {event: MOVES.get((state, event), Step(state)) for event in Event} for state in State
}
"""Every pair, so that a step is two lookups and cannot fail."""

TIMED: Final[dict[State, Stage | None]] = {state: row.stage for state, row in STATES.items()}
BETWEEN_REQUESTS: Final = frozenset({State.FRESH, State.IDLE, State.ARRIVING})
PENDING: Final = frozenset(state for state, row in STATES.items() if row.has_pending_response)
