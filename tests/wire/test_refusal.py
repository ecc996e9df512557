"""The early reject on real sockets: which requests it checks, what it answers, and that none waits."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from ipaddress import ip_network

import pytest

from metrics.instruments import Metrics
from service.offload.classes import Place, TaskClass
from service.offload.task import Rank
from service.web.early_reject import EarlyReject, Verdict
from service.web.priority import Ranks

GET = b"GET /data?n=1 HTTP/1.1\r\nHost: t\r\n\r\n"


PLACE = Place(TaskClass(3))


class Gate:
    """Says what a test wants it to say."""

    def __init__(self, retry_after: int | None, *, at_capacity: bool = True) -> None:
        self.at_capacity, self.says = at_capacity, retry_after
        self.deadlines = set[tuple[float, float | None]]()
        self.ranks = set[Rank]()
        self.expected = self.rejected = 0

    def may_refuse(self) -> bool:
        return self.at_capacity

    def retry_after(self, deadline: float, arrived: float | None, rank: Rank) -> int | None:
        self.ranks.add(rank)
        self.deadlines.add((deadline, arrived))
        return self.says

    def expect(self, rank: Rank) -> Place:
        self.ranks.add(rank)
        self.expected += 1
        return PLACE

    def reject(self, rank: Rank) -> None:
        self.ranks.add(rank)
        self.rejected += 1


def refused(metrics: Metrics) -> dict[str, float]:
    """How many requests were answered 503, by path."""
    return {
        sample.labels["route"]: sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == "http_requests_total" and sample.labels["status"] == "503"
    }


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A client's socket and its server's, which blocks as an accepted one does."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname(), timeout=5)
        served, _ = listener.accept()
    with client, contextlib.closing(served):
        yield client, served


def arrived(client: socket.socket, served: socket.socket, data: bytes) -> None:
    client.sendall(data)
    served.recv(1, socket.MSG_PEEK)


def test_a_request_is_answered_and_ends_in_order(pair: tuple[socket.socket, socket.socket]) -> None:
    client, served = pair
    arrived(client, served, GET)
    gate, metrics, refusals = Gate(7), Metrics(), list[None]()
    reject = EarlyReject(["/data"], gate, 3.0, metrics, refusing=lambda: refusals.append(None))
    assert reject(served, 5.0) is Verdict.REFUSED
    assert len(refusals) == 1
    served.close()
    answer = b"".join(iter(lambda: client.recv(1000), b""))
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nRetry-After: 7\r\n" in answer
    assert (gate.deadlines, gate.rejected) == ({(3.0, 5.0)}, 1)
    assert refused(metrics) == {"/data": 1}


@pytest.mark.parametrize(
    ("sent", "gate", "paths", "check", "expected"),
    [
        (GET, Gate(None), ["/data"], PLACE, 1),
        (GET.replace(b"Host: t\r\n", b""), Gate(None), ["/data"], Verdict.PASSED, 0),
        (GET.replace(b"Host: t", b"HOST: t\r\nHost: t"), Gate(7), ["/data"], Verdict.PASSED, 0),
        (GET, Gate(7, at_capacity=False), ["/data"], Verdict.PASSED, 0),
        (GET, Gate(7), [], Verdict.PASSED, 0),
        (GET.replace(b"/data", b"/other"), Gate(7), ["/data"], Verdict.PASSED, 0),
        (GET.replace(b"/data", b"/other"), Gate(None), ["/data"], Verdict.PASSED, 0),
        (GET[:-2], Gate(7), ["/data"], Verdict.PASSED, 0),
        (b"", Gate(7), ["/data"], Verdict.SILENT, 0),
        (b"", Gate(None), ["/data"], Verdict.PASSED, 0),
    ],
)
def test_everybody_else_takes_the_long_way_with_all_that_was_sent(
    pair: tuple[socket.socket, socket.socket],
    sent: bytes,
    gate: Gate,
    paths: list[str],
    check: Verdict | Place,
    expected: int,
) -> None:
    client, served = pair
    if sent:
        arrived(client, served, sent)
    metrics, refusals = Metrics(), list[None]()
    reject = EarlyReject(paths, gate, 3.0, metrics, refusing=lambda: refusals.append(None))
    assert reject(served) is check
    assert len(refusals) == (check is Verdict.SILENT)
    assert (gate.expected, gate.rejected, refused(metrics)) == (expected, 0, {})
    if sent:
        assert served.recv(1000) == sent


@pytest.mark.parametrize("says", [7, None])
@pytest.mark.parametrize(
    ("host", "said", "urgency"),
    [
        ("10.0.0.1", b"Priority: u=1", 1),
        ("10.0.0.1", b"priority:u=1;x, i ", 1),
        ("10.0.0.1", b"PRIORITY: i\r\nA: b\r\npriority: u=0", 0),  # two are one
        ("10.0.0.1", b"Priority: u=8", 5),
        ("10.0.0.1", b"Priority:", 5),
        ("10.0.0.1", b"X-Priority: u=1", 5),
        ("192.0.2.1", b"Priority: u=1", 5),
    ],
)
def test_the_rank_is_that_of_the_route_or_what_a_trusted_client_says(
    pair: tuple[socket.socket, socket.socket], host: str, said: bytes, urgency: int, says: int | None
) -> None:
    client, served = pair
    arrived(client, served, GET.replace(b"Host: t", b"Host: t\r\n" + said))
    gate = Gate(says)
    ranks = Ranks({"/data": 5}, (ip_network("10.0.0.0/8"),), by_client=True)
    EarlyReject(["/data"], gate, 3.0, Metrics(), ranks)(served, None, host)
    assert gate.ranks == {Rank(urgency, host)}


def test_a_client_that_has_reset_is_left_to_others(pair: tuple[socket.socket, socket.socket]) -> None:
    client, served = pair
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()
    with contextlib.suppress(ConnectionError):
        served.recv(1, socket.MSG_PEEK)
    gate, metrics = Gate(7), Metrics()
    assert EarlyReject(["/data"], gate, 3.0, metrics)(served) is not Verdict.REFUSED
    assert not gate.rejected
    assert not refused(metrics)
