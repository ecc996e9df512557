"""Under gunicorn: an IO process that cannot start costs its siblings nothing, and a HUP no client."""

from __future__ import annotations

import os
import resource
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
import trustme

from metrics.slots import look
from tests.proofs import io_processes
from tests.proofs.io_processes import PROCESSES, Gunicorn
from tests.support.processes import children, gone, stop
from tests.support.waiting import until

REQUEST = b"GET /data HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"


def answers(child: Gunicorn, times: int = 4) -> bool:
    """Whether so many clients, one after the other, get their answer."""
    address, _ = child.ready()
    for _ in range(times):
        with urlopen(f"{address}/data", timeout=20) as answer:
            assert answer.status == 200
    return True


def readiness(child: Gunicorn) -> str:
    """What the exporter's /readyz says."""
    _, admin = child.ready()
    try:
        with urlopen(f"{admin}/readyz") as answer:
            return str(answer.read().decode())
    except HTTPError as refusal:
        with refusal:
            return refusal.read().decode()


def all_serve(child: Gunicorn) -> None:
    """Wait until the exporter has heard it from each IO process: only then is it one to be replaced."""
    child.wait_until(lambda: readiness(child) == ", ".join(["serving"] * PROCESSES) + "\n")


def lose_one(child: Gunicorn) -> None:
    """SIGKILL to an IO process, and wait until the arbiter has started another."""
    booted = len(child.pids(r"Booting worker with pid: (\d+)"))
    os.kill(min(child.io_processes()), signal.SIGKILL)
    child.wait_until(lambda: len(child.pids(r"Booting worker with pid: (\d+)")) > booted)


FAILS = {"work": "tests.work:fails_when_told", "drain_timeout": "4"}
"""For the second: at a HUP gunicorn waits so long and a little more for the old ones to end."""


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """While this file exists the work of `fails_when_told` fails."""
    monkeypatch.setenv("TESTS_WORK_FAILS", str(tmp_path / "told"))
    return tmp_path / "told"


def test_an_io_process_that_cannot_start_is_tried_again_and_its_sibling_serves(
    tmp_path: Path, told: Path
) -> None:
    with io_processes.gunicorn(tmp_path / "log", "--timeout", "3", **FAILS) as child:
        child.ready()
        told.touch()
        lose_one(child)
        child.wait_until(lambda: len(child.events("cannot start")) >= 4, 90)
        assert answers(child)
        lines = child.events("cannot start")[:4]
        assert {"ZeroDivisionError" in line["reason"] for line in lines} == {True}
        at = [datetime.fromisoformat(line["timestamp"]).timestamp() for line in lines]
        pauses = [later - one for one, later in pairwise(at)]
        assert [pause > least for pause, least in zip(pauses, (1, 2, 4), strict=True)] == [True] * 3
        assert "WORKER TIMEOUT" not in (tmp_path / "log").read_text(), (
            "one that waits has not told gunicorn that it lives"
        )
        told.unlink()
        child.ready(PROCESSES + 1)
        assert answers(child)
        assert child.end() == 0
        assert gone(child.process.pid)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT, signal.SIGKILL])
def test_one_that_waits_for_its_next_try_ends_when_it_is_told_or_its_arbiter_has_gone(
    tmp_path: Path, told: Path, number: signal.Signals
) -> None:
    with io_processes.gunicorn(tmp_path / "log", work="tests.work:fails_when_told") as child:
        child.ready()
        told.touch()
        lose_one(child)
        child.wait_until(lambda: len(child.events("cannot start")) >= 3)  # it waits for four seconds now
        assert child.end(number) in (0, -signal.SIGKILL)
        assert gone(child.process.pid)
    assert (tmp_path / "log").read_text().count("was sent SIGKILL") == 1, "one was killed by this test"


FRAGILE = """
import multiprocessing, os, pathlib
if multiprocessing.parent_process() and pathlib.Path(__file__).with_name("broken").exists():
    os._exit(1)
def work() -> bytes:
    return b"{}"
"""


