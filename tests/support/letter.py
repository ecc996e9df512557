"""Whether answers keep to the letter of HTTP, as h11 reads it: a parser that shares no code with ours."""

from __future__ import annotations

from email.utils import parsedate_to_datetime

import h11

FINAL = 200


def check(sent: bytes, answer: bytes, *, is_whole: bool = False) -> None:
    """Assert that `answer` is one valid response after another, each final one with its Date and Server.

    Args:
        sent: all requests of the connection: with a HEAD among them, a response may lack its body.
        is_whole: whether the connection has ended, and so must the last response.
    """
    fault = _fault(answer, may_be_head=b"HEAD" in sent, is_whole=is_whole)
    assert fault is None, (fault, sent, answer)


def _fault(answer: bytes, *, may_be_head: bool, is_whole: bool) -> str | None:
    """What is wrong; of several readings (GET or HEAD), the first that is right decides."""
    if not answer:
        return None
    found = None
    for method in ("GET", "HEAD")[: 1 + may_be_head]:
        try:
            rest = _after_one(method, answer, is_whole=is_whole)
        except (h11.RemoteProtocolError, AssertionError, ValueError) as error:
            found = found or f"{type(error).__name__}: {error}"
            continue
        following = _fault(rest, may_be_head=may_be_head, is_whole=is_whole)
        if following is None:
            return None
        found = found or following
    return found


def _after_one(method: str, answer: bytes, *, is_whole: bool) -> bytes:
    """Read one final response with those that announce it; what follows it."""
    client = h11.Connection(our_role=h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("Host", "t")]))
    client.send(h11.EndOfMessage())
    client.receive_data(answer)
    if is_whole:
        client.receive_data(b"")
    while not isinstance(event := client.next_event(), h11.EndOfMessage):
        if event is h11.NEED_DATA:
            return b""
        assert not isinstance(event, h11.ConnectionClosed), "the response does not end"
        if isinstance(event, h11.Response):
            _check_head(event)
    rest, _ = client.trailing_data
    assert not rest or client.their_state is h11.DONE, "bytes behind the last response"
    return rest


def _check_head(response: h11.Response) -> None:
    names = [name for name, _ in response.headers]
    for name in (b"date", b"server"):
        assert names.count(name) == 1, f"{names.count(name)} times {name.decode()}"
    date = dict(response.headers)[b"date"].decode()
    assert date.endswith(" GMT"), date
    parsedate_to_datetime(date)
