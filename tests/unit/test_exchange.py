"""The life of a connection as a table: every state with every event, written down a second time."""

from __future__ import annotations

import pytest

from metrics.instruments import ConnectionEnd
from service.web.deadlines import Stage
from service.web.exchange import PENDING, STATES, TABLE, TIMED, Action, Event, State
from service.web.pipeline import END_OF_HEAD, LONGEST_HEAD, MOST_BYTES, Pipeline

# A column for each state, a row for each event; a cell is the next state, a dot is the same.
GRID = """
                  fresh  head  body  handler  reading  file  last  idle  arriving  leaving  flushing  gone
BYTES             head   .     .     .        .        .     .     head  .         .        .         .
REQUEST           hand   hand  .     .        .        .     .     hand  hand      .        .         .
REQUEST_WITH_BODY body   body  .     .        .        .     .     body  body      .        .         .
BODY_END          .      .     hand  .        .        .     .     .     .         .        .         .
BUFFER_FULL       read   read  read  read     .        .     .     read  read      .        .         .
BUFFER_LOW        .      .     .     .        hand     .     .     .     .         .        .         .
BUFFER_LOW_IN_BODY .     .     .     .        body     .     .     .     .         .        .         .
FILE              file   file  file  file     file     .     .     file  file      .        .         .
ANSWERED          idle   idle  idle  idle     idle     idle  .     .     idle      .        .         .
ANSWERED_PIPELINED head  .     head  head     head     head  .     head  head      .        .         .
ANSWERED_LAST     last   last  last  last     last     last  .     last  last      .        .         .
SERVED            leav   leav  leav  leav     leav     leav  leav  leav  leav      .        .         .
HEAD_TOO_LONG     leav   leav  .     .        .        .     .     leav  leav      .        .         .
EVICT             leav   leav  hand  .        .        .     .     leav  .         .        .         .
DRAIN             arri   arri  .     .        .        .     leav  leav  .         .        .         .
ABANDON           gone   gone  leav  leav     gone     gone  gone  gone  gone      gone     gone      .
LATE              leav   leav  hand  .        gone     gone  .     leav  leav      gone     gone      .
UNREAD            .      .     .     .        .        .     .     .     .         flus     .         .
ALL_READ          .      .     .     .        .        .     .     .     .         .        gone      .
LOST              gone   gone  gone  gone     gone     gone  gone  gone  gone      gone     gone      .
"""

# What is done, and why the connection ends: everything that is not here does nothing.
A, E = Action, ConnectionEnd
DONE = {
    **{(state, "HEAD_TOO_LONG"): (A.ANSWER_431, None) for state in ("fresh", "head", "idle", "arriving")},
    ("fresh", "EVICT"): (A.ANSWER_408, E.EVICTED),
    ("head", "EVICT"): (A.ANSWER_408, E.EVICTED),
    ("body", "EVICT"): (A.FAIL_BODY, E.EVICTED),
    ("idle", "EVICT"): (A.CLOSE, E.EVICTED),
    ("idle", "DRAIN"): (A.CLOSE, None),
    ("last", "DRAIN"): (A.CLOSE, None),
    ("fresh", "LATE"): (A.ANSWER_408, E.DEADLINE),
    ("head", "LATE"): (A.ANSWER_408, E.DEADLINE),
    ("body", "LATE"): (A.FAIL_BODY, None),
    ("reading", "LATE"): (A.RESET, E.DEADLINE),
    ("file", "LATE"): (A.RESET_FILE, E.DEADLINE),
    ("idle", "LATE"): (A.CLOSE, E.DEADLINE),
    ("arriving", "LATE"): (A.CLOSE, None),
    ("leaving", "LATE"): (A.ABORT, None),
    ("flushing", "LATE"): (A.RESET, E.DEADLINE),
    ("flushing", "ALL_READ"): (A.ABORT, None),
    ("body", "ABANDON"): (A.ANSWER_503, E.ABANDONED),
    ("handler", "ABANDON"): (A.ANSWER_503, E.ABANDONED),
    ("leaving", "ABANDON"): (A.ABORT, None),
    ("gone", "ABANDON"): (A.ABORT, None),
    ("file", "ABANDON"): (A.RESET_FILE, E.ABANDONED),
    **{
        (state, "ABANDON"): (A.ABORT, E.ABANDONED)
        for state in ("fresh", "head", "reading", "last", "idle", "arriving", "flushing")
    },
}


