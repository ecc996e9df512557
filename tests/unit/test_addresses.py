"""Which addresses are in which networks."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from service.net.addresses import is_in


@pytest.mark.parametrize(
    ("address", "networks", "held"),
    [
        ("10.1.2.3", ["10.0.0.0/8"], True),
        ("11.1.2.3", ["10.0.0.0/8"], False),
        ("11.1.2.3", ["10.0.0.0/8", "11.0.0.0/8"], True),
        ("10.1.2.3", [], False),
        ("::ffff:10.1.2.3", ["10.0.0.0/8"], True),  # from a socket that serves both
        ("::ffff:11.1.2.3", ["10.0.0.0/8"], False),
        ("10.1.2.3", ["::/0"], False),
        ("fd00::1", ["fd00::/8"], True),
        ("fd00::1", ["0.0.0.0/0"], False),
        ("fe80::1%eth0", ["fe80::/10"], True),  # a link-local one comes with its interface
        ("", ["0.0.0.0/0", "::/0"], False),  # a Unix socket's
        ("localhost", ["127.0.0.0/8"], False),  # names are not looked up
    ],
)
def test_an_address_is_in_the_networks_that_hold_it(address: str, networks: list[str], held: bool) -> None:
    assert is_in(address, map(ip_network, networks)) is held
