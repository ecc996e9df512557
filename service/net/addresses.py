"""Addresses as an operator reads and writes them: URLs, why one cannot be bound, networks. Pure."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address

Network = IPv4Network | IPv6Network


def url(host: str, port: int, scheme: str = "http") -> str:
    """The base URL of an address; an IPv6 address gets its brackets (RFC 3986, 3.2.2)."""
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def why_not_bound(error: OSError | UnicodeError) -> str:
    """The errno's name and text, or the error's own for one without: a resolver's, or a host that is no
    name."""
    number = getattr(error, "errno", None) or 0
    if number in errno.errorcode:  # a resolver's numbers are none of these
        return f"{errno.errorcode[number]} ({os.strerror(number)})"
    return f"{type(error).__name__} ({error})"


def is_in(address: str, networks: Iterable[Network]) -> bool:
    """Whether one of `networks` holds `address`; what is no address is in none.

    A socket that serves IPv4 and IPv6 tells IPv4 peers as ::ffff:192.0.2.1 (RFC 4291, 2.5.5.2). Such a peer
    is in an IPv4 network that holds 192.0.2.1.
    """
    try:
        found = ip_address(address)
    except ValueError:
        return False
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    return any(found in network for network in networks)
