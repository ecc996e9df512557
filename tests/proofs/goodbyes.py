"""Every stop says goodbye, long form: `make goodbyes` sends 1,000 SIGTERMs under load.

Plain clients come one connection after another, WebSockets and event streams are open. A plain client that
was connected gets a whole answer, a WebSocket its close frame (1001), a stream its last event and its end,
and the exit code is 0.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from tests.proofs.record import keep
from tests.support.child import service
from tests.support.processes import gone
from tests.support.waiting import eventually

Figures = dict[str, Any]
PLAIN, LASTING = 8, 3
REQUEST = b"GET /healthz HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"
GOODBYE = {"plain ok", "plain refused", "websocket 1001", "stream goodbye", "exit 0"}


async def plain(host: str, port: int) -> Counter[str]:
    """Ask again and again, each time on a connection of its own, until no listener is there."""
    seen: Counter[str] = Counter()
    while not seen["plain refused"]:
        try:
            reader, writer = await asyncio.open_connection(host, port)
        except ConnectionRefusedError:
            seen["plain refused"] += 1
            continue
        except ConnectionResetError:
            seen["plain reset in its handshake"] += 1
            continue
        try:
            writer.write(REQUEST)
            answer = await reader.read()
            whole = answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"\r\n\r\nok\n")
            seen["plain ok" if whole else "plain cut short" if answer else "plain empty"] += 1
        except ConnectionError:
            seen["plain reset"] += 1
        finally:
            writer.close()
    return seen


async def websocket(session: aiohttp.ClientSession, url: str, there: asyncio.Event) -> Counter[str]:
    """Stay until told to go; `there` is set at the first message."""
    async with session.ws_connect(f"{url}/socket") as socket:
        await socket.send_str("there?")
        await socket.receive()
        there.set()
        await socket.receive()
        return Counter([f"websocket {socket.close_code}"])


async def stream(session: aiohttp.ClientSession, url: str, there: asyncio.Event) -> Counter[str]:
    """Read events until their end; `there` is set at the first."""
    try:
        async with session.get(f"{url}/stream") as events:
            await events.content.readline()
            there.set()
            said = await events.read()
    except aiohttp.ClientError:
        return Counter(["stream broken"])
    return Counter(["stream goodbye" if said.endswith(b"data: goodbye\n\n") else "stream cut short"])


async def one_stop(log: Path, after_seconds: float) -> Counter[str]:
    """One service from start to exit; what its clients saw."""
    with service(log, "--app", "tests.support.talking:application", "--workers", "1") as child:
        await eventually(lambda: child.events("ready"))
        address, _ = child.ready()
        place = urlsplit(address)
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(60)) as session:
            there = [asyncio.Event() for _ in range(2 * LASTING)]
            lasting = [
                asyncio.ensure_future(one(session, address, event))
                for one, event in zip((websocket, stream) * LASTING, there, strict=True)
            ]
            clients = [
                *lasting,
                *(
                    asyncio.ensure_future(plain(str(place.hostname), int(place.port or 0)))
                    for _ in range(PLAIN)
                ),
            ]
            await eventually(
                lambda: all(
                    event.is_set() or client.done() for event, client in zip(there, lasting, strict=True)
                ),
                "all that last have had their first message",
                60,
            )
            await asyncio.sleep(after_seconds)
            ending = asyncio.create_task(asyncio.to_thread(child.end))
            seen: Counter[str] = sum(await asyncio.gather(*clients), Counter())
            seen[f"exit {await ending}"] += 1
        assert gone(child.process.pid)
    return seen


async def stops(folder: Path, times: int, seed: int, jobs: int) -> Figures:
    """So many stops, `jobs` of them at a time; returns the figures, all assertions held."""
    chance, numbers = random.Random(seed), iter(range(times))
    seen: Counter[str] = Counter()

    async def stop() -> None:
        for number in numbers:
            log = folder / f"log{number}"
            found = await one_stop(log, 0.3 + 0.3 * chance.random())
            assert set(found) <= GOODBYE, (number, found, log.read_text())
            seen.update(found)
            log.unlink()
            if sys.stderr.isatty():
                print(f"\r{seen['exit 0']:>6} of {times}", end="", file=sys.stderr, flush=True)

    async with asyncio.TaskGroup() as group:
        for _ in range(jobs):
            group.create_task(stop())
    figures = {"stops": times, "seed": seed, "seen": dict(seen)}
    assert seen["exit 0"] == times, figures
    assert seen["websocket 1001"] == seen["stream goodbye"] == LASTING * times, figures
    assert seen["plain ok"] > times, figures
    return figures


def main() -> int:
    """The long form."""
    parser = argparse.ArgumentParser(prog="python -m tests.proofs.goodbyes", description=__doc__)
    parser.add_argument("--times", type=int, default=1000, metavar="N", help="SIGTERMs (default: 1000)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of their moments (default: 1)")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="at a time (default: 2)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = asyncio.run(stops(Path(folder), arguments.times, arguments.seed, arguments.jobs))
    print(json.dumps(figures, indent=1))
    if arguments.times >= 1000:
        keep("goodbyes", "make goodbyes", figures)
    return os.EX_OK


if __name__ == "__main__":
    sys.exit(main())
