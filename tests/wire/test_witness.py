"""Who else used machine and server: seen where they are, and named."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import Any

import psutil

from loadtests.load.surroundings import Surroundings
from loadtests.load.witness import Witness, listeners, named
from loadtests.neighbours import Neighbours, busiest
from tests.support.servers import OK_ANSWER, ScriptedServer, answer_with


def test_a_connection_that_is_not_ours_is_found_by_its_port() -> None:
    with (
        ScriptedServer(answer_with(OK_ANSWER)) as server,
        socket.create_connection(("127.0.0.1", server.port)) as stranger,
        Witness(("127.0.0.1", server.port)) as witness,
    ):
        witness.look(0.0)
        port = stranger.getsockname()[1]
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
    assert witness.surroundings([]).foreign_connections == 1
    assert witness.surroundings([port, None]).foreign_connections == 0


def test_it_looks_once_a_second() -> None:
    with ScriptedServer(answer_with(OK_ANSWER)) as server, Witness(("127.0.0.1", server.port)) as witness:
        witness.look(0.0)
        with socket.create_connection(("127.0.0.1", server.port)) as stranger:
            witness.look(0.9)
            stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
            stranger.recv(1000)
    assert witness.surroundings([]).foreign_connections == 0


def test_the_server_is_no_stranger() -> None:
    with ScriptedServer(answer_with(OK_ANSWER)) as server:
        assert listeners(server.port) == {os.getpid()}
    assert listeners(1) == set()


def test_a_server_elsewhere_is_not_looked_for_here() -> None:
    with Witness(("192.0.2.1", 80)) as witness:
        witness.look(0.0)
    assert witness.surroundings([]).foreign_connections == 0


def surroundings(**changes: Any) -> Surroundings:
    return Surroundings(**{"stolen": 0.0, "others": 0.0, "throttled": 0.0, "idle_cores": 0.5, **changes})


def test_what_spoils_a_run_is_named() -> None:
    assert surroundings().faults() == ()
    assert surroundings(foreign_connections=2).faults() == (
        "other clients used the server: 2 of its connections were not this run's; stop them, or measure "
        "another server",
    )
    assert surroundings(throttled=0.4).faults() == (
        "a CPU quota held us up for 40% of the time: raise it (cpu.max of the cgroup), or offer less",
    )
    assert len(surroundings(stolen=1.0, others=1.0, throttled=1.0, foreign_connections=1).faults()) == 4


def test_the_busiest_neighbour_is_named_with_what_to_do() -> None:
    (fault,) = surroundings(others=0.4, busiest_other="stress-ng").faults()
    assert fault == (
        "other processes of this machine used 40% of its CPU time, most of it stress-ng: stop it, or say "
        "--server-process stress-ng if it belongs to the server"
    )


def test_a_process_that_was_said_to_belong_to_the_server_is_no_neighbour() -> None:
    own = psutil.Process().name()
    assert os.getpid() in named([own])
    assert named([]) == set()


def test_the_busiest_of_some_processes_is_found_by_name() -> None:
    before = {1: ("a", 5.0), 2: ("b", 1.0), 3: ("a", 0.0)}
    after = {1: ("a", 5.3), 2: ("b", 1.5), 3: ("a", 0.3), 4: ("c", 0.4)}
    assert busiest(before, after, [1, 2, 3, 4]) == "a"
    assert busiest(before, after, [4]) == "c"
    assert busiest(before, before, [1]) is None
    assert busiest(before, after, []) is None


def test_the_time_of_a_child_that_has_ended_stays_ours() -> None:
    neighbours = Neighbours()
    before = neighbours.read()
    spin = "import time\nwhile time.process_time() < 0.3: pass"
    subprocess.run([sys.executable, "-c", spin], check=True)
    after = neighbours.read()
    assert after.ours_seconds - before.ours_seconds >= 0.2


def test_on_a_machine_that_is_said_to_be_shared_neighbours_are_a_caution() -> None:
    found = surroundings(others=0.4, stolen=0.1, foreign_connections=1, shared_machine=True)
    assert [fault.split(":")[0] for fault in found.faults()] == ["other clients used the server"]
    assert len(found.cautions()) == 2
    assert surroundings(others=0.4).cautions() == ()
