"""The admin port on real sockets: who holds a place, for how long, and what is said to whom."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import pytest
from prometheus_client import CollectorRegistry, Gauge

from metrics import admin_server, places
from metrics.admin import Admin
from metrics.places import MOST_CONNECTIONS
from tests.conftest import Logged
from tests.support.waiting import until

MANY_BYTES = 24 * 1024 * 1024
"""A /metrics that no pair of socket buffers holds (tcp_rmem and tcp_wmem end at 6 and 4 MiB)."""

PATIENCE_SECONDS = 20.0


class Endpoint:
    """An admin endpoint and how often its probe was asked."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.asked = 0
        self.admin = Admin("127.0.0.1", 0, registry, self._alive, lambda: (False, "draining"))

    def _alive(self) -> tuple[bool, str]:
        self.asked += 1
        return True, "ok"

    def connect(self) -> socket.socket:
        return socket.create_connection(self.admin.address, timeout=PATIENCE_SECONDS)

    def say(self, request: bytes) -> bytes:
        """What is answered until the connection ends; a reset is an end."""
        with self.connect() as sock:
            with contextlib.suppress(ConnectionError):
                sock.sendall(request)
            return read(sock)


def read(sock: socket.socket) -> bytes:
    answer = b""
    with contextlib.suppress(ConnectionError):
        while more := sock.recv(1 << 20):
            answer += more
    return answer


def threads() -> int:
    return sum("process_request_thread" in thread.name for thread in threading.enumerate())


@pytest.fixture
def registry() -> CollectorRegistry:
    made = CollectorRegistry()
    Gauge("there", "One metric", registry=made)
    return made


@pytest.fixture
def endpoint(registry: CollectorRegistry, logged: Logged) -> Iterator[Endpoint]:
    made = Endpoint(registry)
    yield made
    made.admin.close()
    until(lambda: not threads(), "every thread has ended")
    del logged


GET = b"GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n"


@pytest.mark.parametrize(
    ("request_", "status", "body"),
    [
        (GET, b"200", b"ok\n"),
        (b"GET /healthz HTTP/1.0\r\n\r\n", b"200", b"ok\n"),
        (b"GET /readyz HTTP/1.0\r\n\r\n", b"503", b"draining\n"),
        (b"GET /else HTTP/1.0\r\n\r\n", b"404", b"here are: /metrics /healthz /readyz\n"),
        (b"HEAD /healthz HTTP/1.1\r\nHost: t\r\n\r\n", b"200", b""),
        (b"HEAD /metrics HTTP/1.1\r\nHost: t\r\n\r\n", b"200", b""),
        (b"POST /healthz HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\nabc", b"405", b"use GET\n"),
        (b"DELETE /metrics HTTP/1.1\r\nHost: t\r\n\r\n", b"405", b"use GET\n"),
        (b"GET /healthz HTTP/2.0\r\n\r\n", b"505", None),
        (b"\x00\xff\xfe nonsense\r\n\r\n", b"400", None),
        (b"GET / HTTP/1.1 more\r\n\r\n", b"400", None),
        (b"GET /healthz\r\n\r\n", b"200", b"ok\n"),
        (b"GET /healthz HTTP/1.1\r\n" + 200 * b"A: b\r\n" + b"\r\n", b"431", None),
    ],
    ids=lambda value: value[:24].decode("latin-1") if isinstance(value, bytes) else "",
)
def test_what_is_answered(endpoint: Endpoint, request_: bytes, status: bytes, body: bytes | None) -> None:
    head, _, said = endpoint.say(request_).partition(b"\r\n\r\n")
    assert head.split(b" ")[1] == status
    assert b"\r\nServer: offloop" in head
    assert body is None or said == body
    if request_.startswith(b"HEAD"):
        assert b"Content-Length: 0" not in head
        assert b"Content-Length: " in head


def test_an_answer_leaves_in_one_piece(endpoint: Endpoint) -> None:
    for _ in range(50):
        with endpoint.connect() as sock:
            sock.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
            assert sock.recv(1 << 20).endswith(b"\r\n\r\nok\n")


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /healthz" + b"?" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n" + 90 * (b"X: " + b"x" * 1_000 + b"\r\n") + b"\r\n",
        b"x" * 1_000_000,
    ],
    ids=["request line", "one header", "many headers", "no line at all"],
)
def test_a_large_head_reaches_nothing(endpoint: Endpoint, request_: bytes) -> None:
    assert endpoint.say(request_)[9:12] in (b"", b"431")
    assert endpoint.asked == 0
    assert endpoint.say(GET).endswith(b"ok\n")


