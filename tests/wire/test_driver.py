"""What a deadline that has passed means for a client: asked of the kernel, on a real socket."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from typing import Any, cast

import pytest

from metrics.instruments import ConnectionEnd, Metrics
from service.net import tcp
from service.net.listener import listen
from service.web.deadlines import Deadlines, Stage
from service.web.driver import SLOWEST_BYTES_PER_SECOND, Driver
from service.web.exchange import Event, State
from service.web.request_log import RequestRecord
from tests.support.waiting import until

pytestmark = pytest.mark.skipif(not hasattr(socket, "TCP_INFO"), reason="asks Linux's TCP_INFO")
SECONDS = 2.0
ENOUGH = int(SLOWEST_BYTES_PER_SECOND * SECONDS)


class Wire:
    """A transport as far as the driver knows it: writes nothing by itself."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.buffered = 0
        self.reading = True

    def __getattr__(self, name: str) -> Any:
        return lambda *_: self.calls.append(name)

    def get_write_buffer_size(self) -> int:
        return self.buffered

    def is_reading(self) -> bool:
        return self.reading


class Connection:
    """The server's end of a connection with its driver, and the client's end."""

    def __init__(self, client: socket.socket, served: socket.socket) -> None:
        self.client, self.served, self.wire = client, served, Wire()
        deadlines: Deadlines[Driver] = Deadlines(dict.fromkeys(Stage, SECONDS))
        self.driver = Driver(served, deadlines, RequestRecord(Metrics()))
        self.driver.connected(cast("Any", self.wire))

    def after(self, *events: Event) -> Driver:
        for event in events:
            self.driver.happened(event)
        return self.driver

    def fill(self) -> None:
        """Write until the kernel takes no more."""
        self.served.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                self.served.send(bytes(2**16))

    def until_still(self) -> None:
        """Wait until the client's kernel has acknowledged all that it takes in unread."""

        def is_still() -> bool:
            before = tcp.acknowledged(self.served)
            time.sleep(0.05)
            return tcp.acknowledged(self.served) == before

        until(is_still)

    def read(self, count: int) -> None:
        while count > 0:
            count -= len(self.client.recv(count))


@pytest.fixture
def connection() -> Iterator[Connection]:
    with listen("127.0.0.1", 0, 1) as listener:
        client = socket.create_connection(listener.getsockname())
        listener.setblocking(True)
        served, _ = listener.accept()
        with client, served:
            yield Connection(client, served)


ANSWERED_AND_CLOSED = (Event.REQUEST, Event.ANSWERED_LAST, Event.SERVED)


def test_a_client_that_has_read_all_of_the_last_answer_is_let_go(connection: Connection) -> None:
    driver = connection.after(*ANSWERED_AND_CLOSED, Event.UNREAD)
    assert driver.state is State.FLUSHING
    driver.expire()
    assert (driver.state, driver.reason) == (State.GONE, None)
    assert connection.wire.calls == ["abort"]


def test_a_client_that_does_not_read_the_last_answer_is_reset(connection: Connection) -> None:
    connection.fill()
    driver = connection.after(*ANSWERED_AND_CLOSED)
    connection.until_still()
    driver.expire()
    assert driver.state is State.FLUSHING
    driver.expire()
    assert (driver.state, driver.reason) == (State.GONE, ConnectionEnd.DEADLINE)
    assert connection.wire.calls == ["abort"]


def test_what_a_slow_handler_has_not_written_yet_is_not_the_clients_fault(connection: Connection) -> None:
    driver = connection.after(Event.REQUEST, Event.FILE)
    driver.expire()
    assert (driver.state, driver.stage) == (State.FILE, Stage.WRITE)
    connection.wire.buffered = 1
    driver.expire()
    assert driver.state is State.GONE


def test_bytes_of_a_body_do_not_count_against_a_client_that_reads(connection: Connection) -> None:
    connection.fill()
    driver = connection.after(Event.REQUEST_WITH_BODY, Event.BUFFER_FULL)
    driver.received_body(2**30)
    connection.read(2**20)
    until(lambda: (tcp.acknowledged(connection.served) or 0) > 2**18, "the reading is acknowledged")
    connection.fill()
    connection.until_still()
    states = []
    for _ in range(2):  # between the two nothing is read
        driver.expire()
        states.append(driver.state)
    assert states == [State.READING, State.GONE]


@pytest.mark.parametrize(
    ("received", "is_reading", "state"),
    [
        (ENOUGH, True, State.BODY),
        (ENOUGH - 1, True, State.HANDLER),
        (0, False, State.BODY),  # we did not read: nothing could come
    ],
)
def test_a_body_must_come_fast_enough(
    connection: Connection, received: int, is_reading: bool, state: State
) -> None:
    connection.wire.reading = is_reading
    driver = connection.after(Event.REQUEST_WITH_BODY)
    driver.received_body(received)
    driver.expire()
    assert driver.state is state


def test_a_closed_socket_has_nothing_to_send_any_more() -> None:
    """Its protocol hears of the close a turn of the loop later, and a deadline may pass in between."""
    sock = socket.socket()
    sock.close()
    assert tcp.unacknowledged(sock) == 0
    assert tcp.acknowledged(sock) is None
    assert tcp.peer_closed(sock)
