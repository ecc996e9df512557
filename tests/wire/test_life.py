"""Notice, drain, reload and handed-over sockets, on real sockets in the test's loop."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
import trustme
from aiohttp import web

from metrics.instruments import Metrics
from service.app import data
from service.config.settings import Settings
from service.lifecycle.control import Control
from service.lifecycle.run import serve
from service.lifecycle.service import Service
from service.lifecycle.states import Event, State
from service.net import tcp
from service.net.listener import adopt
from service.web import drain
from tests.support.running import Start
from tests.support.waiting import eventually

KEPT = b"GET /data HTTP/1.1\r\nHost: t\r\n\r\n"


SO_DETACH_FILTER = 27  # asm-generic/socket.h


def elsewhere(probe: Callable[[], tuple[bool, str]]) -> tuple[bool, str]:
    """What a probe says on another thread, while the loop waits for it."""
    answers: list[tuple[bool, str]] = []
    asking = threading.Thread(target=lambda: answers.append(probe()))
    asking.start()
    asking.join()
    return answers[0]


def is_connected(client: socket.socket) -> bool:
    try:
        client.getpeername()
    except OSError:
        return False
    return True


async def head(reader: asyncio.StreamReader) -> bytes:
    """The next answer's head; its body is read, too."""
    text = (await reader.readuntil(b"\r\n\r\n")).lower()
    await reader.readexactly(int(text.partition(b"content-length: ")[2].split()[0]))
    return text


async def test_during_the_notice_it_serves_on_is_not_ready_and_each_answer_is_the_last(start: Start) -> None:
    service = await start(drain_notice=60)
    kept = await service.connect()
    kept[1].write(KEPT)
    assert b"connection: close" not in await head(kept[0])
    notice = asyncio.create_task(service.service.lame_duck())
    await service.until(lambda: service.service.ready() == (False, "notice"))
    assert service.service.alive() == (True, "ok")
    kept[1].write(KEPT)
    assert b"connection: close" in await head(kept[0])
    assert await kept[0].read() == b""
    kept[1].close()
    new = await service.connect()
    new[1].write(KEPT)
    assert b"connection: close" in await head(new[0])
    new[1].close()
    service.service.broken.set()  # what ends a notice early
    await notice
    assert service.service.life.state is State.DRAINING
    await service.service.stop()


async def test_a_notice_of_no_seconds_is_over_at_once(start: Start) -> None:
    service = await start()
    await service.service.lame_duck()
    assert service.service.life.state is State.DRAINING
    assert await service.service.stop(Event.TERMINATE) == 0


async def test_no_handshake_that_was_finished_is_lost_while_clients_keep_coming(start: Start) -> None:
    service = await start(drain_timeout=10)
    address = (service.host, service.port)
    stopping, ended = asyncio.Event(), asyncio.Event()
    answers: list[bytes] = []

    async def visit() -> None:
        while not ended.is_set():
            try:
                async with asyncio.timeout(0.5):  # a dropped SYN is tried again after a second
                    reader, writer = await asyncio.open_connection(*address)
            except TimeoutError:  # never got in
                if stopping.is_set():
                    return
                continue
            except OSError:
                return
            writer.write(KEPT.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
            answers.append(await reader.read())
            writer.close()

    clients = [asyncio.create_task(visit()) for _ in range(20)]
    await service.until(lambda: len(answers) > 50)
    stopping.set()
    assert await service.service.stop() == 0
    ended.set()
    await asyncio.gather(*clients)  # raises what a reset raises
    assert all(answer.startswith(b"HTTP/1.1 200") for answer in answers)


@pytest.mark.skipif(tcp.TCP_INFO is None, reason="needs Linux")
async def test_a_shut_door_lets_nobody_new_in_and_loses_nobody_who_is_in() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        early = socket.create_connection(listener.getsockname())
        assert tcp.drop_new_syns(listener)
        with pytest.raises(TimeoutError):
            socket.create_connection(listener.getsockname(), timeout=0.05)
        early.sendall(b"still here")
        accepted, _ = listener.accept()
        assert accepted.recv(10) == b"still here"
        accepted.close()
        early.close()


@pytest.mark.skipif(tcp.TCP_INFO is None, reason="needs Linux")
async def test_a_drain_waits_for_a_handshake_that_has_begun(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert drain.HANDSHAKE_SECONDS > 1, "after which the kernel sends its SYN-ACK again"
    monkeypatch.setattr(drain, "HANDSHAKE_SECONDS", 9)
    service = await start(drain_timeout=20)
    with socket.socket() as client:
        assert tcp.drop_new_syns(client)  # it drops what answers its SYN, as a slow network would for a while
        client.setblocking(False)
        client.connect_ex((service.host, service.port))
        drained = asyncio.create_task(service.service.stop())
        await service.until(lambda: service.service.ready() == (False, "draining"))
        client.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
        loop = asyncio.get_running_loop()
        await service.until(lambda: is_connected(client))
        await loop.sock_sendall(client, KEPT)
        assert (await loop.sock_recv(client, 12)) == b"HTTP/1.1 200"
        assert await drained == 0


async def test_a_shared_listener_is_left_open_and_what_waited_in_it_is_answered(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=50) as ours:
        ours.setblocking(False)
        service = Service(
            Settings(admin_port=0, work_units=1, offload="inline"), listener=ours.dup(), admin=False
        )
        await service.start()
        assert service.parts.admin_address == ""
        clients = [socket.create_connection(ours.getsockname()) for _ in range(20)]
        for client in clients:
            client.sendall(KEPT)
        assert await service.stop() == 0
        for client in clients:
            assert client.recv(12) == b"HTTP/1.1 200"
            client.close()
        late = socket.create_connection(ours.getsockname())  # for whoever goes on with the listener
        assert tcp.backlog(ours)[0] == 1
        late.close()
    del start


async def test_a_listener_that_was_handed_over_is_served_with_the_backlog_it_has(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=37) as ours:
        service = await start(adopt(ours.dup().detach()), backlog=99)
        assert service.port == ours.getsockname()[1]
        assert b"200 OK" in await service.get()
        assert tcp.backlog(ours)[1] == 37


def datagram() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    return sock


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (socket.socket, "it does not listen"),
        (datagram, "it is no TCP socket"),
        (lambda: socket.socket(socket.AF_UNIX), "it is no TCP socket"),
    ],
    ids=["not listening", "udp", "unix"],
)
def test_a_descriptor_that_cannot_be_served_is_left_to_its_owner(
    make: Callable[[], socket.socket], says: str
) -> None:
    with make() as sock:
        with pytest.raises(OSError, match=says):
            adopt(sock.fileno())
        assert not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)  # still open


