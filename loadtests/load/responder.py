"""A server with the least cost that a server in Python can have: `python -m loadtests.load.responder`.

Prints its port, then reads one request per connection, answers it and closes, until its stdin is closed.
Knows no HTTP: the first bytes of a connection are a request. Any limit that a load generator finds with it is
the generator's own.
"""

import contextlib
import select
import socket
import sys
from typing import Final

ANSWER: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
BACKLOG: Final = 4096
AT_ONCE: Final = 64  # connections accepted per turn, so that none waits for a large batch


def serve(listener: socket.socket, orders: int) -> None:
    """Answer until the descriptor `orders` is closed at the other end."""
    poll = select.epoll()
    poll.register(listener.fileno(), select.EPOLLIN)
    poll.register(orders, select.EPOLLIN)
    waiting: dict[int, socket.socket] = {}
    while True:
        for descriptor, _ in poll.poll():
            if descriptor == orders:
                return
            if descriptor == listener.fileno():
                _take(listener, poll, waiting)
            else:
                poll.unregister(descriptor)
                _answer(waiting.pop(descriptor))


def _take(listener: socket.socket, poll: select.epoll, waiting: dict[int, socket.socket]) -> None:
    with contextlib.suppress(BlockingIOError):
        for _ in range(AT_ONCE):
            connection, _ = listener.accept()
            connection.setblocking(False)
            if not _answer(connection):  # the request has not arrived yet
                poll.register(connection.fileno(), select.EPOLLIN)
                waiting[connection.fileno()] = connection


def _answer(connection: socket.socket) -> bool:
    """Answer and close; returns False if the request has not arrived yet."""
    try:
        if connection.recv(65_536):
            connection.send(ANSWER)
    except BlockingIOError:
        return False
    except OSError:
        pass  # the client has disconnected
    connection.close()
    return True


def main() -> None:
    """Listen on a free port of loopback."""
    with socket.create_server(("127.0.0.1", 0), backlog=BACKLOG) as listener:
        listener.setblocking(False)
        print(listener.getsockname()[1], flush=True)
        serve(listener, sys.stdin.fileno())


if __name__ == "__main__":
    main()
