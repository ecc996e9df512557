"""Names: which of a client's are taken, which are made, and what a trace's parent may look like."""

from __future__ import annotations

import itertools

import pytest

from service.web.identity import connection_ids, request_id, traceparent

TRACE = "12345678901234567890123456789012"
PARENT = "1234567890123456"
VALID = f"00-{TRACE}-{PARENT}-01"


@pytest.mark.parametrize(
    "said",
    [
        "1",
        "550e8400-e29b-41d4-a716-446655440000",
        "01ARZ3NDEKTSV4RRFFQ69G5FAV",
        "Root=1-67891233-abcdef012345678912345678",
        "dGhpcyBpcyBhbiBpZA==",
        "svc/a@host:8080_b.c+d",
        "x" * 128,
    ],
)
def test_a_harmless_id_is_the_requests_own(said: str) -> None:
    assert request_id(said) == said


@pytest.mark.parametrize(
    "said",
    [None, "", "x" * 129, "a b", "a\n", "a\r\nSet-Cookie: b", "\x1b[31m", "<script>", 'a"b', "a;b", "é", "٣"],
)
def test_any_other_is_replaced_by_a_new_one(said: str | None) -> None:
    made = {request_id(said) for _ in range(100)}
    assert len(made) == 100
    assert said not in made
    assert all(request_id(one) == one for one in made)


def test_connections_are_named_apart_within_a_process_and_across() -> None:
    ours, theirs = connection_ids(), connection_ids()
    names = [*itertools.islice(ours, 1000), *itertools.islice(theirs, 1000)]
    assert len(set(names)) == 2000
    assert max(map(len, names)) <= 16


# Most rows are those of the specification's own test suite: github.com/w3c/trace-context, test/test.py.
@pytest.mark.parametrize(
    ("said", "taken"),
    [
        (VALID, VALID),
        (f"00-{TRACE}-{PARENT}-00", f"00-{TRACE}-{PARENT}-00"),
        (f"00-{TRACE}-{PARENT}-ff", f"00-{TRACE}-{PARENT}-ff"),  # flags that we do not know are no error
        (f"00-{TRACE}-{PARENT}-01.", None),
        (f"00-{TRACE}-{PARENT}-01-what-the-future-will-be-like", None),  # version 00 ends here
        (f"cc-{TRACE}-{PARENT}-01", VALID),
        (f"cc-{TRACE}-{PARENT}-01-what-the-future-will-be-like", VALID),
        (f"cc-{TRACE}-{PARENT}-fe", f"00-{TRACE}-{PARENT}-00"),  # of its flags only the one we know
        (f"cc-{TRACE}-{PARENT}-01.what-the-future-will-be-like", None),
        (f"cc-{TRACE}-{PARENT}-0", None),
        (f"ff-{TRACE}-{PARENT}-01", None),
        (f".0-{TRACE}-{PARENT}-01", None),
        (f"0.-{TRACE}-{PARENT}-01", None),
        (f"000-{TRACE}-{PARENT}-01", None),
        (f"0-{TRACE}-{PARENT}-01", None),
        (f"00-{'0' * 32}-{PARENT}-01", None),
        (f"cc-{'0' * 32}-{PARENT}-01", None),
        (f"00-.{TRACE[1:]}-{PARENT}-01", None),
        (f"00-{TRACE}3-{PARENT}-01", None),
        (f"00-{TRACE[1:]}-{PARENT}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE}-.{PARENT[1:]}-01", None),
        (f"00-{TRACE}-{PARENT}7-01", None),
        (f"00-{TRACE}-{PARENT[1:]}-01", None),
        (f"00-{TRACE}-{PARENT}-.0", None),
        (f"00-{TRACE}-{PARENT}-001", None),
        (f"00-{TRACE}-{PARENT}-1", None),
        (f"00-{TRACE}-{PARENT}", None),
        (f"00-{'A' * 32}-{PARENT}-01", None),  # lower case only
        (f"00-{TRACE}-{'B' * 16}-01", None),
        (f"CC-{TRACE}-{PARENT}-01", None),
        (f"00-{'٣' * 32}-{PARENT}-01", None),  # digits, but not ours
        (f"{VALID}\n", None),
        (f"{VALID}, {VALID}", None),
        ("", None),
    ],
)
def test_a_traceparent_is_taken_as_the_specification_says(said: str, taken: str | None) -> None:
    assert traceparent([said]) == taken


def test_none_or_two_traceparents_are_no_parent() -> None:
    assert traceparent([]) is None
    assert traceparent([VALID, VALID]) is None