@pytest.mark.parametrize(("path", "again"), [("healthz", "ok"), ("readyz", "serving")])
async def test_a_loop_that_stalls_is_neither_alive_nor_ready_while_metrics_are_served(
    start: Start, path: str, again: str
) -> None:
    service = await start(loop_stall=0.3)
    blocked_since, answered = time.monotonic(), threading.Event()

    def probe() -> tuple[int, str]:
        while time.monotonic() - blocked_since < 60:
            try:
                urlopen(f"{service.admin_url}/{path}").close()
            except HTTPError as error:
                with error:
                    urlopen(f"{service.admin_url}/metrics").close()
                    answered.set()
                    return error.code, error.read().decode()
        return 200, ""

    probing = asyncio.get_running_loop().run_in_executor(None, probe)
    was_told_meanwhile = answered.wait(30)  # the handler that blocks
    code, why = await probing
    assert was_told_meanwhile, "while it was blocked, and not because it had been"
    assert code == 503
    assert "has not turned for" in why
    probe_of = {"healthz": service.service.alive, "readyz": service.service.ready}[path]
    await eventually(lambda: asyncio.to_thread(lambda: probe_of() == (True, again)))


async def test_who_asks_on_the_loop_itself_is_told_that_it_turns(start: Start) -> None:
    service = await start(loop_stall=0.05)
    time.sleep(0.1)  # noqa: ASYNC251
    assert service.service.ready() == (True, "serving")  # /readyz of the main port, the heartbeat
    assert elsewhere(service.service.ready)[0] is False


async def test_a_drain_is_alive_even_if_its_loop_stalls(start: Start) -> None:
    service = await start(loop_stall=0.05, drain_notice=60)
    notice = asyncio.create_task(service.service.lame_duck())
    await service.until(lambda: not service.service.ready()[0])
    time.sleep(0.1)  # noqa: ASYNC251
    assert elsewhere(service.service.alive) == (True, "ok")
    service.service.broken.set()
    await notice
    await service.service.stop()


def issue(ca: trustme.CA, folder: Path, name: str) -> None:
    made = ca.issue_cert(name)
    made.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    made.private_key_pem.write_to_path(folder / "key.pem")


async def served_name(service: object, ca: trustme.CA) -> str:
    client = ssl.create_default_context()
    client.check_hostname = False
    ca.configure_trust(client)
    reader, writer = await asyncio.open_connection(
        service.host,  # type: ignore[attr-defined]
        service.port,  # type: ignore[attr-defined]
        ssl=client,
    )
    names = writer.get_extra_info("peercert")["subjectAltName"]
    writer.close()
    del reader
    return str(names[0][1])


async def test_a_reload_takes_the_new_certificate_and_a_bad_pair_leaves_the_old_one(
    start: Start, tmp_path: Path
) -> None:
    ca = trustme.CA()
    issue(ca, tmp_path, "first.test")
    service = await start(tls_cert=tmp_path / "cert.pem", tls_key=tmp_path / "key.pem")
    assert await served_name(service, ca) == "first.test"
    issue(ca, tmp_path, "second.test")
    await service.service.reload(service.service.settings)
    assert await served_name(service, ca) == "second.test"
    (tmp_path / "key.pem").write_text("rubbish")
    await service.service.reload(service.service.settings)
    assert await served_name(service, ca) == "second.test"