def test_one_whose_workers_are_gone_for_good_leaves_its_clients_to_its_sibling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fragile.py").write_text(FRAGILE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with io_processes.gunicorn(tmp_path / "log", work="fragile:work") as child:
        all_serve(child)
        (tmp_path / "broken").touch()
        lost = min(child.io_processes())
        for server in children(lost):  # multiprocessing's helpers
            for pid in children(server):
                os.kill(pid, signal.SIGKILL)
        child.wait_until(lambda: child.events("ending"), 60)
        (line,) = child.events("ending")
        assert line["pid"] == lost
        assert line["reason"] in ("not ready: workers keep dying", "not ready: no worker can be started")
        child.wait_until(lambda: lost not in child.io_processes() and child.events("cannot start"))
        assert answers(child, 10), "while its successor waits for its next try"
        (tmp_path / "broken").unlink()
        child.ready(PROCESSES + 1)
        assert child.end() == 0
        assert gone(child.process.pid)


def test_one_without_descriptors_is_tried_again_and_its_sibling_serves(tmp_path: Path) -> None:
    with io_processes.gunicorn(tmp_path / "log") as child:
        child.ready()
        soft, hard = resource.prlimit(child.arbiter, resource.RLIMIT_NOFILE)
        highest = max(int(entry.name) for entry in Path(f"/proc/{child.arbiter}/fd").iterdir())
        # Enough for what the arbiter opens when it starts one, and for nothing of its own.
        resource.prlimit(child.arbiter, resource.RLIMIT_NOFILE, (highest + 2, hard))
        lose_one(child)
        child.wait_until(lambda: child.events("cannot start"))
        assert answers(child)
        assert "Too many open files" in child.events("cannot start")[0]["reason"]
        resource.prlimit(child.arbiter, resource.RLIMIT_NOFILE, (soft, hard))
        child.ready(PROCESSES + 1)
        assert child.end() == 0


Pair = Callable[[], trustme.CA]


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    """Writes a certificate and its key where the service reads them; returns who signed them."""

    def write() -> trustme.CA:
        ca = trustme.CA()
        made = ca.issue_cert("127.0.0.1")
        made.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
        made.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
        return ca

    return write


def client(ca: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    ca.configure_trust(context)
    return context


def ask(
    child: Gunicorn, context: ssl.SSLContext, session: ssl.SSLSession | None = None
) -> tuple[ssl.SSLSession | None, bool | None]:
    """One request; its session, and whether that was the one given."""
    address, _ = child.ready()
    plain = socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), timeout=20)
    with context.wrap_socket(plain, server_hostname="127.0.0.1", session=session) as asked:
        asked.sendall(REQUEST)
        assert asked.recv(12) == b"HTTP/1.1 200"
        while asked.recv(4096):
            pass
        return asked.session, asked.session_reused


