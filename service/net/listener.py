"""Listening sockets: opened for an address, or adopted from another program that opened them.

Knows addresses and descriptors. Accepts nothing.
"""

from __future__ import annotations

import errno
import socket


class Listener(socket.socket):
    """A non-blocking listening socket that knows its family and type by heart.

    `accept` asks it for both, and an ordinary one makes enumerations of them each time: 2 of the 9 us that
    one `accept` takes.
    """

    __slots__ = ("_family", "_type")

    def __init__(self, sock: socket.socket) -> None:
        """Take over the descriptor of `sock`, which has none from then on."""
        self._family, self._type = sock.family, sock.type
        super().__init__(self._family, self._type, sock.proto, fileno=sock.detach())
        self.setblocking(False)

    @property
    def family(self) -> socket.AddressFamily:
        """See `socket.socket`."""
        return self._family

    @property
    def type(self) -> socket.SocketKind:
        """See `socket.socket`."""
        return self._type


def adopt(fd: int) -> Listener:
    """The listening socket that another program has opened, by its descriptor; its backlog stays what it is.

    Raises:
        OSError: it is no listening TCP socket.
    """
    sock = socket.socket(fileno=fd)
    if sock.type != socket.SOCK_STREAM or sock.family not in (socket.AF_INET, socket.AF_INET6):
        sock.detach()  # not ours to close
        raise OSError(errno.EPROTOTYPE, "it is no TCP socket")
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        sock.detach()
        raise OSError(errno.EINVAL, "it does not listen")
    listener = Listener(sock)
    listener.set_inheritable(False)  # a worker that inherits it would keep the port open
    return listener


def resolve(host: str) -> str:
    """The address that `host` names, to listen on; this may wait for a name server.

    Raises:
        OSError, UnicodeError: it names none.
    """
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return str(found[0][4][0])


def listen(host: str, port: int, backlog: int) -> Listener:
    """A new non-blocking socket that listens on IPv4 or IPv6, as `host` demands; port 0 picks a free port.

    Raises:
        OSError: the address cannot be resolved, bound or listened on.
    """
    family, _, _, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    # "::" means all addresses, of both families where the kernel supports that.
    both = address[0] == "::" and socket.has_dualstack_ipv6()
    return Listener(socket.create_server(address[:2], family=family, backlog=backlog, dualstack_ipv6=both))
