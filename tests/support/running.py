"""A real service in the loop of the test, and what a test asks of it over the wire."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from urllib.request import urlopen

from aiohttp import web

from metrics.exposition import parse
from service.lifecycle.service import Service
from tests.support import letter
from tests.support.waiting import eventually

Start = Callable[..., Awaitable["Running"]]
Routes = Callable[[str, Callable[..., Awaitable[web.StreamResponse]]], None]


class Running:
    """A started service and what a test asks of it."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.clients: list[asyncio.Task[bytes]] = []
        self.url, self.admin_url = service.parts.address, service.parts.admin_address
        self.host, _, port = self.url.partition("://")[2].rpartition(":")
        self.port = int(port)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(self.host.strip("[]"), self.port)

    async def exchange(self, request: bytes) -> bytes:
        """Send raw bytes on a connection of their own, and read until the server closes."""
        reader, writer = await self.connect()
        writer.write(request)
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        letter.check(request, answer)
        return answer

    async def get(self, path: str = "/data", method: str = "GET") -> bytes:
        return await self.exchange(
            f"{method} {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n".encode()
        )

    async def scrape(self) -> dict[str, float]:
        text = await asyncio.to_thread(lambda: urlopen(f"{self.admin_url}/metrics").read().decode())
        return parse(text)

    async def shows(self, sample: str, *, zero: bool = False) -> None:
        """Wait until a scrape shows that this sample is not zero, or that it is."""

        async def is_so() -> bool:
            return ((await self.scrape())[sample] == 0) is zero

        await eventually(is_so, f"{sample} is {'' if zero else 'not '}0")

    async def until(self, condition: Callable[[], bool]) -> None:
        """Turn the loop until something that is about to happen has happened."""
        await eventually(condition)


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def body_of(answer: bytes) -> bytes:
    return answer.partition(b"\r\n\r\n")[2]