def cells() -> dict[tuple[str, str], str]:
    """(state, event): the next state, from the grid."""
    columns, *rows = [line.split() for line in GRID.strip().splitlines()]
    states = {state[:4]: state for state in columns}
    return {
        (state, row[0]): state if cell == "." else states[cell]
        for row in rows
        for state, cell in zip(columns, row[1:], strict=True)
    }


def test_every_state_answers_every_event_as_the_grid_says() -> None:
    expected = {
        (state, event): (after, *DONE.get((state, event), (Action.NOTHING, None)))
        for (state, event), after in cells().items()
    }
    found = {
        (state.value, event.name): (step.state.value, step.action, step.reason)
        for state, row in TABLE.items()
        for event, step in row.items()
    }
    assert found == expected
    assert len(found) == len(State) * len(Event)


def test_each_state_has_the_deadline_of_what_the_client_must_do() -> None:
    assert {state.value: stage for state, stage in TIMED.items() if stage} == {
        "fresh": Stage.HEAD,
        "head": Stage.HEAD,
        "body": Stage.BODY,
        "reading": Stage.WRITE,
        "file": Stage.WRITE,
        "idle": Stage.IDLE,
        "arriving": Stage.ARRIVE,
        "leaving": Stage.LEAVE,
        "flushing": Stage.WRITE,
    }
    assert set(State) - PENDING == {State.LEAVING, State.GONE}
    assert set(STATES) == set(State)


@pytest.mark.parametrize("state", [state for state in State if TIMED[state] is not None])
def test_a_deadline_that_passes_changes_the_state(state: State) -> None:
    step = TABLE[state][Event.LATE]  # or it would pass again at the next sweep, and again
    assert (step.state, TIMED[step.state]) != (state, TIMED[state])


@pytest.mark.parametrize("state", State)
def test_no_connection_outlives_an_abandoned_drain(state: State) -> None:
    for _ in range(2):
        state = TABLE[state][Event.ABANDON].state
    assert state is State.GONE


GET = b"GET / HTTP/1.1\r\nHost: t\r\n\r\n"


@pytest.mark.parametrize(
    ("packets", "body", "left"),
    [
        ([GET], 0, b""),
        ([GET, b"\r\n"], 0, b""),
        ([b"\r\n" + GET], 0, b""),
        ([GET + b"GE"], 0, b"GE"),
        ([GET[:9], GET[9:] + b"GE"], 0, b"GE"),
        ([GET[:-2], GET[-2:] + b"\r\nGE"], 0, b"GE"),
        ([GET + GET + b"GE"], 0, GET + b"GE"),
        ([GET + b"hello"], 5, b""),
        ([GET + b"helloGE"], 5, b"GE"),
        ([GET + b"\r\n\r\n\r" + b"\r\nGE"], 5, b"GE"),  # a body of line ends is no end of a head
        ([GET + b"5\r\nhello\r\n0\r\n\r\n"], None, b""),
        ([GET + b"5\r\nhello\r\n0\r\n\r\nGE"], None, b"GE"),
        ([b"no end of a head"], 0, b""),
        # A chunked body whose end cannot be told: nothing follows, or an idle client would get a 408.
        ([GET + b"5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n"], None, b""),
        ([GET + b"5\r\nhello\r\n0;a=b\r\n\r\n"], None, b""),
        ([GET + b"7\r\n0\r\n\r\n--\r\n0\r\nX-Sum: 1\r\n\r\n"], None, b""),
        ([GET + b"2000\r\n" + bytes(0x2000) + b"\r\n0\r\n\r\n"], None, b""),
        ([GET + b"2000\r\n0\r\n\r\n" + bytes(0x1FFB) + b"\r\n0\r\n\r\n"], None, b""),
        ([GET + bytes(0x2000) + b"GE"], 0x2000, b""),
    ],
)
def test_what_follows_a_whole_request_has_begun(packets: list[bytes], body: int | None, left: bytes) -> None:
    pipeline = Pipeline()
    for packet in packets:
        pipeline.receive(packet)
    if body == 0:
        pipeline.claim_head()
    else:
        pipeline.claim(body=body, is_whole=True)
    assert pipeline.waiting == left