def test_certificates_that_cannot_be_used_are_refused_and_the_last_good_pair_stays(
    tmp_path: Path, pair: Pair
) -> None:
    ca = pair()
    files = {"tls_cert": str(tmp_path / "cert.pem"), "tls_key": str(tmp_path / "key.pem")}
    with io_processes.gunicorn(tmp_path / "log", **files) as child:
        child.ready()
        whole = (tmp_path / "cert.pem").read_bytes()
        (tmp_path / "cert.pem").write_bytes(whole[: len(whole) // 2])
        lose_one(child)
        child.ready(PROCESSES + 1)
        old = child.io_processes()
        child.hang_up()
        (line,) = child.events("certificates refused")
        assert "--tls-cert" in line["reason"]
        child.wait_until(lambda: not old & child.io_processes())
        (tmp_path / "key.pem").unlink()
        lose_one(child)
        child.ready(2 * PROCESSES + 2)
        for _ in range(4):
            ask(child, client(ca))
        other, old = pair(), child.io_processes()
        child.hang_up()
        child.wait_until(lambda: not old & child.io_processes())
        for _ in range(4):
            ask(child, client(other))
        assert child.end() == 0


def test_certificates_that_cannot_be_used_end_the_start_with_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("no PEM")
    files = dict.fromkeys(("tls_cert", "tls_key"), str(tmp_path / "cert.pem"))
    with io_processes.gunicorn(tmp_path / "log", **files) as child:
        assert child.process.wait(30) == 2
    (sentence,) = (tmp_path / "log").read_text().splitlines()
    assert sentence.startswith("offloop: --tls-cert ")


def test_a_tls_session_of_one_io_process_is_good_at_the_other(tmp_path: Path, pair: Pair) -> None:
    context = client(pair())
    files = {"tls_cert": str(tmp_path / "cert.pem"), "tls_key": str(tmp_path / "key.pem")}
    with io_processes.gunicorn(tmp_path / "log", **files) as child:
        child.ready()
        one, other = sorted(child.io_processes())
        stop(other)
        session, _ = ask(child, context)
        os.kill(other, signal.SIGCONT)
        stop(one)
        _, is_reused = ask(child, context, session)
        os.kill(one, signal.SIGCONT)
        assert is_reused
        assert child.end() == 0


def outlive_a_hup(child: Gunicorn, told: Path) -> set[int]:
    """A HUP whose IO processes cannot start; the old ones, which are still there."""
    all_serve(child)
    old = child.io_processes()
    told.touch()
    os.kill(child.arbiter, signal.SIGHUP)
    child.wait_until(lambda: len(child.events("cannot start")) >= PROCESSES)
    return old


def test_a_hup_whose_io_processes_cannot_start_is_tried_again_while_the_old_ones_serve(
    tmp_path: Path, told: Path
) -> None:
    with io_processes.gunicorn(tmp_path / "log", **FAILS) as child:
        old = outlive_a_hup(child, told)
        child.wait_until(lambda: len(child.events("cannot start")) > PROCESSES)
        assert old <= child.io_processes()
        assert answers(child)
        told.unlink()
        child.wait_until(lambda: len(child.io_processes() - old) == PROCESSES == len(child.io_processes()))
        assert answers(child)
        assert child.end() == 0


def test_while_a_hup_is_tried_again_the_death_of_an_old_one_ends_no_other(tmp_path: Path, told: Path) -> None:
    with io_processes.gunicorn(tmp_path / "log", **FAILS) as child:
        old = outlive_a_hup(child, told)
        lost, left = sorted(old)
        os.kill(lost, signal.SIGKILL)
        child.wait_until(lambda: lost not in child.io_processes())

        def heard() -> float:
            """When any that serves was heard last."""
            return max(slot.said_at or 0 for slot in look(child.folder()) if slot.why == "serving")

        since = heard()
        child.wait_until(lambda: heard() > since + 3)  # three heartbeats, at each of which it could leave
        assert left in child.io_processes()
        assert answers(child)
        told.unlink()
        child.wait_until(lambda: not old & child.io_processes())
        assert child.end() == 0


@contextmanager
def held_hup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Gunicorn, set[int], Path]]:
    """A HUP whose IO processes are not ready while a file exists: gunicorn, the old ones, the file."""
    gate = tmp_path / "gate"
    monkeypatch.setenv("TESTS_WORK_WAITS", str(gate))
    with io_processes.gunicorn(tmp_path / "log", work="tests.work:waits_when_told") as child:
        all_serve(child)
        old = child.io_processes()
        gate.touch()
        os.kill(child.arbiter, signal.SIGHUP)
        child.wait_until(lambda: len(child.io_processes()) == 2 * PROCESSES)
        yield child, old, gate


def test_one_that_dies_during_a_hup_is_replaced_and_no_old_one_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with held_hup(tmp_path, monkeypatch) as (child, old, gate):
        os.kill(max(child.io_processes() - old), signal.SIGKILL)
        gate.unlink()
        child.wait_until(lambda: not old & child.io_processes())
        child.wait_until(lambda: len(child.io_processes()) == PROCESSES)
        assert answers(child)
        assert child.end() == 0


def test_sigttou_is_obeyed_while_a_hup_is_tried_again(tmp_path: Path, told: Path) -> None:
    with io_processes.gunicorn(tmp_path / "log", **FAILS) as child:
        old = outlive_a_hup(child, told)
        os.kill(child.arbiter, signal.SIGTTOU)
        child.wait_until(lambda: len(old & child.io_processes()) == PROCESSES - 1)
        assert answers(child)
        told.unlink()
        assert child.end() == 0


def test_sigterm_ends_old_io_processes_that_a_hup_could_not_replace(tmp_path: Path, told: Path) -> None:
    # Time to end for a busy machine: gunicorn kills those that take longer.
    with io_processes.gunicorn(tmp_path / "log", **FAILS | {"drain_timeout": "10"}) as child:
        outlive_a_hup(child, told)
        assert answers(child)
        assert child.end() == 0
        assert gone(child.process.pid)
    assert "was sent SIGKILL" not in (tmp_path / "log").read_text()
    assert len(child.events("stopped")) == PROCESSES


def test_at_a_hup_the_old_io_processes_serve_until_a_new_one_is_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with held_hup(tmp_path, monkeypatch) as (child, old, gate):
        assert answers(child)
        assert len(child.events("ready")) == PROCESSES
        gate.unlink()
        child.ready(2 * PROCESSES)
        until(lambda: not old & child.io_processes(), "the old ones end")
        assert child.end() == 0
