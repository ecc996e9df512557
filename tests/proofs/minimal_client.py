"""The least that a client in Python can do for one request per connection at a rate.

The yardstick of the generator: the same on the wire as `python -m loadtests run` (connect, send, read to the
end, close), when it is due, by one epoll. It keeps no books, parses nothing, measures nothing but its own CPU
time.

Usage: python -m tests.proofs.minimal_client PORT RATE SECONDS; prints requests and CPU seconds.
"""

from __future__ import annotations

import select
import socket
import sys
import time


def send(port: int, rate: float, seconds: float) -> int:
    """Send and read until all are answered; returns how many there were."""
    request = f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode()
    poll = select.epoll()
    open_: dict[int, socket.socket] = {}
    started, sent, count = time.monotonic(), 0, round(rate * seconds)
    while sent < count or open_:
        now = time.monotonic()
        while sent < count and started + sent / rate <= now:
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            sock.connect_ex(("127.0.0.1", port))
            sock.send(request)
            poll.register(sock.fileno(), select.EPOLLIN)
            open_[sock.fileno()] = sock
            sent += 1
            now = time.monotonic()
        due = started + sent / rate if sent < count else now + 1.0
        if select.select([poll.fileno()], [], [], max(0.0, due - now))[0]:
            for descriptor, _ in poll.poll(0):
                try:
                    while open_[descriptor].recv(65_536):
                        pass
                except BlockingIOError:
                    continue
                open_.pop(descriptor).close()
    return count


def main() -> None:
    """Run what argv says."""
    port, rate, seconds = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
    before = time.process_time()
    count = send(port, rate, seconds)
    print(count, time.process_time() - before)


if __name__ == "__main__":
    main()
