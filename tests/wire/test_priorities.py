"""Who is served first under overload, who has to leave, and that one client cannot have all places."""

from __future__ import annotations

import asyncio
import re

import pytest
from aiohttp import web

from service.app.loading import StartError
from service.app.offloader import Offloader
from service.web.early_reject import EarlyReject, Verdict
from tests import work
from tests.support.running import Running, Start, status_of

URGENT = "Priority: u=0\r\n"
PATIENT = "Priority: u=7\r\n"
TRUSTED = {"trust_priority": "127.0.0.0/8"}


@pytest.fixture(params=["early", "parsed"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Whether requests are checked before HTTP is parsed, or by the handler alone."""
    if request.param == "parsed":
        monkeypatch.setattr(EarlyReject, "__call__", lambda *_: Verdict.PASSED)
    return str(request.param)


def two_routes(offload: Offloader) -> web.Application:
    """Every GET of /first and of /users/{name} waits at the gate."""

    async def wait(request: web.Request) -> web.Response:
        return web.Response(body=await offload(request, work.waits_at_the_gate, 2))

    app = web.Application()
    app.router.add_get("/first", wait)
    app.router.add_get("/users/{name}", wait)
    offload.always.add("/first")
    return app


async def ask(service: Running, head: str = "", path: str = "/data", source: str = "127.0.0.1") -> bytes:
    """The answer to a client of this address."""
    reader, writer = await asyncio.open_connection(service.host, service.port, local_addr=(source, 0))
    writer.write(f"GET {path} HTTP/1.1\r\nHost: t\r\n{head}Connection: close\r\n\r\n".encode())
    try:
        return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


def waiting(service: Running) -> dict[int, int]:
    """How many tasks wait, by urgency."""
    classes = service.service.parts.offload._queue._classes
    return {one.urgency: len(one.tasks) for one in classes.in_order if one.tasks}


async def at_the_gate(service: Running, *clients: tuple[str, str, str]) -> list[asyncio.Task[bytes]]:
    """Clients, one after the other: the first runs, the others wait. Each: head, path and address."""
    offload = service.service.parts.offload
    for client in clients:
        before = offload.running + offload.waiting
        service.clients.append(asyncio.create_task(ask(service, *client)))
        await service.until(lambda before=before: offload.running + offload.waiting > before)  # type: ignore[misc]
    return service.clients


async def gated(start: Start, **settings: object) -> Running:
    """A service of which a queue wait of 20 s lets four wait: units that no pause of the machine reaches."""
    work_at_gate = {} if "app" in settings else {"work": "tests.work:waits_at_the_gate"}
    service = await start(offload="thread", workers=1, deadline="off", **work_at_gate, **settings)
    service.service.parts.offload._queue.admission.seconds = 5.0
    return service


def is_refused(answer: bytes) -> bool:
    """Whether it is a 503 that says when to ask again; nothing of a priority is echoed."""
    assert b"riority" not in answer
    return status_of(answer) == 503 and re.search(rb"\r\nRetry-After: [1-9]\d*\r\n", answer) is not None


@pytest.mark.usefixtures("gate")
@pytest.mark.parametrize("trusted", ["none", "10.0.0.0/8", "127.0.0.0/8"])
async def test_one_that_is_more_urgent_gets_the_place_of_another_if_its_client_is_trusted(
    start: Start, way: str, trusted: str
) -> None:
    service = await gated(start, queue_wait=1e-9, trust_priority=trusted)
    running, other = await at_the_gate(service, ("", "/data", "127.0.0.1"), ("", "/data", "127.0.0.1"))
    asked = asyncio.create_task(ask(service, URGENT))
    loser, winner = (other, asked) if trusted == "127.0.0.0/8" else (asked, other)
    answer = await loser
    assert is_refused(answer)
    is_cheap = b"X-Request-ID:" not in answer
    assert is_cheap == (way == "early" and loser is asked), "one that has waited is answered by its handler"
    assert not winner.done()
    work.gate.set()
    assert [status_of(await one) for one in (running, winner)] == [200, 200]
    values = await service.scrape()
    lost, won = (3, 0) if trusted == "127.0.0.0/8" else (3, 3)
    by = "offload_tasks_by_urgency_total"
    assert values[f"{by}{{outcome=rejected,urgency={lost}}}"] == 1
    assert values[f"{by}{{outcome=completed,urgency={won}}}"] == (1 if won == 0 else 2)
    assert values["offload_tasks_total{outcome=rejected}"] == 1


@pytest.mark.usefixtures("gate", "way")
async def test_one_that_is_less_urgent_is_refused_first(start: Start) -> None:
    service = await gated(start, queue_wait=20, **TRUSTED)
    await at_the_gate(service, *[("", "/data", "127.0.0.1")] * 5)
    assert waiting(service) == {3: 4}
    assert is_refused(await ask(service, PATIENT))
    assert is_refused(await ask(service))
    assert is_refused(await ask(service, "Priority: u=nonsense\r\n"))
    *_, last = service.clients
    service.clients.append(asyncio.create_task(ask(service, URGENT)))
    assert is_refused(await last)
    assert waiting(service) == {0: 1, 3: 3}
    values = await service.scrape()
    assert (values["offload_waiting{urgency=0}"], values["offload_waiting{urgency=3}"]) == (1, 3)
    work.gate.set()
    answers = [status_of(one) for one in await asyncio.gather(*service.clients)]
    assert sorted(answers) == [200] * 5 + [503]


@pytest.mark.usefixtures("gate", "way")
async def test_the_urgency_of_a_route_needs_nobodys_trust(start: Start) -> None:
    service = await gated(
        start,
        app=f"{__name__}:two_routes",
        queue_wait=1e-9,
        route_urgency="/first=1, /users/{name}=6",
    )
    _, other = await at_the_gate(
        service, (URGENT, "/users/me", "127.0.0.1"), (URGENT, "/users/you", "127.0.0.1")
    )
    assert waiting(service) == {6: 1}
    assert is_refused(await ask(service, URGENT, "/users/they"))
    first = asyncio.create_task(ask(service, PATIENT, "/first"))
    assert is_refused(await other)
    assert waiting(service) == {1: 1}
    work.gate.set()
    assert status_of(await first) == 200


@pytest.mark.usefixtures("gate", "way")
async def test_one_client_has_its_share_of_the_places_and_others_the_rest(start: Start) -> None:
    service = await gated(start, queue_wait=20, client_share=0.5)
    offload = service.service.parts.offload
    greedy, other = ("", "/data", "127.0.0.2"), ("", "/data", "127.0.0.3")
    await at_the_gate(service, greedy, greedy, greedy)
    for _ in range(3):
        assert is_refused(await ask(service, *greedy))
    await at_the_gate(service, other, other)
    assert is_refused(await ask(service, *other))
    assert is_refused(await ask(service, *greedy))
    assert waiting(service) == {3: 4}
    held = offload._queue._classes.of(3).held
    assert held == {"127.0.0.2": 2, "127.0.0.3": 2}
    work.gate.set()
    assert [status_of(one) for one in await asyncio.gather(*service.clients)] == [200] * 5
    assert held == {}
    assert not offload._queue._classes.of(3).places
    assert (await service.scrape())["offload_tasks_total{outcome=rejected}"] == 5


@pytest.mark.usefixtures("gate")
async def test_one_that_leaves_while_it_waits_gives_its_share_back(start: Start) -> None:
    service = await gated(start, queue_wait=20, client_share=0.01)
    greedy = ("", "/data", "127.0.0.2")
    _, leaver = await at_the_gate(service, greedy, greedy)
    assert is_refused(await ask(service, *greedy))
    leaver.cancel()
    await service.until(lambda: not waiting(service))
    service.clients.remove(leaver)
    await at_the_gate(service, greedy)
    work.gate.set()
    assert [status_of(one) for one in await asyncio.gather(*service.clients)] == [200, 200]


async def test_an_urgency_for_what_is_no_route_ends_the_start(start: Start) -> None:
    with pytest.raises(StartError, match="--route-urgency names /first,"):
        await start(route_urgency="/data=1,/first=2")


def always_as_no_route(offload: Offloader) -> web.Application:
    """What the early check would take for another route than the handler does."""
    app = two_routes(offload)
    offload.always.add("/users/me")
    return app


async def test_a_path_that_is_no_route_by_its_name_ends_the_start_where_routes_have_urgencies(
    start: Start,
) -> None:
    factory = f"{__name__}:always_as_no_route"
    with pytest.raises(StartError, match=r"offload\.always must name routes as they were added: /users/me"):
        await start(app=factory, route_urgency="/first=1")
    await start(app=factory)
