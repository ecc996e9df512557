"""What the kernel knows about a TCP socket and Python has no call for: queues, acknowledged bytes, the peer.

Knows `struct tcp_info` (tcp(7), linux/tcp.h). On a platform without it each function returns its value for
"unknown".
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import re
import socket
import struct
import sys
import termios
from pathlib import Path

TCP_INFO = getattr(socket, "TCP_INFO", None)
TCP_DEFER_ACCEPT = getattr(socket, "TCP_DEFER_ACCEPT", None)
RECEIVED = struct.Struct("=52xI72xQ")  # tcpi_last_data_recv, tcpi_bytes_received
QUEUE = struct.Struct("=24xII")  # of a listener: connections that wait, and how many may
ESTABLISHED, SYN_RECEIVED = 1, 3  # linux/tcp_states.h (a half-open connection is 12 there, and shown as 3)
SO_ATTACH_FILTER = 26  # asm-generic/socket.h; Python has no name for it
# A classic BPF program over the TCP header (filter.rst in the kernel's documentation): load byte 13, the
# flags; if SYN is among them keep nothing of the packet, else all of it.
NO_SYN = b"".join(
    struct.pack("HBBI", *instruction)
    for instruction in ((0x30, 0, 0, 13), (0x45, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF))
)
RESET = struct.pack("ii", 1, 0)  # struct linger: on, 0 s


def backlog(listener: socket.socket) -> tuple[int, int]:
    """Connections in the kernel's accept queue, and its limit; (0, 0) where the kernel does not tell.

    Linux reports both for a listening socket (tcpi_unacked at offset 24, tcpi_sacked at 28), at 0.5 us a call
    and without privilege.
    """
    if TCP_INFO is None:
        return 0, 0
    try:
        waiting, limit = QUEUE.unpack(listener.getsockopt(socket.IPPROTO_TCP, TCP_INFO, QUEUE.size))
    except (OSError, struct.error):  # closed meanwhile, or not a TCP socket
        return 0, 0
    return waiting, limit


def accept_wait(sock: socket.socket) -> tuple[float, bool]:
    """Seconds that a socket which has just been accepted waited for that, and whether bytes came meanwhile.

    The newest bytes, if there are some (tcpi_last_data_recv at offset 52, in ms; tcpi_bytes_received at 128),
    else the connection itself: then the kernel counts from the end of the handshake. It counts jiffies, of
    4 ms at 250 Hz, and from one to another: what has waited for no time at all may be told as 4 ms.
    (0.0, False) where the kernel does not tell.
    """
    if TCP_INFO is None:
        return 0.0, False
    try:
        last_data, received = RECEIVED.unpack(sock.getsockopt(socket.IPPROTO_TCP, TCP_INFO, RECEIVED.size))
    except (OSError, struct.error):
        return 0.0, False
    return last_data / 1000, received > 0


def wait_for_data(listener: socket.socket, seconds: int) -> None:
    """Accept connections once their first bytes are there (tcp(7), TCP_DEFER_ACCEPT); with 0 at once.

    A connection without bytes is held back until the first retransmission of its SYN-ACK that is at least
    `seconds` later. Nothing changes where the platform cannot do that.
    """
    if TCP_DEFER_ACCEPT is not None:
        with contextlib.suppress(OSError):  # closed meanwhile
            listener.setsockopt(socket.IPPROTO_TCP, TCP_DEFER_ACCEPT, seconds)


def drop_new_syns(listener: socket.socket) -> bool:
    """Drop the SYN packets of new connections to `listener`; a handshake that has begun can still finish.

    Between the check that finds the accept queue empty and the close that resets all connections in it,
    another one can arrive. A filter that drops SYN packets ends that race without privilege. To the client it
    looks like a lost packet: it tries again after a second, and finds the port closed or the next process.

    Returns:
        Whether SYN packets are dropped now; False where the platform cannot do that.
    """
    program = ctypes.create_string_buffer(NO_SYN)
    instructions = len(NO_SYN) // struct.calcsize("HBBI")
    sock_fprog = struct.pack("HP", instructions, ctypes.addressof(program))
    try:
        listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, sock_fprog)
    except OSError:  # on another platform the number means something else or nothing
        return False
    return True


def half_open(listener: socket.socket) -> int:
    """Handshakes with `listener` that wait for the client's last packet, or for room in the accept queue.

    Reads the table of all TCP sockets (proc(5)), which takes the kernel 10 to 30 ms however few they are: for
    a drain, which accepts no new client anyway. 0 where there is no such table.
    """
    port = f"{listener.getsockname()[1]:04X}"
    row = re.compile(rf"^ *\d+: \w+:{port} \w+:\w+ {SYN_RECEIVED:02X} ", re.MULTILINE)
    count = 0
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            count += len(row.findall(Path("/proc/net", table).read_text()))
    return count


def acknowledged(sock: socket.socket) -> int | None:
    """Bytes the peer has acknowledged since the connection began (tcpi_bytes_acked, offset 120), or None.

    The only measure of how much a client reads: user-space buffers show what the kernel has not taken, under
    TLS not even that, and the kernel takes megabytes before the client reads at all.
    """
    if TCP_INFO is None:
        return None
    try:
        (count,) = struct.unpack_from("=Q", sock.getsockopt(socket.IPPROTO_TCP, TCP_INFO, 128), 120)
    except (OSError, struct.error):
        return None
    return int(count)


def unacknowledged(sock: socket.socket) -> int:
    """Bytes in the kernel's send queue: written, and not yet acknowledged by the peer (tcp(7), SIOCOUTQ)."""
    try:
        return int.from_bytes(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    except (OSError, ValueError):  # closed, and its protocol is about to hear of it: a closed socket is -1
        return 0


def peer_closed(sock: socket.socket) -> bool:
    """Whether the peer has closed its side or reset the connection (tcpi_state at offset 0), in 0.5 us.

    The kernel knows this before the event loop has read all that the peer sent.
    """
    if TCP_INFO is None:
        return False
    try:
        return sock.getsockopt(socket.IPPROTO_TCP, TCP_INFO, 8)[0] != ESTABLISHED
    except OSError:  # closed
        return True


def close_with_reset(sock: socket.socket) -> None:
    """Make the coming close reset the connection and discard what was not sent (socket(7), SO_LINGER).

    Otherwise the kernel keeps what a client does not read, megabytes per connection, for as long as that
    client acknowledges a closed window.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
