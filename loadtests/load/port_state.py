"""The ports of this machine: what the kernel allows, and which are in use.

Knows the names and formats of /proc (proc(5)) and of sock_diag(7). Reads those, and the routing
table through a socket that sends nothing. Never judges.
"""

import contextlib
import ipaddress
import socket
import struct
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from loadtests.load.ports import HeldPort, PortRules

SETTINGS: Final = Path("/proc/sys/net/ipv4")
TICKS_PER_SECOND: Final = 100  # USER_HZ, in which /proc/net counts whatever the kernel's own clock does

ESTABLISHED, LISTEN = 1, 10  # include/net/tcp_states.h
NETLINK_SOCK_DIAG: Final = 4
SOCK_DIAG_BY_FAMILY: Final = 20
NLM_F_DUMP_REQUEST: Final = 0x301
NLMSGHDR: Final = struct.Struct("=IHHII")

STATES: Final = {
    "01": "established",
    "02": "syn-sent",
    "03": "syn-received",
    "04": "fin-wait-1",
    "05": "fin-wait-2",
    "06": "time-wait",
    "07": "closed",
    "08": "close-wait",
    "09": "last-ack",
    "0A": "listening",
    "0B": "closing",
    "0C": "syn-received",
}
SYN_RECEIVED: Final = "03"
TIME_WAIT: Final = "06"
LISTENING: Final = "0A"


def port_rules(settings: Path = SETTINGS) -> PortRules:
    """The settings of this network namespace; Linux's defaults where they cannot be read."""
    low, high = (int(word) for word in (_read(settings / "ip_local_port_range") or "32768 60999").split())
    return PortRules(
        low=low,
        high=high,
        reserved=_reserved(_read(settings / "ip_local_reserved_ports") or "", low, high),
        tw_reuse=int(_read(settings / "tcp_tw_reuse") or 2),
        reuse_delay_seconds=int(_read(settings / "tcp_tw_reuse_delay") or 1000) / 1000,  # since Linux 6.14
        timestamps=(_read(settings / "tcp_timestamps") or "1") != "0",
    )


def held_ports(host: str, port: int) -> list[HeldPort]:
    """Local ports of connections to that address, in use or in TIME_WAIT."""
    server = ipaddress.ip_address(host)
    return [held for table in _tables() for held in held_in(table, server, port)]


def held_in(table: str, server: Any, port: int) -> Iterator[HeldPort]:
    """The same from the text of one table: a line of headings, then a line for each socket."""
    for local, remote, state, timer in _rows(table):
        if state != LISTENING and _port(remote) == port and _address(remote) == server:
            # "03:00001770": kind of timer, and clock ticks until it expires.
            remaining = int(timer.partition(":")[2], 16) / TICKS_PER_SECOND if state == TIME_WAIT else None
            yield HeldPort(source=str(_address(local)), remaining_seconds=remaining)


def half_open_ports(service_port: int) -> frozenset[int]:
    """Local ports of clients whose handshake with a service of this machine is not complete.

    The service may still accept their connections, seconds later, when the client's kernel retransmits. Both
    sides know a connection by its client's port, so the ledger can name it.
    """
    return frozenset(port for table in _tables() for port in unfinished(table, service_port))


def unfinished(table: str, service_port: int) -> set[int]:
    """The same from the text of one table."""
    return {
        _port(remote)
        for local, remote, state, _ in _rows(table)
        if state == SYN_RECEIVED and _port(local) == service_port
    }


def clients_of(port: int) -> set[int]:
    """The ports of clients with established connections to a port of this machine; empty if unknown.

    By netlink (sock_diag(7)), where the kernel selects them: with 16,000 sockets in TIME_WAIT it takes 60 ms
    to print its table in /proc, and 3 ms for this.
    """
    return {remote for remote, _ in _sockets(port, ESTABLISHED)}


def listening(port: int) -> set[int]:
    """The inodes of the sockets that listen on a port of this machine; empty if unknown.

    In the same way: beside 1,000 new connections a second, /proc/net/tcp takes seconds to read to its end.
    """
    return {inode for _, inode in _sockets(port, LISTEN)}


def _sockets(port: int, state: int) -> Iterator[tuple[int, int]]:
    """Remote port and inode of each socket of that local port in that state."""
    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(AttributeError, OSError):  # not Linux, or without inet_diag
            yield from _sockets_of(family, port, state)


def _sockets_of(family: int, port: int, state: int) -> Iterator[tuple[int, int]]:
    # struct nlmsghdr, struct inet_diag_req_v2 with an inet_diag_sockid whose source port alone is set, and
    # struct inet_diag_msg (linux/netlink.h, linux/inet_diag.h); ports are in network order.
    request = struct.pack("=BBBxI", family, socket.IPPROTO_TCP, 0, 1 << state)
    sockid = struct.pack("!H46x", port)
    length = NLMSGHDR.size + len(request) + len(sockid)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as kernel:
        kernel.send(NLMSGHDR.pack(length, SOCK_DIAG_BY_FAMILY, NLM_F_DUMP_REQUEST, 0, 0) + request + sockid)
        while True:
            data = kernel.recv(65_536)
            while data:
                length, kind, *_ = NLMSGHDR.unpack_from(data)
                if kind != SOCK_DIAG_BY_FAMILY:  # NLMSG_DONE, or an error
                    return
                local, remote = struct.unpack_from("!HH", data, NLMSGHDR.size + 4)
                if local == port:
                    yield remote, struct.unpack_from("=I", data, NLMSGHDR.size + 68)[0]
                data = data[(length + 3) & ~3 :]


def states() -> Counter[str]:
    """The number of TCP sockets of this namespace in each state."""
    return Counter(STATES.get(state, state) for table in _tables() for *_, state, _ in _rows(table))


def time_waits(path: Path = Path("/proc/self/net/sockstat")) -> int:
    """The number of TCP sockets of this namespace in TIME_WAIT; cheap; 0 if the kernel does not say."""
    words = next((line.split() for line in (_read(path) or "").splitlines() if line.startswith("TCP:")), [])
    return int(words[words.index("tw") + 1]) if "tw" in words else 0


def source_for(family: int, address: Any) -> str:
    """The local address from which the kernel would connect there.

    Connecting a datagram socket looks up the route and sends nothing (udp(7)). Raises `OSError` if there is
    no route.
    """
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect(address)
        return str(probe.getsockname()[0])


def is_loopback(host: str) -> bool:
    """Whether a connection to `host` is certain to stay on this machine."""
    return ipaddress.ip_address(host.partition("%")[0]).is_loopback


def _tables() -> Iterator[str]:
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            yield Path("/proc/self/net", name).read_text(encoding="ascii")


def _rows(table: str) -> Iterator[tuple[str, str, str, str]]:
    for line in table.splitlines()[1:]:
        _, local, remote, state, _, timer, *_ = line.split()
        yield local, remote, state, timer


def _port(text: str) -> int:
    return int(text.rpartition(":")[2], 16)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The address of `0100007F:1F90`: words of 32 bits in the byte order of the machine.

    An IPv4 address mapped into IPv6 is returned as IPv4.
    """
    words = bytes.fromhex(text.partition(":")[0])
    if sys.byteorder == "little":
        words = b"".join(words[at : at + 4][::-1] for at in range(0, len(words), 4))
    address = ipaddress.ip_address(words)
    return getattr(address, "ipv4_mapped", None) or address


def _reserved(text: str, low: int, high: int) -> int:
    """How many ports of the range a list such as `8080,9148-9150` names."""
    count = 0
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        count += max(0, min(high, int(last or first)) - max(low, int(first)) + 1)
    return count


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return None
