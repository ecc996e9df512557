"""What may be asked of the generator, and what a URL says."""

import json
from pathlib import Path
from typing import Any

import pytest

from loadtests.files import write_json
from loadtests.load.endpoint import request_bytes
from loadtests.load.phase import Phase, Target
from loadtests.load.statuses import parse_statuses

URL = "http://127.0.0.1:8080/data"


def make(**changes: Any) -> Phase:
    return Phase(**{"url": URL, "rate": 10, "duration_seconds": 2, **changes})


def test_a_phase_survives_its_json_form() -> None:
    phase = make(headers=(("X-A", "1"),), source="127.0.0.2", arrivals="poisson", body="{}", method="POST")
    assert Phase.from_json(json.loads(json.dumps(phase.to_json()))) == phase
    phase = make(rate=None, segments=((10.0, 0.5), (30.0, 1.5)))
    assert Phase.from_json(json.loads(json.dumps(phase.to_json()))) == phase


def test_a_load_says_what_it_is() -> None:
    assert make(arrivals="poisson").workload == "10/s poisson"
    segments = make(rate=None, segments=((10, 0.5), (30, 1.5)))
    assert segments.workload == "10/s for 0.5 s, 30/s for 1.5 s, constant"
    assert make(rate=None, clients=1).workload == "closed loop, 1 client"
    assert make(rate=None, clients=8).workload == "closed loop, 8 clients"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rate": 0}, "rate must be a positive number, not 0"),
        ({"rate": float("nan")}, "rate must be"),
        ({"duration_seconds": -1}, "duration_seconds must be"),
        ({"timeout_seconds": float("inf")}, "timeout_seconds must be"),
        ({"rate": None}, "give exactly one of the two"),
        ({"clients": 3}, "give exactly one of the two"),
        ({"segments": ((10, 2),)}, "give neither a rate nor clients"),
        ({"rate": None, "clients": 1, "segments": ((10, 2),)}, "give neither a rate nor clients"),
        ({"rate": None, "segments": ((10, 1), (0, 1))}, "the rate of a segment must be a positive number"),
        ({"rate": None, "segments": ((10, -2),)}, "the length of a segment must be"),
        ({"rate": None, "segments": ((10, 1), (20, 2))}, "segments of 3 s in all do not fill 2 s"),
        ({"rate": None, "clients": 0}, "clients must be at least 1, not 0"),
        ({"rate": None, "clients": 9, "max_in_flight": 8}, "9 clients are more than max_in_flight 8"),
        ({"rate": None, "clients": 1, "arrivals": "poisson"}, "arrivals 'poisson' need a rate"),
        ({"rate": 0.1}, "sends no request at all"),
        ({"max_in_flight": 0}, "max_in_flight must be at least 1"),
        ({"arrivals": "bursts"}, "arrivals must be one of constant, poisson, not 'bursts'"),
        ({"who_closes": "nobody"}, "who_closes must be one of server, client"),
        ({"keep_alive": True, "who_closes": "client"}, "'client' does not go with keep_alive"),
        ({"expect": "20"}, "expect '20' is not statuses such as 200, 2xx"),
        ({"expect": "2xx,"}, "is not statuses such as"),
        ({"expect": "299-200"}, "go up from 200 to 599"),
        ({"expect": "100"}, "go up from 200 to 599"),
        ({"source": "here"}, "'here' does not appear to be an IPv4 or IPv6 address"),
        ({"method": "get it"}, "method must be capital letters"),
        ({"headers": (("Connection", "keep-alive"),)}, "'Connection' is set by the generator"),
        ({"headers": (("X", "a\r\nY: b"),)}, "not one line of printable ASCII"),
        ({"headers": (("a b", "c"),)}, "not one line of printable ASCII"),
        ({"url": "127.0.0.1:8080"}, "must look like http://"),
        ({"url": "ftp://host/"}, "must look like http://"),
        ({"url": "http://host:99999/"}, "cannot be read"),
        ({"url": "http://[::1/"}, "cannot be read"),
        ({"url": "http://user:secret@host/"}, "Authorization header"),
        ({"url": "http://host/a b"}, "percent-encode"),
    ],
)
def test_a_bad_field_is_named_in_one_sentence(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the words are checked below, literally
        make(**changes)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "target", "authority"),
    [
        (
            "http://127.0.0.1:8080/d?x=1#top",
            Target("127.0.0.1", 8080, "/d?x=1", False),
            "127.0.0.1:8080",
        ),
        ("http://host", Target("host", 80, "/", False), "host"),
        ("https://host/", Target("host", 443, "/", True), "host"),
        ("https://host:80/", Target("host", 80, "/", True), "host:80"),
        ("http://[::1]:81/", Target("::1", 81, "/", False), "[::1]:81"),
    ],
)
def test_a_url_says_where_to_connect_and_what_to_ask(url: str, target: Target, authority: str) -> None:
    assert Target.parse(url) == target
    assert target.authority == authority


def test_a_request_asks_for_one_answer_per_connection() -> None:
    assert request_bytes(make(), Target.parse(URL)) == (
        b"GET /data HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nConnection: close\r\n\r\n"
    )


def test_a_request_that_keeps_its_connection_says_nothing_of_it() -> None:
    assert request_bytes(make(keep_alive=True), Target.parse(URL)) == (
        b"GET /data HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n"
    )


def test_a_body_comes_with_its_length_in_bytes_and_a_given_host_replaces_ours() -> None:
    phase = make(method="POST", body="\u00e9", headers=(("host", "example.org"),))
    assert request_bytes(phase, Target.parse(URL)) == (
        b"POST /data HTTP/1.1\r\nConnection: close\r\nContent-Length: 2\r\nhost: example.org\r\n\r\n\xc3\xa9"
    )


@pytest.mark.parametrize(
    ("method", "says_so"),
    [("POST", True), ("PUT", True), ("PATCH", True), ("GET", False), ("HEAD", False), ("DELETE", False)],
)
def test_a_method_whose_body_has_a_meaning_says_that_there_is_none(method: str, says_so: bool) -> None:
    assert (b"\r\nContent-Length: 0\r\n" in request_bytes(make(method=method), Target.parse(URL))) is says_so


@pytest.mark.parametrize(
    ("text", "some", "count"),
    [("200", {200}, 1), ("2xx", {200, 204, 299}, 100), ("200,204", {200, 204}, 2),
     ("200-299, 404", {250, 404}, 101), ("5XX", {500, 599}, 100)],
)  # fmt: skip
def test_expected_statuses_are_read_as_people_write_them(text: str, some: set[int], count: int) -> None:
    found = parse_statuses(text)
    assert some <= found
    assert len(found) == count


def test_a_number_that_json_cannot_hold_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "summary.json", {"p99": float("inf")})
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    write_json(path, {"run": 1})
    with pytest.raises(TypeError):
        write_json(path, {"run": object()})
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        write_json(tmp_path / "folder", {"run": 2})
    (tmp_path / "folder").rmdir()
    assert json.loads(path.read_text()) == {"run": 1}
    assert list(tmp_path.iterdir()) == [path]
