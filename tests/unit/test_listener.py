"""The listening socket that the accept loop asks for connections."""

from __future__ import annotations

import os
import socket

import pytest

from service.net.listener import Listener, adopt


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_it_takes_a_descriptor_over_and_tells_the_same(family: socket.AddressFamily) -> None:
    sock = socket.create_server(("", 0), family=family)
    told, fd = (sock.family, sock.type, sock.proto, sock.getsockname()), sock.fileno()
    with Listener(sock) as listener:
        assert (listener.family, listener.type, listener.proto, listener.getsockname()) == told
        assert (listener.fileno(), sock.fileno()) == (fd, -1)
        with pytest.raises(BlockingIOError):
            listener.accept()
        with socket.create_connection(told[3][:2]), listener.accept()[0] as accepted:
            assert (accepted.family, accepted.type) == told[:2]
            assert accepted.getblocking()


def test_what_is_not_adopted_stays_as_it_was() -> None:
    with socket.socket() as sock:
        with pytest.raises(OSError, match="does not listen"):
            adopt(sock.fileno())
        assert os.get_blocking(sock.fileno())