def test_a_head_that_is_cut_off_is_not_answered(endpoint: Endpoint) -> None:
    with endpoint.connect() as sock:
        sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: t")
        sock.shutdown(socket.SHUT_WR)
        assert read(sock) == b""
    assert endpoint.asked == 0


def unread(endpoint: Endpoint) -> socket.socket:
    sock = endpoint.connect()
    sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: t\r\n\r\n")
    assert sock.recv(1) == b"H"  # it is being sent
    return sock


def silent(endpoint: Endpoint) -> socket.socket:
    return endpoint.connect()


def slow(endpoint: Endpoint) -> socket.socket:
    sock = endpoint.connect()
    sock.sendall(b"GET /healthz HTTP/1.1\r\nX: ")
    return sock


@pytest.mark.parametrize("client", [silent, slow, unread])
def test_clients_that_hold_every_place_make_room_for_a_probe(
    endpoint: Endpoint,
    registry: CollectorRegistry,
    client: Callable[[Endpoint], socket.socket],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # To render so much so often takes a busy machine longer than a client has.
    monkeypatch.setattr(places, "EXCHANGE_SECONDS", 120.0)
    monkeypatch.setattr(admin_server, "FREED_WITHIN_SECONDS", 60.0)
    gauge = Gauge("large", "A large exposition", ["name"], registry=registry)
    for number in range(12):
        gauge.labels(f"{number}" + "x" * (MANY_BYTES // 12))
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(client(endpoint)) for _ in range(MOST_CONNECTIONS)]
        until(lambda: threads() == MOST_CONNECTIONS)
        for _ in range(3):
            assert endpoint.say(GET).endswith(b"ok\n")
            assert threads() <= MOST_CONNECTIONS
        assert len(read(held[0])) < MANY_BYTES  # the oldest made room


def test_no_exchange_outlives_its_deadline(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    with silent(endpoint) as first, slow(endpoint) as second:
        until(lambda: threads() == 2)
        monkeypatch.setattr(places, "EXCHANGE_SECONDS", 0.2)
        until(lambda: is_cut_off(second), "it drips, and is cut off")
        assert read(first) == b""
        until(lambda: not threads())


def is_cut_off(dripping: socket.socket) -> bool:
    try:
        dripping.sendall(b"x")
    except ConnectionError:
        return True
    return False


def test_a_client_that_never_reads_is_cut_off(
    endpoint: Endpoint, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    Gauge("large", "A large exposition", ["name"], registry=registry).labels("x" * MANY_BYTES)
    with unread(endpoint):
        monkeypatch.setattr(places, "EXCHANGE_SECONDS", 0.0)
        until(lambda: not threads())


def test_a_closed_endpoint_leaves_nothing_behind(registry: CollectorRegistry) -> None:
    endpoint = Endpoint(registry)
    with silent(endpoint) as first, slow(endpoint) as second:
        until(lambda: threads() == 2)
        endpoint.admin.close()
        for sock in (first, second):
            sock.setblocking(False)
            assert read(sock) == b"", "ended when close() returns"
        until(lambda: not threads())


def test_what_fails_is_told_in_the_log_alone(
    endpoint: Endpoint, registry: CollectorRegistry, logged: Logged, capfd: pytest.CaptureFixture[str]
) -> None:
    broken = Gauge("broken", "Fails", registry=registry)
    broken.set_function(lambda: 1 / 0)
    head, _, body = endpoint.say(b"GET /metrics HTTP/1.0\r\n\r\n").partition(b"\r\n\r\n")
    assert b" 500 " in head
    assert body == b"see the log\n"
    (line,) = [line for line in logged() if line["event"] == "admin request failed"]
    assert "ZeroDivisionError" in str(line)
    assert capfd.readouterr() == ("", "")


def test_what_a_client_does_reaches_no_stderr(
    endpoint: Endpoint, registry: CollectorRegistry, capfd: pytest.CaptureFixture[str]
) -> None:
    Gauge("large", "A large exposition", ["name"], registry=registry).labels("x" * MANY_BYTES)
    unread(endpoint).close()
    slow(endpoint).close()
    until(lambda: not threads())
    assert admin_server.MOST_HEAD_BYTES < 65_536
    assert capfd.readouterr() == ("", "")
