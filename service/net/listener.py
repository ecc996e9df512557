"""Listening sockets: opened for an address, or adopted from another program that opened them.

Knows addresses and descriptors. Accepts nothing.
"""

from __future__ import annotations

import errno
import socket


def adopt(fd: int) -> socket.socket:
    """The listening socket that another program has opened, by its descriptor; its backlog stays what it is.

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
    listener.set_inheritable(False)  # a worker that inherits it would keep the port open
    return listener


def resolve(host: str) -> str:
    """The address that `host` names, to listen on; this may wait for a name server.

    Raises:
        OSError, UnicodeError: it names none.
    """
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return str(found[0][4][0])


def listen(host: str, port: int, backlog: int) -> socket.socket:
    """A new non-blocking socket that listens on IPv4 or IPv6, as `host` demands; port 0 picks a free port.

    Raises:
        OSError: the address cannot be resolved, bound or listened on.
    """
    family, _, _, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    # "::" means all addresses, of both families where the kernel supports that.
    both = address[0] == "::" and socket.has_dualstack_ipv6()
    listener = socket.create_server(address[:2], family=family, backlog=backlog, dualstack_ipv6=both)
    listener.setblocking(False)
    return listener
