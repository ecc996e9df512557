"""Headless Chromium, spoken to over its DevTools protocol."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import aiohttp

from tests.support.tools import need
from tests.support.waiting import until

# A browser that asks nobody anything on its own: what it requests is what the page asked for.
QUIET = (
    "--headless",
    "--no-sandbox",  # tests run as root in containers, where the sandbox cannot
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--remote-debugging-port=0",
)


class Page:
    """One tab. `requests` and `complaints` fill from the moment it is made."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._loaded = asyncio.Event()
        self.requests: list[str] = []
        self.complaints: list[str] = []

    async def listen(self) -> None:
        """Take in what the browser says, until the socket closes."""
        async for message in self._socket:
            said = message.json()
            if "id" in said:
                self._answers.pop(said["id"]).set_result(said)
                continue
            parameters = said["params"]
            match said["method"]:
                case "Network.requestWillBeSent":
                    self.requests.append(parameters["request"]["url"])
                case "Runtime.exceptionThrown" | "Runtime.consoleAPICalled" | "Log.entryAdded":
                    self.complaints.append(str(parameters))
                case "Page.loadEventFired":
                    self._loaded.set()

    async def call(self, method: str, **parameters: Any) -> Any:
        """One command and its result."""
        number = next(self._numbers)
        self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        answer = await asyncio.wait_for(self._answers[number], 30)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    async def open(self, url: str, *, width: int, scheme: str) -> None:
        """Load a page at a width in CSS pixels, in the `light` or `dark` scheme."""
        for domain in ("Page", "Network", "Runtime", "Log"):
            await self.call(f"{domain}.enable")
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False
        )
        await self.call(
            "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}]
        )
        await self.call("Page.navigate", url=url)
        await asyncio.wait_for(self._loaded.wait(), 30)

    async def evaluate(self, script: str) -> Any:
        """The JSON value of an expression."""
        answer = await self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def screenshot(self) -> bytes:
        """The whole page as PNG."""
        shot = await self.call("Page.captureScreenshot", captureBeyondViewport=True)
        return base64.b64decode(shot["data"])


@contextmanager
def chromium(folder: Path) -> Iterator[str]:
    """A browser with its profile in `folder`; gives the DevTools address of its one tab, ends all of it."""
    binary = need("chromium", "chromium")
    folder.mkdir()
    # Killed, it leaves a socket among the temporary files; that of `folder` would have too long a name.
    temporary = tempfile.TemporaryDirectory()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [binary, *QUIET, f"--user-data-dir={folder / 'profile'}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**os.environ, "HOME": str(folder), "TMPDIR": temporary.name},
        )
    chosen = folder / "profile/DevToolsActivePort"
    try:
        until(lambda: chosen.exists() and chosen.read_text().count("\n"), "Chromium listens")
        port = chosen.read_text().split()[0]
        with urlopen(f"http://127.0.0.1:{port}/json/list", timeout=30) as answer:
            tabs = json.load(answer)
        yield next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its own session: the zygote and the renderers too
        process.wait(10)
        temporary.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


@asynccontextmanager
async def page_at(address: str) -> AsyncIterator[Page]:
    """The tab at this DevTools address."""
    async with aiohttp.ClientSession() as session, session.ws_connect(address, max_msg_size=0) as socket:
        page = Page(socket)
        listener = asyncio.create_task(page.listen())
        try:
            yield page
        finally:
            await socket.close()
            await listener
