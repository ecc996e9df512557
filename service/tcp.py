"""What the kernel knows of a TCP socket and Python does not say: queues, and what the peer acknowledged.

Knows `struct tcp_info` (tcp(7), linux/tcp.h). Where the platform has none, nothing is known, and that is
what each function then returns.
"""

from __future__ import annotations

import fcntl
import socket
import struct
import sys
import termios

TCP_INFO = getattr(socket, "TCP_INFO", None)
ESTABLISHED = 1  # linux/tcp_states.h
RESET = struct.pack("ii", 1, 0)  # struct linger: on, 0 s


def backlog(listener: socket.socket) -> tuple[int, int]:
    """Connections in the kernel's accept queue, and its limit; (0, 0) where nobody can tell.

    For a listening socket Linux reports both (tcpi_unacked at offset 24, tcpi_sacked at 28), at 0.5 us a
    call and without privilege.
    """
    if TCP_INFO is None:
        return 0, 0
    try:
        waiting, limit = struct.unpack_from("=II", listener.getsockopt(socket.IPPROTO_TCP, TCP_INFO, 32), 24)
    except OSError:  # closed meanwhile, or not a TCP socket
        return 0, 0
    return waiting, limit


def acknowledged(sock: socket.socket) -> int | None:
    """Bytes that the peer has acknowledged since the connection began (tcpi_bytes_acked, offset 120).

    The only measure of a client that reads: user-space buffers hold what the kernel has not taken, under
    TLS not even that, and the kernel takes megabytes before anybody reads.
    """
    if TCP_INFO is None:
        return None
    try:
        (count,) = struct.unpack_from("=Q", sock.getsockopt(socket.IPPROTO_TCP, TCP_INFO, 128), 120)
    except (OSError, struct.error):
        return None
    return int(count)


def unacknowledged(sock: socket.socket) -> int:
    """Bytes in the kernel's send queue: written, and not acknowledged by the peer yet (tcp(7), SIOCOUTQ)."""
    try:
        return int.from_bytes(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    except OSError:
        return 0


def has_left(sock: socket.socket) -> bool:
    """Whether the peer has closed its side or reset the connection (tcpi_state at offset 0).

    Known here before the event loop has read up to the end of what was sent. 0.5 us a call.
    """
    if TCP_INFO is None:
        return False
    try:
        return sock.getsockopt(socket.IPPROTO_TCP, TCP_INFO, 8)[0] != ESTABLISHED
    except OSError:  # closed
        return True


def close_with_reset(sock: socket.socket) -> None:
    """Let the coming close reset the connection and free what was not sent (socket(7), SO_LINGER).

    Without it the kernel would go on to hold what a client does not read, megabytes per connection, for
    as long as that client acknowledges a closed window.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
