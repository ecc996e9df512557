"""Where an HTTP answer ends: each case whole and byte by byte."""

import pytest

from loadtests.load.answer import Answer, KeptAnswer

LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
BARE = b"HTTP/1.1 204 No Content\r\n\r\n"
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n" + LENGTH
UNTIL_CLOSE = b"HTTP/1.0 200 OK\r\n\r\n{}"


@pytest.mark.parametrize("size", [1, 7, 4096])
@pytest.mark.parametrize(
    ("data", "status"), [(LENGTH, 200), (CHUNKED, 200), (BARE, 204), (INTERIM, 200)]
)  # fmt: skip
def test_a_framed_answer_is_complete_with_its_last_byte_and_not_before(
    data: bytes, status: int, size: int
) -> None:
    answer = Answer(head_only=False)
    for start in range(0, len(data), size):
        assert not answer.complete
        assert answer.feed(data[start : start + size])
    assert answer.complete
    assert answer.status == status


def test_an_answer_without_a_length_is_complete_when_the_server_closes() -> None:
    answer = Answer(head_only=False)
    assert answer.feed(UNTIL_CLOSE)
    assert not answer.complete
    answer.end()
    assert answer.complete


@pytest.mark.parametrize("data", [LENGTH[:-1], CHUNKED[:-1], UNTIL_CLOSE[:10], INTERIM[:30], b""])
def test_a_server_that_closes_early_leaves_the_answer_incomplete(data: bytes) -> None:
    answer = Answer(head_only=False)
    assert answer.feed(data)
    answer.end()
    assert not answer.complete


@pytest.mark.parametrize(
    "data", [b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 2x0 OK\r\n\r\n", CHUNKED.replace(b"2\r\n{", b"z\r\n{")]
)
def test_bytes_that_are_not_http_are_refused(data: bytes) -> None:
    assert not Answer(head_only=False).feed(data)


def test_an_answer_to_head_ends_with_its_head() -> None:
    answer = Answer(head_only=True)
    assert answer.feed(LENGTH[:-2])
    assert answer.complete


def test_what_follows_a_complete_answer_is_not_judged() -> None:
    answer = Answer(head_only=False)
    assert answer.feed(LENGTH + b"noise")
    assert answer.complete


def test_a_second_answer_is_not_taken_for_the_first() -> None:
    answer = Answer(head_only=False)
    kept = LENGTH.replace(b"Connection: close\r\n", b"")
    assert answer.feed(kept + kept.replace(b"200", b"503"))
    assert (answer.complete, answer.status) == (True, 200)


KEPT = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
POLITE = b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\n{}"


@pytest.mark.parametrize("size", [1, 4096])
@pytest.mark.parametrize(
    ("data", "keeps"),
    [
        (KEPT, True),
        (CHUNKED, True),
        (BARE, True),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + KEPT, True),
        (POLITE, True),
        (LENGTH, False),
        (INTERIM, False),
        (CHUNKED.replace(b"OK", b"OK\r\nconnection: x, Close"), False),
        (POLITE.replace(b"keep-alive", b"x"), False),
    ],
)
def test_an_answer_says_whether_its_connection_goes_on(data: bytes, keeps: bool, size: int) -> None:
    answer = KeptAnswer(head_only=False)
    for start in range(0, len(data), size):
        assert not answer.keeps
        assert answer.feed(data[start : start + size])
    assert (answer.complete, answer.keeps, answer.ends) == (True, keeps, not keeps)


@pytest.mark.parametrize(
    ("head", "keeps"),
    [
        (KEPT[:-2], True),
        (b"HTTP/1.1 200 OK\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nConnection: Close\r\n\r\n", False),
        (LENGTH[:-2], False),
        (b"HTTP/1.0 200 OK\r\n\r\n", False),
        (b"HTTP/1.1 103 Early Hints\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", True),
    ],
)
def test_an_answer_to_head_needs_no_length_for_its_connection_to_go_on(head: bytes, keeps: bool) -> None:
    answer = KeptAnswer(head_only=True)
    assert answer.feed(head)
    assert (answer.complete, answer.keeps, answer.ends) == (True, keeps, not keeps)


def test_the_server_ends_the_connection_of_an_answer_without_a_length_itself() -> None:
    answer = KeptAnswer(head_only=False)
    assert answer.feed(UNTIL_CLOSE)
    answer.end()
    assert (answer.complete, answer.keeps) == (True, False)


@pytest.mark.parametrize("more", [b"noise", KEPT, KEPT.replace(b"200", b"503")])
def test_bytes_behind_an_answer_are_nobodys_and_end_the_connection(more: bytes) -> None:
    answer = KeptAnswer(head_only=False)
    assert answer.feed(KEPT + more)
    assert (answer.complete, answer.status, answer.keeps, answer.ends) == (True, 200, False, False)


DATE = "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"


@pytest.mark.parametrize(
    ("head", "seconds"),
    [
        ("Retry-After: 120\r\n", 120.0),
        ("RETRY-AFTER:0\r\n", 0.0),
        (f"{DATE}Retry-After: Sun, 06 Nov 1994 08:50:07 GMT\r\n", 30.0),
        (f"{DATE}Retry-After: Sun, 06 Nov 1994 08:49:00 GMT\r\n", 0.0),  # has passed
        ("Retry-After: Sun, 06 Nov 1994 08:50:07 GMT\r\n", None),  # by whose clock?
        ("Retry-After: -1\r\n", None),
        ("Retry-After: 1.5\r\n", None),
        ("Retry-After: \xb2\r\n", None),
        (f"{DATE}Retry-After: Mon, 01 Jan 99999999999999999999 00:00:00 GMT\r\n", None),
        (f"{DATE}Retry-After: Sun, 06 Nov 1994 08:50:07 +9999999999999999999999\r\n", None),
        ("", None),
    ],
)
@pytest.mark.parametrize("interim", ["", "HTTP/1.1 103 Early Hints\r\nRetry-After: 9\r\n\r\n"])
def test_when_to_come_back_is_read_of_the_final_head(head: str, seconds: float | None, interim: str) -> None:
    answer = Answer(head_only=False)
    head = f"Content-Length: 2\r\n{head}Connection: close\r\n"
    data = f"{interim}HTTP/1.1 503 Service Unavailable\r\n{head}\r\n{{}}noise"
    assert answer.feed(data.encode("latin-1"))
    answer.release()
    assert answer.retry_after_seconds == seconds


def test_an_answer_that_never_came_says_nothing_of_coming_back() -> None:
    answer = Answer(head_only=False)
    answer.feed(b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n")
    assert answer.retry_after_seconds is None
