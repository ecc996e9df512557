"""How many connections one client may hold: a count per address. Pure.

Without it, one host that opens connections and sends nothing takes every place there is. A client is an IPv4
address or an IPv6 network of 64 bits: a subscriber gets at least that many addresses (RFC 6177), so a count
per IPv6 address would bound nothing.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import Final

from service.net.addresses import is_in
from service.net.connection_limit import ConnectionLimit

Client = str | bytes
"""An IPv4 address as text, or the first 64 bits of an IPv6 address."""

MAPPED: Final = bytes(10) + b"\xff\xff"
"""How an IPv4 address begins that a socket for both kinds tells (RFC 4291, 2.5.5.2)."""

LOOPBACK: Final = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1"))


class ClientLimit:
    """Counts the connections of each client; a client that has none is forgotten.

    Args:
        chosen: most connections of one client, loopback included; None: half of what the connection limit is,
            and for addresses of this machine no limit: a balancer, a tunnel or a test may be behind them.
    """

    def __init__(self, chosen: int | None, connection_limit: ConnectionLimit) -> None:
        self._chosen = chosen
        self._connection_limit = connection_limit
        self.held: dict[Client, int] = {}
        """How many connections each client holds."""

    @property
    def most(self) -> int:
        """Connections that one client may hold."""
        return max(1, self._connection_limit.limit // 2) if self._chosen is None else self._chosen

    def has_room(self, host: str) -> bool:
        """Whether the client at the address `host` may have one more connection."""
        return self._may_have(self.held.get(client_of(host), 0) + 1, host)

    def enter(self, host: str) -> Client | None:
        """Count one connection from the address `host`: its client, for `leave`; None if it has too many."""
        client = client_of(host)
        count = self.held.get(client, 0) + 1
        if not self._may_have(count, host):
            return None
        self.held[client] = count
        return client

    def leave(self, client: Client) -> None:
        """A connection that was counted has ended."""
        left = self.held[client] - 1
        if left:
            self.held[client] = left
        else:
            del self.held[client]

    def _may_have(self, count: int, host: str) -> bool:
        return count == 1 or count <= self.most or self._is_exempt(host)

    def _is_exempt(self, host: str) -> bool:
        if not host:
            return True  # a Unix socket: there is no address to tell its clients apart
        return self._chosen is None and is_in(host, LOOPBACK)


def client_of(host: str) -> Client:
    """The client that an address as the kernel tells it belongs to."""
    if ":" not in host:
        return host
    packed = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])  # without a link-local one's interface
    return socket.inet_ntoa(packed[12:]) if packed.startswith(MAPPED) else packed[:8]