async def test_a_reload_changes_the_limit_and_nothing_that_needs_a_restart(start: Start) -> None:
    service = await start(max_connections=1)
    first, second = await service.connect(), await service.connect()
    first[1].write(KEPT)
    await head(first[0])
    await service.until(lambda: service.service.parts.connection_limit.at_capacity)
    await service.service.reload(
        service.service.settings.model_copy(update={"max_connections": 2, "accept_batch": 7})
    )
    second[1].write(KEPT)
    assert b"200 ok" in await head(second[0])
    assert service.service.settings.max_connections == 2
    assert service.service.settings.accept_batch != 7
    for _, writer in (first, second):
        writer.close()


async def test_a_reload_without_a_change_changes_nothing(start: Start) -> None:
    service = await start()
    limit = service.service.parts.connection_limit.limit
    await service.service.reload(service.service.settings)
    assert service.service.parts.connection_limit.limit == limit
    assert b"200 OK" in await service.get()


async def test_no_reload_switches_encryption_on_or_off(start: Start, tmp_path: Path) -> None:
    issue(trustme.CA(), tmp_path, "late.test")
    files = {"tls_cert": tmp_path / "cert.pem", "tls_key": tmp_path / "key.pem"}
    service = await start()
    await service.service.reload(service.service.settings.model_copy(update=files))
    assert b"200 OK" in await service.get()
    assert service.service.settings.tls_cert is None


async def test_a_reload_that_fails_does_not_end_the_reloading() -> None:
    settings = Settings(port=0, admin_port=0, work_units=1, offload="inline", max_connections=50)
    metrics, control = Metrics(), Control(force=lambda: None)
    found: list[Settings] = []
    failed = asyncio.Event()

    def reread() -> Settings:
        if not found:
            failed.set()
        return found.pop()  # an IndexError at first

    def limit() -> float:
        return metrics.registry.get_sample_value("http_connections_limit") or 0

    serving = asyncio.create_task(serve(Service(settings, metrics=metrics), control, reread=reread))
    async with asyncio.timeout(20):
        await eventually(lambda: limit() == 50)
        control.reload()
        await failed.wait()
        found.append(settings.model_copy(update={"max_connections": 70}))
        control.reload()
        await eventually(lambda: limit() == 70)
        control.stop(Event.INTERRUPT)
        assert await serving == 0


async def test_who_calls_serve_is_told_of_the_start_and_keeps_its_garbage_collector() -> None:
    settings = Settings(port=0, admin_port=0, work_units=1, offload="inline")
    service, control = Service(settings), Control(force=lambda: None)
    threshold, frozen = gc.get_threshold(), gc.get_freeze_count()
    states: list[State] = []

    def started() -> None:
        states.append(service.life.state)
        control.stop(Event.INTERRUPT)

    async with asyncio.timeout(20):
        assert await serve(service, control, started=started) == 0
    assert states == [State.SERVING]
    assert gc.get_threshold() == threshold
    assert gc.get_freeze_count() <= frozen  # what an earlier test has frozen may die, but nothing is added


@pytest.mark.parametrize("host", ["host", "admin_host"])
async def test_a_resolver_that_does_not_answer_leaves_the_order_to_stop_heard(
    monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    resolve, asked, answer = socket.getaddrinfo, threading.Event(), threading.Event()
    answered: list[str] = []

    def stall(name: str, *arguments: Any, **more: Any) -> Any:
        if name == "stalled.test":
            asked.set()
            answer.wait(10)
            answered.append(name)
            raise socket.gaierror(socket.EAI_AGAIN, "no answer")
        return resolve(name, *arguments, **more)

    monkeypatch.setattr(socket, "getaddrinfo", stall)
    settings = Settings.model_validate(
        {"port": 0, "admin_port": 0, "work_units": 1, "offload": "inline", host: "stalled.test"}
    )
    control = Control(force=lambda: None)
    serving = asyncio.create_task(serve(Service(settings), control))
    await eventually(asked.is_set)
    control.stop(Event.TERMINATE)
    assert await serving == 0
    assert not answered
    answer.set()
    await eventually(lambda: answered)


async def test_an_application_that_does_not_clean_up_in_time_is_cut_off(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = data.data_app

    async def linger(_: web.Application) -> None:
        await asyncio.sleep(60)

    def build_lingering(*arguments: Any) -> web.Application:
        made = build(*arguments)
        made.on_cleanup.append(linger)
        return made

    monkeypatch.setattr(data, "data_app", build_lingering)
    service = await start(drain_timeout=0.2)
    assert await service.service.stop() == 1
