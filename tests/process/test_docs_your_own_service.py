"""docs/your-own-service.md, followed step by step in an empty folder, as its reader would.

Its files are written, its servers started, its questions asked, and what it shows is compared. There is no
Docker engine where the tests run, so what its image is made of is held to our Dockerfile and compose file.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from aiohttp import ClientSession, ClientTimeout, WSCloseCode, WSMsgType

from docs import reading
from service.config.settings import Settings
from service.config.sources import variable
from tests.support import ROOT
from tests.support.child import Child, ended
from tests.support.processes import gone
from tests.support.tools import need

PAGE = (ROOT / "docs/your-own-service.md").read_text("utf-8")
BLOCKS = reading.blocks(PAGE)
COMMANDS = reading.commands(PAGE)
FILES = {block.title: block.text for block in BLOCKS if block.title}
SERVERS = ("-m service ", "/gunicorn ")


class Server(Child):
    """A server as the page starts it, in the reader's folder, but on free ports."""

    def __init__(self, command: str, folder: Path) -> None:
        self._log = folder / "log"
        bin_folder = Path(sys.executable).parent  # of the environment of these tests, wherever it is
        line = command.replace("$OFFLOOP/.venv/bin", str(bin_folder))
        ours = {"OFFLOOP": str(ROOT), "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        settings = {"SERVICE_PORT": "0", "SERVICE_ADMIN_PORT": "0", "SERVICE_WORKERS": "2"}
        with self._log.open("wb") as stderr:
            self.process = subprocess.Popen(
                ["sh", "-c", re.sub(r"^((?:\w+=\S+ )*)", r"\1exec ", line)],
                stderr=stderr,
                cwd=folder,
                env=os.environ | ours | settings,
                start_new_session=True,
            )


def ask(command: str, server: Child) -> str:
    """What curl says, asked where the server really is."""
    curl, *words = shlex.split(command)
    address, admin = server.ready()
    there = [
        word.replace("http://127.0.0.1:8080", address).replace("http://127.0.0.1:8081", admin)
        for word in words
    ]
    found = subprocess.run([need(curl, "curl"), *there], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    return found.stdout


def test_every_step_works_in_a_folder_of_ones_own(tmp_path: Path) -> None:
    followed = 0
    with ExitStack() as stack:
        server: Child | None = None
        for block in BLOCKS:
            if block.title:
                (tmp_path / block.title).write_text(block.text)
            for command, shown in block.commands if block.language == "console" else ():
                followed += 1
                if any(word in command for word in SERVERS):
                    if server is not None:
                        server.ready()
                        assert server.end() == 0
                        assert gone(server.process.pid)
                    server = stack.enter_context(ended(Server(command, tmp_path)))
                elif command.startswith("curl "):
                    assert server is not None
                    assert ask(command, server).rstrip("\n") == shown.rstrip("\n")
                else:
                    assert command.startswith(("export OFFLOOP=", "docker ")), "nothing here follows it"
        assert server is not None
        assert server.end() == 0
        assert gone(server.process.pid)
    assert followed == len(COMMANDS)
    assert {path.name for path in tmp_path.iterdir()} == {*FILES, "log"}


async def hears_the_end(address: str, stop: Callable[[], object]) -> None:
    """Clients of the page's WebSocket and of its stream, and what they get when the service is stopped."""
    async with (
        ClientSession(timeout=ClientTimeout(60)) as session,
        session.ws_connect(f"{address}/echo") as socket,
        session.get(f"{address}/count") as stream,
    ):
        await socket.send_str("there?")
        assert (await socket.receive()).data == "there?"
        assert await stream.content.readline() == b"data: 1\n"
        stop()
        assert (await socket.receive()).type is WSMsgType.CLOSE
        assert socket.close_code == WSCloseCode.GOING_AWAY
        await stream.read()  # raises if the last chunk is missing


async def test_sockets_and_streams_hear_of_every_stop(tmp_path: Path) -> None:
    (tmp_path / "live.py").write_text(FILES["live.py"])
    (command,) = (line for line in COMMANDS if "live:application" in line)
    for _ in range(3):  # `make goodbyes` does it a thousand times
        with ended(Server(command, tmp_path)) as server:
            address, _ = server.ready()
            await hears_the_end(address, server.process.terminate)
            assert server.process.wait(30) == 0
            assert [line["abandoned"] for line in server.events("stopped")] == [0]


async def test_so_they_do_under_gunicorn(tmp_path: Path) -> None:
    (tmp_path / "live.py").write_text(FILES["live.py"])
    (command,) = (line for line in COMMANDS if "/gunicorn" in line)
    with ended(Server(command.replace("app:application", "live:application"), tmp_path)) as server:
        server.wait_until(lambda: len(server.events("ready")) == 2)
        address = server.events("ready")[0]["address"]
        await hears_the_end(address, server.process.terminate)
        assert server.process.wait(30) == 0
        assert [line["abandoned"] for line in server.events("stopped")] == [0, 0]


IMAGE = (ROOT / "Dockerfile").read_text("utf-8")
COMPOSE = (ROOT / "docker-compose.yml").read_text("utf-8")
BUILT = dict(re.findall(r"^docker build --tag (\S+) (\S+)$", "\n".join(COMMANDS), re.MULTILINE))


def test_the_image_stands_on_ours() -> None:
    lines = FILES["Dockerfile"].splitlines()
    assert lines[0] == "FROM offloop"
    assert BUILT == {"offloop": "$OFFLOOP", "my-service": "."}
    (workdir,) = re.findall(r"^WORKDIR (/app)$", IMAGE, re.MULTILINE)
    (copied, to) = re.findall(r"^COPY (\S+) (\S+)$", FILES["Dockerfile"], re.MULTILINE)[0]
    assert copied in FILES
    assert to == f"{workdir}/"
    (setting,) = re.findall(r"^ENV (\w+)=\S+$", FILES["Dockerfile"], re.MULTILINE)
    assert setting in {variable(name) for name in Settings.model_fields}
    assert len(lines) == 3
    (more,) = (block.text for block in BLOCKS if block.language == "dockerfile" and not block.title)
    (user,) = re.findall(r"^USER (\d+)$", IMAGE, re.MULTILINE)
    assert more.startswith("USER 0\n")
    assert more.endswith(f"\nUSER {user}\n")
    assert re.search(
        r"^ENTRYPOINT \[.*\"-m\", \"service\"\]$", IMAGE, re.MULTILINE
    )  # flags go after the name


def test_the_override_names_a_service_of_the_stack_and_the_image_that_was_built() -> None:
    override = FILES["compose.override.yml"]
    (service,) = re.findall(r"^  (\w+):$", override, re.MULTILINE)
    assert re.search(rf"^  {service}:$", COMPOSE, re.MULTILINE)
    (image,) = re.findall(r"^    image: (\S+)$", override, re.MULTILINE)
    assert image in BUILT
    composed = [command for command in COMMANDS if command.startswith("docker compose ")]
    assert composed
    for command in composed:
        assert re.findall(r"-f (\S+)", command) == ["$OFFLOOP/docker-compose.yml", "compose.override.yml"]
