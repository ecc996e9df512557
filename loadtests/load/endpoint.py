"""Where the requests go and what they contain, prepared once so that no request pays for it.

Knows name resolution, request bytes and TLS settings. Touches the resolver, before the load starts.
"""

import errno
import ipaddress
import itertools
import socket
import ssl
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from loadtests.load.phase import Phase, Target
from loadtests.load.port_state import is_loopback
from loadtests.load.statuses import parse_statuses

# ip(7): leave the choice of the local port to connect(), which can share a port between destinations; a plain
# bind() needs a port that is not used at all. Python has a name for it from 3.12 on.
BIND_ADDRESS_NO_PORT: Final = 24 if sys.platform == "linux" else None

# ip(7), Linux 6.3: the socket's own range of local ports, the upper bound in the upper 16 bits. Python has
# no name for it.
LOCAL_PORT_RANGE: Final = 51 if sys.platform == "linux" else None

# On Linux socket(2) makes a non-blocking socket, which saves a call; 0 elsewhere.
NONBLOCKING: Final[int] = getattr(socket, "SOCK_NONBLOCK", 0)

# Methods that usually have a body: an empty one needs Content-Length: 0, or a server may wait for it or
# answer 411 (RFC 9110, 8.6).
BODY_METHODS: Final = frozenset({"POST", "PUT", "PATCH"})


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What all connections of a phase have in common."""

    family: int
    address: Any  # as socket.connect wants it: (host, port), four items for IPv6
    host: str  # as the URL names it, for TLS
    request: bytes
    head_only: bool  # the answer to HEAD has no body, even with a Content-Length
    tls: ssl.SSLContext | None
    sources: Iterator[str] | None  # endless: the addresses in turn
    port_range: bytes | None  # as the socket option wants it
    server_closes: bool
    stays_here: bool  # loopback: the kernel shakes hands with itself before connect() returns
    expected: frozenset[int]  # statuses

    @property
    def name(self) -> str:
        """The address as text: `127.0.0.1:8080`, `[::1]:8080`."""
        host, port = self.address[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def open_socket(self) -> socket.SocketType | socket.socket:
        """Return a non-blocking socket, bound to the next source if there is one; raises `OSError`.

        Without TLS it is the C type, which runs no Python code when it is made and closed.
        """
        kind = socket.SocketType if self.tls is None else socket.socket
        sock = kind(self.family, socket.SOCK_STREAM | NONBLOCKING)
        try:
            if not NONBLOCKING:
                sock.setblocking(False)
            if self.port_range is not None and LOCAL_PORT_RANGE is not None:
                sock.setsockopt(socket.IPPROTO_IP, LOCAL_PORT_RANGE, self.port_range)
            if self.sources is not None:
                if BIND_ADDRESS_NO_PORT is not None:
                    sock.setsockopt(socket.IPPROTO_IP, BIND_ADDRESS_NO_PORT, 1)
                sock.bind((next(self.sources), 0))
        except OSError:
            sock.close()
            raise
        return sock


def make_endpoint(phase: Phase) -> Endpoint:
    """Resolve the phase's host.

    Raises `OSError` if it has no address, if a source is not an address of this machine, or if this kernel
    does not support port ranges of sockets.
    """
    target = Target.parse(phase.url)
    family = socket.AF_UNSPEC
    for source in phase.sources:
        family = socket.AF_INET6 if ipaddress.ip_address(source).version == 6 else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as trial:
            trial.bind((source, 0))
    port_range = None
    if (span := phase.port_span) is not None:
        if LOCAL_PORT_RANGE is None:
            raise OSError(errno.ENOPROTOOPT, "only Linux supports a port range per socket")
        port_range = struct.pack("=I", span[0] | span[1] << 16)
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as trial:
            trial.setsockopt(socket.IPPROTO_IP, LOCAL_PORT_RANGE, port_range)
    found = socket.getaddrinfo(target.host, target.port, family, socket.SOCK_STREAM)
    # IPv4 first: `localhost` often resolves to ::1 as well, where few test servers listen, and trying both
    # would make a second connection, which the server counts.
    found.sort(key=lambda info: info[0] != socket.AF_INET)
    chosen, _, _, _, address = found[0]
    return Endpoint(
        family=chosen,
        address=address,
        host=target.host,
        request=request_bytes(phase, target),
        head_only=phase.method == "HEAD",
        tls=tls_context(insecure=phase.insecure) if target.tls else None,
        sources=itertools.cycle(phase.sources) if phase.sources else None,
        port_range=port_range,
        server_closes=phase.who_closes == "server",
        stays_here=is_loopback(str(address[0])),
        expected=parse_statuses(phase.expect),
    )


def request_bytes(phase: Phase, target: Target) -> bytes:
    """Return the whole request; the phase's own headers come last, its Host replaces ours."""
    body = phase.body_bytes
    lines = [f"{phase.method} {target.path} HTTP/1.1"]
    if not any(name.lower() == "host" for name, _ in phase.headers):
        lines.append(f"Host: {target.authority}")
    if not phase.keep_alive:  # which is the default of HTTP/1.1
        lines.append("Connection: close")
    if body or phase.method in BODY_METHODS:
        lines.append(f"Content-Length: {len(body)}")
    lines += [f"{name}: {value}" for name, value in phase.headers]
    return "\r\n".join([*lines, "", ""]).encode("ascii") + body


def tls_context(*, insecure: bool) -> ssl.SSLContext:
    """Return a client's TLS settings; `insecure` accepts any certificate for any name."""
    context = ssl.create_default_context()
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
