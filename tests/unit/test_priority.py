"""How urgent a request is: tables of headers, routes and addresses in, ranks out."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from aiohttp import web

from service.app.loading import StartError, check_routes
from service.config.settings import Settings
from service.offload.task import Rank
from service.web.priority import Ranks, urgency_in


# From RFC 9218, 4 and RFC 8941, 3 and 4, and not from the code.
@pytest.mark.parametrize(
    ("field", "urgency"),
    [
        ("u=0", 0),
        ("u=7", 7),
        ("u=5, i", 5),
        ("i, u=1", 1),
        ("i=?0,u=1", 1),
        ("u=1 ,\ti", 1),
        (" u=2 ", 2),
        ("u=2;x;y=1", 2),
        ("u=007", 7),
        ("u=-0", 0),
        ("u=1, u=6", 6),
        ("u=1, u=9", None),  # the last one counts, and it is none
        ('x="u=1, u=2", u=3', 3),
        (r'x="\"", u=3', 3),
        ("x=(1 2;a u);b, u=4", 4),
        ("x=(), u=4", 4),
        ("x=:aGk=:, y=a/b:c, z=1.5, u=4", 4),
        ("", None),
        ("i", None),
        ("u", None),  # a boolean
        ("u=8", None),
        ("u=-1", None),
        ("u=10", None),
        ("u=1.0", None),
        ('u="1"', None),
        ("u=?1", None),
        ("u=high", None),
        ("u=(1)", None),
        ("v=1", None),
        # What is no dictionary says nothing at all.
        ("U=1", None),
        ("u=1,", None),
        (",u=1", None),
        ("u=1 i", None),
        ("u=1;", None),
        ("u = 1", None),
        ("u=", None),
        ("u=1, x=1.", None),
        ("u=1, x=(1", None),
        ("u=1, x=(u=2)", None),
        ('u=1, x="', None),
        ("u=1, x=1234567890123456", None),
        ("u=1, \xe9", None),
        ("u=\u0661", None),  # a digit, elsewhere
    ],
)
def test_a_priority_header_says_an_urgency_or_nothing(field: str, urgency: int | None) -> None:
    assert urgency_in(field) == urgency


def test_a_long_header_that_is_no_dictionary_takes_no_time() -> None:
    for item in ("a;a", "(a a", 'x="', "x=(1 1;a", "a=aaaa"):
        assert urgency_in("u=1, " + item * 8000 + "\0") is None  # else this test would not end


@pytest.mark.parametrize(
    ("route", "host", "said", "rank"),
    [
        ("/data", "192.0.2.1", "u=0", Rank(5)),
        ("/data", "10.0.0.1", "u=0", Rank(0)),
        ("/data", "::ffff:10.0.0.1", "u=0", Rank(0)),
        ("/data", "10.0.0.1", "", Rank(5)),
        ("/data", "10.0.0.1", "u=9", Rank(5)),
        ("/data", "10.0.0.1", "i", Rank(5)),
        ("/other", "10.0.0.1", "u=9", Rank(3)),
        ("/other", "192.0.2.1", "u=0", Rank(3)),
        (None, "192.0.2.1", "u=0", Rank(3)),
        (None, "10.0.0.1", "u=1", Rank(1)),
        ("/data", "", "u=0", Rank(5)),  # a Unix socket
    ],
)
def test_the_header_counts_from_whom_is_trusted_and_the_route_from_all(
    route: str | None, host: str, said: str, rank: Rank
) -> None:
    ranks = Ranks({"/data": 5}, (ip_network("10.0.0.0/8"),))
    assert ranks.of(route, host, lambda: said) == rank
    assert not ranks.are_alike


@pytest.mark.parametrize(
    ("host", "client"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", bytes.fromhex("20010db800000000")),
        ("", None),
    ],
)
def test_clients_are_those_whose_connections_are_counted(host: str, client: str | bytes | None) -> None:
    assert Ranks(by_client=True).of("/data", host, str) == Rank(3, client)


def test_where_all_are_alike_nothing_is_looked_at() -> None:
    ranks = Ranks()
    assert ranks.are_alike
    assert ranks.of("/data", "10.0.0.1", lambda: pytest.fail("it was asked")) == Rank()
    by_route = Ranks({"/data": 0})
    assert by_route.of("/data", "10.0.0.1", lambda: pytest.fail("it was asked")) == Rank(0)


@pytest.mark.parametrize("route", ["/data", "/users/{name}", "/api/{version}/data"])
def test_an_urgency_may_be_given_to_any_route_and_to_nothing_else(route: str) -> None:
    async def handler(_: web.Request) -> web.Response:
        raise NotImplementedError

    api, app = web.Application(), web.Application()
    api.router.add_get("/{version:v[0-9]}/data", handler)
    app.router.add_get("/data", handler)
    app.router.add_get(r"/users/{name}", handler)
    app.add_subapp("/api", api)
    check_routes(app, Settings.model_validate({"route_urgency": f"{route}=1"}), ())
    with pytest.raises(StartError, match=f"names {route}/, which is no route"):
        check_routes(app, Settings.model_validate({"route_urgency": f"/data=1,{route}/=1"}), ())
