"""Each design of the comparison by itself: the same work, the bound, and nothing left."""

from __future__ import annotations

import contextlib
import os
import resource
import select
import shutil
import socket
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from loadtests.peers import cargo
from loadtests.peers.contenders import Contender
from loadtests.peers.designs import MOST_IN_FLIGHT
from loadtests.peers.plan import IN_RUST, OURS, REFERENCE, TITLES
from service import work
from tests.support.processes import children, gone
from tests.support.waiting import until

BOUNDED = ("bounded", "loky", "anyio-bounded", REFERENCE)
BEYOND = 8
WITH_PROCESSES = ("bounded", "pool", "loky", "anyio", "anyio-bounded", "gunicorn")
CACHE = Path.home() / ".cache/offloop"  # as the command has it: building takes up to a minute


def built() -> Path:
    """The program in Rust."""
    try:
        return cargo.build(CACHE)
    except cargo.NotBuiltError as reason:
        pytest.skip(str(reason))


def started(design: str, units: int, workers: int, folder: Path) -> Contender:
    """A design that runs; skips the test where it cannot be built."""
    program = built() if design in IN_RUST else None
    contender = Contender(design, units, workers, folder, program)
    contender.start()
    return contender


def send(url: str, path: str) -> socket.socket:
    """A request on a connection of its own, as those of the comparison."""
    connection = socket.create_connection(("127.0.0.1", urlsplit(url).port or 0), timeout=60)
    connection.sendall(b"GET %s HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n" % path.encode())
    return connection


def answer(connection: socket.socket) -> tuple[int, bytes, bytes]:
    """Status, headers and body, once the server has closed the connection."""
    with connection, connection.makefile("rb") as stream:
        head, _, body = stream.read().partition(b"\r\n\r\n")
    return int(head.split()[1]), head.lower(), body


@pytest.mark.parametrize("design", [design for design in TITLES if design != OURS])
def test_each_design_answers_with_the_same_work_and_ends_with_all_that_it_started(
    design: str, tmp_path: Path
) -> None:
    before = children(os.getpid())
    contender = started(design, 500, 2, tmp_path)
    try:
        (leader,) = children(os.getpid()) - before
        status, _, body = answer(send(contender.url, "/data"))
        assert (status, body) == (200, work.data(500))
        soft, hard = resource.prlimit(leader, resource.RLIMIT_NOFILE)
        assert soft == hard, "as our service takes all that it may have"
        assert len(children(leader)) >= (2 if design in WITH_PROCESSES else 0)
        status, _, body = answer(send(contender.url, "/healthz"))
        assert (status, body.strip(b'"\n')) == (200, b"ok")
    finally:
        contender.stop(0)
    assert gone(leader)


@contextlib.contextmanager
def crowd(url: str, size: int) -> Iterator[list[socket.socket]]:
    """Clients that have all asked, and leave together."""
    with contextlib.ExitStack() as leaving:
        yield [leaving.enter_context(send(url, "/data")) for _ in range(size)]


@pytest.mark.parametrize("design", BOUNDED)
def test_a_bounded_design_refuses_what_is_beyond_64_and_has_room_again_once_its_clients_leave(
    design: str, tmp_path: Path
) -> None:
    contender = started(design, 5_000_000, 1, tmp_path)  # half a second each: none ends before all have asked
    try:
        with crowd(contender.url, MOST_IN_FLIGHT + BEYOND) as clients:
            statuses: list[int] = []
            waiting = list(clients)
            while len(statuses) <= BEYOND:
                ready, _, _ = select.select(waiting, [], [], 60)
                assert ready, statuses
                batch = []
                for client in ready:
                    waiting.remove(client)
                    status, head, _ = answer(client)
                    assert status == 200 or b"retry-after: 1" in head
                    batch.append(status)
                statuses += sorted(batch, reverse=True)  # nobody can tell which of them came first
        assert statuses[: BEYOND + 1] == [503] * BEYOND + [200]
        until(lambda: answer(send(contender.url, "/data"))[0] == 200, "room for one more")
    finally:
        contender.stop(0)


def test_what_is_queued_for_clients_that_have_left_is_not_begun_by_bounded_hyper(tmp_path: Path) -> None:
    contender = started(REFERENCE, 1_000_000, 1, tmp_path)
    try:
        before = contender.cpu_seconds
        answer(send(contender.url, "/data"))
        one = contender.cpu_seconds - before
        before = contender.cpu_seconds
        with crowd(contender.url, MOST_IN_FLIGHT) as clients:
            select.select(clients, [], [], 60)  # all have asked, and one has its answer
        assert answer(send(contender.url, "/data"))[0] == 200  # after all that is begun before it
        assert contender.cpu_seconds - before < MOST_IN_FLIGHT / 2 * one
    finally:
        contender.stop(0)


@pytest.mark.alone
def test_a_request_costs_hyper_the_cpu_time_that_it_costs_python(tmp_path: Path) -> None:
    units = 2_000_000  # a fifth of a second: /proc counts in hundredths
    shares = []
    for start in range(3):  # each calibrates anew, and one may meet a bad second
        (folder := tmp_path / str(start)).mkdir()
        contender = started("hyper", units, 1, folder)
        try:
            for _ in range(3):
                before, began = contender.cpu_seconds, time.thread_time()
                work.data(units)
                spent = time.thread_time() - began
                assert answer(send(contender.url, "/data"))[0] == 200
                shares.append((contender.cpu_seconds - before) / spent)
        finally:
            contender.stop(0)
    assert 0.7 < statistics.median(shares) < 1.4, shares


def test_the_program_is_built_once_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    kept = cargo.program(tmp_path)
    shutil.copy(built(), kept)
    assert cargo.build(tmp_path, crates=tmp_path / "none") == kept  # no cargo is asked


def test_without_the_crates_the_reason_is_cargos_own(tmp_path: Path) -> None:
    if shutil.which("cargo") is None:
        pytest.skip(f"cargo is not installed ({cargo.PACKAGES})")
    (tmp_path / "crates").mkdir()
    with pytest.raises(cargo.NotBuiltError, match=r"no matching package.*hyper.*librust-hyper-dev"):
        cargo.build(tmp_path, crates=tmp_path / "crates")
    assert {path.name for path in tmp_path.iterdir()} == {"crates"}
