"""HTTP to the letter: versions, the Host field, the Date of every answer (RFC 9110, RFC 9112)."""

from __future__ import annotations

import re

import pytest

from tests.support.letter import check
from tests.support.running import Running, Start, status_of

HOST = b"Host: t\r\n"


async def answer_to(service: Running, sent: bytes) -> bytes:
    """The answer to one request, of which h11 holds the letter."""
    answer = await service.exchange(sent)
    check(sent, answer, is_whole=True)
    return answer


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /data\r\n\r\n", 400),
        (b"GET /data HTTP/0.9\r\n\r\n", 400),
        (b"GET /data HTTP/2.0\r\nHost: t\r\n\r\n", 505),
        (b"HEAD /data HTTP/2.0\r\nHost: t\r\n\r\n", 505),
        (b"GET /data HTTP/2.0\r\n\r\n", 505),
        (b"GET /data HTTP/2.0\r\nHost: t\r\nExpect: 100-continue\r\n\r\n", 505),
        (b"GET /data HTTP/2.0\r\nHost: t\r\nExpect: magic\r\n\r\n", 505),
        (b"GET /nowhere HTTP/2.0\r\nHost: t\r\nConnection: keep-alive\r\n\r\n", 505),
        (b"POST /data HTTP/2.0\r\nHost: t\r\nContent-Length: 5\r\n\r\nhello", 505),
        (b"GET /data HTTP/1.2\r\nHost: t\r\n\r\n", 400),
        (b"GET /data HTTP/3.0\r\nHost: t\r\n\r\n", 400),
        (b"GET /data HTTP/1.0\r\n\r\n", 200),
        (b"GET /data HTTP/1.0\r\nHost: a b\r\n\r\n", 400),
        (b"GET http://t/data HTTP/1.1\r\nHost: t/\r\nConnection: close\r\n\r\n", 400),
    ],
)
async def test_a_version_that_is_not_ours_is_refused_in_ours(start: Start, sent: bytes, status: int) -> None:
    service = await start()
    answer = await answer_to(service, sent)
    assert status_of(answer) == status
    assert answer.count(b"HTTP/") == 1
    if status == 505:
        assert answer.startswith(b"HTTP/1.1 ")
        values = await service.scrape()
        assert sum(value for name, value in values.items() if "status=505" in name) == 1


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *((b"", 400), (HOST + HOST, 400), (HOST + b"host: other\r\n", 400)),
        *((b"Host: a b\r\n", 400), (b"Host: a/b\r\n", 400), (b"Host: user@t\r\n", 400)),
        *((b"Host: t:port\r\n", 400), (b"Host: t:1:2\r\n", 400), (b"Host: [::1\r\n", 400)),
        *((b"Host: [::1::]\r\n", 400), (b"Host: t%2\r\n", 400), (b"Host: t\xff\r\n", 400)),
        *((b"Host: a,b/\r\n", 400), (b"Host: http://t\r\n", 400), (b"Host: <t>\r\n", 400)),
        *((HOST, 200), (b"Host: t:80\r\n", 200), (b"Host: t:\r\n", 200), (b"Host: [::1]:80\r\n", 200)),
        *((b"Host: 127.0.0.1\r\n", 200), (b"Host: a_b.c-d~e\r\n", 200), (b"Host: t%20\r\n", 200)),
        *((b"Host:\r\n", 200), (b"Host: t \r\n", 200), (b"host:t\r\n", 200)),
    ],
)
async def test_a_request_names_one_host_that_can_be_one(start: Start, host: bytes, status: int) -> None:
    service = await start()
    sent = b"GET /data HTTP/1.1\r\n" + host + b"Connection: close\r\n\r\n"
    assert status_of(await answer_to(service, sent)) == status


@pytest.mark.parametrize(
    ("version", "coding", "statuses"),
    [
        *((b"1.1", b"chunked", [200, 200]), (b"1.1", b" Chunked ", [200, 200])),
        *((b"1.1", b"gzip, chunked", [501]), (b"1.1", b"identity, chunked", [501]), (b"1.1", b"", [400])),
        *((b"1.1", b"chunked, chunked", [400]), (b"1.1", b"gzip", [400]), (b"1.1", b"chunked, gzip", [400])),
        *((b"1.0", b"chunked", [400]), (b"1.0", b"gzip, chunked", [400])),
    ],
)
async def test_what_is_behind_a_body_in_an_unknown_coding_is_no_request(
    start: Start, version: bytes, coding: bytes, statuses: list[int]
) -> None:
    service = await start()
    head = b"GET /data HTTP/" + version + b"\r\nHost: t\r\nConnection: keep-alive\r\nTransfer-Encoding:"
    behind = b"GET /data HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"
    answer = await answer_to(service, head + coding + b"\r\n\r\n0\r\n\r\n" + behind)
    assert [status_of(each) for each in re.findall(rb"HTTP/1.[01] \d+ ", answer)] == statuses


async def test_a_refused_request_is_the_last_of_its_connection(start: Start) -> None:
    service = await start()
    good = b"GET /data HTTP/1.1\r\nHost: t\r\n\r\n"
    for bad in (good.replace(b"t\r\n\r", b"a b\r\n\r") + good, good.replace(b"1.1", b"2.0")):
        answer = await answer_to(service, good + bad)
        assert answer.count(b"HTTP/1.1 200 OK") == 1
        assert answer.count(b"HTTP/1.1 ") == 2
