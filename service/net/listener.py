"""Listening sockets: opened for an address, or taken over from whoever opened them.

Knows addresses and descriptors. Accepts nothing.
"""

from __future__ import annotations

import errno
import socket


def adopt(fd: int) -> socket.socket:
    """A listening socket that somebody else has made, by its descriptor; its backlog stays what it is.

    Raises:
        OSError: it is no listening TCP socket.
    """
    listener = socket.socket(fileno=fd)
    if listener.type != socket.SOCK_STREAM or listener.family not in (socket.AF_INET, socket.AF_INET6):
        listener.detach()  # not ours to close
        raise OSError(errno.EPROTOTYPE, "it is no TCP socket")
    if not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        listener.detach()
        raise OSError(errno.EINVAL, "it does not listen")
    listener.setblocking(False)
    listener.set_inheritable(False)  # workers are none of its heirs
    return listener


def listen(host: str, port: int, backlog: int) -> socket.socket:
    """Bind and listen, non-blocking; IPv4 or IPv6 as the host demands; port 0 picks a free one.

    Raises:
        OSError: the address cannot be resolved, bound or listened on.
    """
    family, _, _, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    # "::" means all addresses, of both families, wherever the kernel can do that.
    both = address[0] == "::" and socket.has_dualstack_ipv6()
    listener = socket.create_server(address[:2], family=family, backlog=backlog, dualstack_ipv6=both)
    listener.setblocking(False)
    return listener