@pytest.mark.parametrize(
    ("head", "rest", "body", "left"),
    [
        (GET, [b"hel", b"lo"], 5, b""),
        (GET + b"he", [b"l", b"loGE"], 5, b"GE"),
        (GET + b"5\r\nhe", [b"llo\r\n0\r\n\r\nGE"], None, b"GE"),
        (GET + b"5\r\nhe", [b"llo\r\n", b"0\r\n\r\n"], None, b""),
        (GET + b"5\r\nhe", [b"llo\r\n0\r\nX-Sum: 1\r\n\r\n"], None, b""),
        (GET + b"5\r\nhe", [b"llo\r\n0\r\n", b"\r\n"], None, b""),
        (GET + bytes(0x2000), [bytes(0x1000), b"GE"], 0x3000, b""),
    ],
)
def test_what_follows_the_rest_of_a_body_has_begun(
    head: bytes, rest: list[bytes], body: int | None, left: bytes
) -> None:
    pipeline = Pipeline()
    pipeline.receive(head)
    pipeline.claim(body=body, is_whole=False)
    assert pipeline.waiting == b""
    for packet in rest:
        has_next = pipeline.receive_body(packet, is_whole=packet is rest[-1])
    assert (has_next, pipeline.waiting) == (bool(left), left)


def test_a_request_begins_once_and_a_flood_is_not_kept() -> None:
    pipeline = Pipeline()
    assert not pipeline.receive(b"\r\n")
    assert pipeline.receive(b"G")
    for _ in range(3):
        assert not pipeline.receive(bytes(MOST_BYTES))
    assert len(pipeline.waiting) == MOST_BYTES


@pytest.mark.parametrize("size", [1, 3, 100, MOST_BYTES - 1, MOST_BYTES, MOST_BYTES + 1, LONGEST_HEAD, 10**6])
@pytest.mark.parametrize(("more", "is_too_long"), [(0, False), (1, True)])
@pytest.mark.parametrize("before", [b"", GET])
def test_a_head_may_be_so_long_and_no_longer_however_it_comes(
    size: int, more: int, is_too_long: bool, before: bytes
) -> None:
    pipeline = Pipeline()
    if before:
        pipeline.receive(before + b"G")
        pipeline.claim_head()
    head = GET[len(before) > 0 : -4]
    head += b"x" * (LONGEST_HEAD + more - len(head) - len(END_OF_HEAD) - (len(before) > 0)) + END_OF_HEAD
    found = []
    for data in (head, bytes(LONGEST_HEAD)):  # whatever follows belongs to another
        for start in range(0, len(data), size):
            pipeline.receive(data[start : start + size])
        found.append(pipeline.is_too_long)
    assert found == [is_too_long] * 2


def test_each_head_is_counted_by_itself() -> None:
    pipeline = Pipeline()
    for _ in range(9):
        assert pipeline.receive(GET[:-2] + bytes(LONGEST_HEAD // 2))
        pipeline.receive(END_OF_HEAD)
        pipeline.claim_head()
        assert not pipeline.is_too_long
    pipeline.receive(bytes(LONGEST_HEAD))
    assert not pipeline.is_too_long
    pipeline.receive(b"x")
    assert pipeline.is_too_long
