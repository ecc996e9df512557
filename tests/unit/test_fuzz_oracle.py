"""The oracle of `make fuzz`: what counts as a difference, and that one in no row is told."""

from __future__ import annotations

import pytest

from tests.proofs.fuzz_oracle import ONLY_H11, ONLY_H11_ROWS, ROWS, difference, read_by_h11
from tests.support import letter

GET = b"GET /data HTTP/1.1\r\nHost: t\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nServer: s\r\nDate: Fri, 27 Nov 2026 20:35:14 GMT\r\nContent-Length: 2\r\n\r\n{}"


@pytest.mark.parametrize(
    ("raw", "statuses", "row"),
    [
        (GET, ["200"], None),
        (GET, ["503"], None),
        (GET + b"\r\n\n" + GET, ["200", "200"], None),
        (GET[:9], [], None),
        (GET.replace(b"Host: t\r\n", b""), ["400"], None),
        # What ours took before it looked at versions, hosts and codings.
        (b"GET /data\r\n\r\n", ["200"], ONLY_H11),
        (GET + b"GET /data\r\n\r\n", ["200", "200"], ONLY_H11),
        (b"GET  /data\r\n\r\n", ["200"], ONLY_H11),
        (GET.replace(b"/data ", b"/data  "), ["200"], "spaces"),
        (GET.replace(b": t", b" t"), ["200"], ONLY_H11),
        (GET[:-2] + b"Transfer-Encoding: identity, chunked\r\n\r\n", ["200"], ONLY_H11),
        (GET.replace(b"GET", b"BREW"), ["400"], "method"),
        (GET.replace(b"/data", b"*"), ["400"], "target"),
        (GET.replace(b"1.1", b"2.0"), ["505"], "version"),
        (GET.replace(b"1.1", b"1.2"), ["400"], "version"),
        (GET.replace(b"\r", b""), ["400"], "version"),
        (GET.replace(b"t\r", b"t"), ["400"], "line end"),
        (GET[:-2] + b" A: b\r\n\r\n", ["400"], "field"),
        (GET[:-2] + b"Content-Length: 0\r\nContent-Length: 0\r\n\r\n", ["400"], "framing"),
        (GET[:-2] + b"ETag: 1\r\nETag: 2\r\n\r\n", ["400"], "singleton"),
        (GET[:-2] + b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n", ["400"], "framing"),
        (GET[:-2] + b"Transfer-Encoding: chunked\r\n\r\nx", ["400"], "chunk"),
        (GET[:-2] + b"Connection: close\r\n\r\n" + GET, ["400"], "after the last"),
        (GET.replace(b": t", b": a b"), ["400"], "host or coding"),
        (GET.replace(b"1.1", b"1.0")[:-2] + b"Transfer-Encoding: chunked\r\n\r\n", ["400"], "host or coding"),
        (GET[:-2] + b"Content-Encoding: deflate\r\nContent-Length: 1\r\n\r\n\0", ["400"], "content coding"),
        (GET[:-2] + b"Content-Encoding: br\r\nContent-Length: 1\r\n\r\n\0", ["400"], "content coding"),
        (GET[:-2] + b"Expect: magic\r\n\r\n", ["417"], "expectation"),
        (GET, ["431"], "in no row"),
    ],
)
def test_a_difference_is_told_by_its_row(raw: bytes, statuses: list[str], row: str | None) -> None:
    found = difference(read_by_h11(raw), raw, statuses)
    assert (found and found[0]) == row


@pytest.mark.parametrize(
    ("raw", "answers"),
    [
        (b"", 0),
        (GET[:9], 0),
        (GET, 1),
        (GET + GET[:9], 1),
        (GET + GET, 2),
        (GET + b"GET\r\n\r\n", 2),
        (b"\xff\r\n\r\n", 1),
        (GET[:-2] + b"Connection: close\r\n\r\n" + GET, 1),
        (GET.replace(b"1.1", b"1.0") + GET, 1),
        (GET[:-2] + b"Content-Length: 2\r\n\r\nx", 0),
    ],
)
def test_every_whole_request_and_the_refusal_is_owed_an_answer(raw: bytes, answers: int) -> None:
    assert read_by_h11(raw).answers == answers


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (GET, OK.replace(b"Server: s\r\n", b"")),
        (GET, OK.replace(b"Date", b"Data")),
        (GET, OK.replace(b"GMT", b"CET")),
        (GET, OK + b"HTTP/0.9\r\n\r\n"),
        (GET, OK.replace(b"1.1", b"two")),
        (GET, OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") + OK),
        (GET, OK[:-2] + OK + b"rest"),
    ],
)
def test_an_answer_that_is_not_http_is_found(sent: bytes, answer: bytes) -> None:
    letter.check(GET, OK + OK)
    letter.check(GET.replace(b"GET", b"HEAD") + GET, OK[:-2] + OK)
    letter.check(GET, OK[:-1])
    with pytest.raises(AssertionError):
        letter.check(sent, answer)
    with pytest.raises(AssertionError):
        letter.check(GET, OK[:-1], is_whole=True)


def test_every_row_is_tried_above_and_argued() -> None:
    tried = {row for *_, row in test_a_difference_is_told_by_its_row.pytestmark[0].args[1]}  # type: ignore[attr-defined]
    assert {one.name for one in (*ROWS, *ONLY_H11_ROWS)} <= tried
    assert all(len(one.argument) > 40 for one in (*ROWS, *ONLY_H11_ROWS))
