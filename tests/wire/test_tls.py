"""TLS on real sockets: handshakes that succeed, fail, stall and lie, and files that cannot be used."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp import web

from service.app import data
from service.app.loading import StartError
from service.lifecycle import parts
from service.net import tls
from tests.support.running import Running, Start

RESET = b"\x01\x00\x00\x00\x00\x00\x00\x00"  # struct linger: close() sends RST
REQUEST = b"GET /data HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"


@dataclass(frozen=True)
class Files:
    """What an operator would have on disk, and the contexts of clients."""

    cert: Path
    key: Path
    ca: Path
    client: ssl.SSLContext
    client_with_cert: ssl.SSLContext

    @property
    def settings(self) -> dict[str, object]:
        return {"tls_cert": self.cert, "tls_key": self.key}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("tls")
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(folder / "ca.pem"))
    server = ca.issue_cert("127.0.0.1", "localhost")
    (folder / "cert.pem").write_bytes(b"".join(blob.bytes() for blob in server.cert_chain_pems))
    server.private_key_pem.write_to_path(str(folder / "key.pem"))
    clients = [ssl.create_default_context(), ssl.create_default_context()]
    for context in clients:
        ca.configure_trust(context)
    ca.issue_cert("client.test").configure_cert(clients[1])
    return Files(folder / "cert.pem", folder / "key.pem", folder / "ca.pem", *clients)


async def get(service: Running, context: ssl.SSLContext) -> bytes:
    reader, writer = await asyncio.open_connection(service.host, service.port, ssl=context)
    writer.write(REQUEST)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


def ended(service: Running) -> dict[str, int]:
    return service.service.metrics.connections.snapshot().completed


async def test_https_answers_and_counts_its_handshakes(start: Start, files: Files) -> None:
    service = await start(**files.settings)
    assert service.url.startswith("https://127.0.0.1:")
    assert b"200 OK" in await get(service, files.client)
    await service.until(lambda: ended(service)["closed"] == 1)
    values = await service.scrape()
    assert values["tls_handshakes_total{outcome=ok}"] == 1
    assert values["tls_handshake_seconds_count"] == 1


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_both_versions_in_use_are_spoken(start: Start, files: Files, version: ssl.TLSVersion) -> None:
    service = await start(**files.settings)
    context = ssl.create_default_context(cafile=files.ca)
    context.minimum_version = context.maximum_version = version
    assert b"200 OK" in await get(service, context)


async def test_plain_http_and_garbage_end_in_the_handshake_and_in_no_log(
    start: Start, files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    service = await start(**files.settings)
    capsys.readouterr()
    for sent in (REQUEST, b"\x16\x03\x01garbage" * 20, b"\x00" * 300):
        reader, writer = await service.connect()
        writer.write(sent)
        with contextlib.suppress(ConnectionError):  # reset or closed: both say no
            await reader.read()
        writer.close()
    await service.until(lambda: ended(service)["tls"] == 3)
    assert b"200 OK" in await get(service, files.client)
    assert (await service.scrape())["tls_handshakes_total{outcome=failed}"] == 3
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "sent", [b"", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"], ids=["silent", "half a hello"]
)
async def test_a_handshake_that_never_finishes_is_closed_by_its_deadline(
    start: Start, files: Files, sent: bytes
) -> None:
    service = await start(**files.settings, tls_handshake_timeout=0.3)
    reader, writer = await service.connect()
    writer.write(sent)
    async with asyncio.timeout(20):
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
    await service.until(lambda: ended(service)["tls"] == 1)
    writer.close()


@pytest.mark.parametrize(
    "sent", [b"", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"], ids=["at once", "half a hello"]
)
async def test_a_reset_in_the_handshake_leaves_nothing(start: Start, files: Files, sent: bytes) -> None:
    service = await start(**files.settings)
    for _ in range(20):
        client = socket.create_connection((service.host, service.port))
        client.sendall(sent)
        await asyncio.sleep(0)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        client.close()
    await service.until(lambda: sum(ended(service).values()) == 20)
    assert service.service.metrics.connections.snapshot().active == 0


async def test_a_stalled_handshake_delays_nobody(start: Start, files: Files) -> None:
    service = await start(**files.settings, tls_handshake_timeout=60)
    stalled = [await service.connect() for _ in range(20)]
    async with asyncio.timeout(20):
        assert b"200 OK" in await get(service, files.client)
    for _, writer in stalled:
        writer.close()
    await service.until(lambda: ended(service)["tls"] == 20)


async def test_deadlines_hold_behind_tls(start: Start, files: Files) -> None:
    service = await start(**files.settings, header_timeout=0.3)
    reader, writer = await asyncio.open_connection(service.host, service.port, ssl=files.client)
    assert b"408" in await reader.readline()
    writer.close()


async def test_a_client_that_does_not_read_is_reset_behind_tls_too(
    start: Start, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def much(_: web.Request) -> web.Response:
        return web.Response(body=bytes(8 * 1024 * 1024))

    build = data.data_app

    def build_with_much(*arguments: Any) -> web.Application:
        made = build(*arguments)
        made.router.add_get("/much", much)
        return made

    monkeypatch.setattr(data, "data_app", build_with_much)
    service = await start(**files.settings, write_timeout=0.4)
    _, writer = await asyncio.open_connection(service.host, service.port, ssl=files.client)
    writer.write(b"GET /much HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
    await service.until(lambda: ended(service)["deadline"] == 1)
    writer.transport.abort()


async def test_a_client_that_never_says_goodbye_is_let_go(start: Start, files: Files) -> None:
    service = await start(**files.settings)
    _, writer = await asyncio.open_connection(service.host, service.port, ssl=files.client)
    writer.transport.pause_reading()  # type: ignore[attr-defined]  # the answer fits into the kernel's buffers
    writer.write(REQUEST)
    async with asyncio.timeout(15):
        await service.until(lambda: ended(service)["closed"] == 1)
    writer.transport.abort()


async def test_no_silent_client_holds_up_a_drain(start: Start, files: Files) -> None:
    service = await start(**files.settings, tls_handshake_timeout=60, drain_timeout=30)
    _, stalled = await service.connect()
    reader, idle = await asyncio.open_connection(service.host, service.port, ssl=files.client)
    idle.write(REQUEST.replace(b"Connection: close\r\n", b""))
    assert b"200 OK" in await reader.readline()
    idle.transport.pause_reading()  # type: ignore[attr-defined]  # pooled, and looked at by nobody
    async with asyncio.timeout(15):
        assert await service.service.stop() == 0
    stalled.close()
    idle.transport.abort()


async def test_with_a_client_ca_only_clients_with_a_certificate_get_in(start: Start, files: Files) -> None:
    service = await start(**files.settings, tls_client_ca=files.ca)
    assert b"200 OK" in await get(service, files.client_with_cert)
    with contextlib.suppress(ssl.SSLError, ConnectionError):  # TLS 1.3 tells the client with its first read
        assert await get(service, files.client) == b""
    await service.until(lambda: ended(service)["tls"] == 1)


async def test_a_bad_pair_fails_at_start_in_a_sentence(start: Start, files: Files, tmp_path: Path) -> None:
    other = trustme.CA().issue_cert("127.0.0.1")
    other.private_key_pem.write_to_path(str(tmp_path / "other.pem"))
    (tmp_path / "text.pem").write_text("no PEM\n")
    cases: list[tuple[dict[str, object], str]] = [
        ({"tls_cert": files.cert, "tls_key": tmp_path / "other.pem"}, "does not belong"),
        ({"tls_cert": tmp_path / "text.pem", "tls_key": files.key}, "not a PEM certificate"),
        ({"tls_cert": files.cert, "tls_key": tmp_path / "nowhere"}, "No such file"),
        ({"tls_cert": files.cert, "tls_key": tmp_path}, "Is a directory"),
        ({**files.settings, "tls_client_ca": tmp_path / "text.pem"}, "--tls-client-ca"),
    ]
    for settings, why in cases:
        with pytest.raises(StartError, match=why) as caught:
            await start(**settings)
        assert "\n" not in str(caught.value)


def test_a_key_with_a_passphrase_is_refused_and_nobody_is_asked_for_it(files: Files, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(files.key.read_bytes(), None)
    locked = tmp_path / "locked.pem"
    locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(tls.TlsError, match="passphrase"):
        tls.context(files.cert, locked, None)


async def test_a_drain_whose_loop_is_busy_waits_for_handshakes_that_it_has_not_read(
    start: Start, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "ARRIVE_SECONDS", 0.5)
    service = await start(**files.settings)

    def ask() -> bytes:
        with (
            socket.create_connection((service.host, service.port)) as plain,
            files.client.wrap_socket(plain, server_hostname=service.host) as client,
        ):
            client.sendall(b"GET /data HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
            return client.recv(12)

    answer = asyncio.get_running_loop().run_in_executor(None, ask)
    await service.until(lambda: service.service.metrics.connections.snapshot().active == 1)
    drained = asyncio.create_task(service.service.stop())
    for _ in range(8):  # other handshakes, as it were
        time.sleep(0.15)  # noqa: ASYNC251  # a busy loop is what is tried
        await asyncio.sleep(0)
    assert await answer == b"HTTP/1.1 200"
    assert await drained == 0
