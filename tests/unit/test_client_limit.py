"""Who is one client, how many connections it may hold, and that the count is exact."""

from __future__ import annotations

import pytest

from service.net.client_limit import ClientLimit, client_of
from service.net.connection_limit import ConnectionLimit


def limit(chosen: int | None, connections: int = 10) -> ClientLimit:
    return ClientLimit(chosen, ConnectionLimit(connections, lambda: (10_000, 0)))


@pytest.mark.parametrize(
    ("one", "other", "are_the_same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff:ffff:ffff:ffff", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
    ],
)
def test_a_client_is_an_ipv4_address_or_half_an_ipv6_one(one: str, other: str, are_the_same: bool) -> None:
    assert (client_of(one) == client_of(other)) is are_the_same


@pytest.mark.parametrize(
    ("chosen", "host", "most"),
    [
        (3, "192.0.2.1", 3),
        (3, "127.0.0.1", 3),
        (3, "::1", 3),
        (3, "", None),
        (None, "192.0.2.1", 5),
        (None, "::ffff:192.0.2.1", 5),
        (None, "2001:db8::1", 5),
        (None, "127.0.0.2", None),
        (None, "::1", None),
        (None, "::ffff:127.0.0.1", None),
        (2**31 - 1, "192.0.2.1", None),
    ],
)
def test_so_many_and_no_more(chosen: int | None, host: str, most: int | None) -> None:
    clients = limit(chosen)
    held = [clients.enter(host) for _ in range(50)]
    assert sum(client is not None for client in held) == (most or 50)
    for client in filter(lambda one: one is not None, held):
        assert client is not None
        clients.leave(client)
    assert clients.held == {}


def test_a_place_that_is_given_back_can_be_taken_again() -> None:
    clients = limit(1)
    for _ in range(3):
        client = clients.enter("192.0.2.1")
        assert client is not None
        assert clients.enter("192.0.2.1") is None
        assert clients.enter("192.0.2.2") is not None
        clients.leave(client)
        clients.leave("192.0.2.2")
    assert clients.held == {}


def test_half_of_a_limit_of_one_is_one() -> None:
    assert limit(None, connections=1).most == 1
