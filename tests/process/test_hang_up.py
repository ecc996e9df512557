"""SIGHUP: a terminal that is closed ends what was started on it; any other one is an order to reload."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.support.child import Child, ended
from tests.support.processes import gone, session
from tests.support.tools import need
from tests.support.waiting import until

FLAGS = ("--offload", "inline", "--work-units", "1")


class Terminal:
    """A pseudoterminal, and services that are started on it."""

    def __init__(self) -> None:
        self.master, self.slave = os.openpty()
        self._is_open = True

    def close(self) -> None:
        """What a terminal window or sshd does at its end: the kernel hangs up."""
        if self._is_open:
            os.close(self.slave)
            os.close(self.master)
            self._is_open = False


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    one = Terminal()
    yield one
    one.close()


@pytest.mark.parametrize(
    "shell",
    [(), ("-c", '"$@"; exit'), ("--norc", "-ic", '"$@" & wait')],
    ids=["alone", "in the foreground", "in the background"],
)
def test_a_terminal_that_is_closed_ends_the_service_in_order(
    tmp_path: Path, terminal: Terminal, shell: tuple[str, ...]
) -> None:
    before = (need("bash", "bash"), *shell, "bash") if shell else ()
    with ended(Child(tmp_path / "log", *FLAGS, terminal=terminal.slave, before=before)) as child:
        child.ready()
        terminal.close()
        until(lambda: child.events("stopped"), seconds=30)  # the shell may be gone by then
        assert not child.events("reloaded")
        assert gone(child.process.pid)
        if not shell:
            assert child.process.wait(30) == 0


def test_on_an_open_terminal_it_reloads(tmp_path: Path, terminal: Terminal) -> None:
    with ended(Child(tmp_path / "log", *FLAGS, terminal=terminal.slave)) as child:
        child.ready()
        child.process.send_signal(signal.SIGHUP)
        child.wait_until(lambda: child.events("reloaded"))
        assert child.end() == 0


def test_under_nohup_no_hang_up_ends_it(tmp_path: Path, terminal: Terminal) -> None:
    # Where its output is a terminal, nohup leaves a file in the folder where it was started.
    before = ("sh", "-c", 'exec "$@" > /dev/null', "sh", need("nohup", "coreutils"))
    with ended(Child(tmp_path / "log", *FLAGS, terminal=terminal.slave, before=before)) as child:
        address, _ = child.ready()
        terminal.close()
        child.wait_until(lambda: child.events("reloaded"))
        with urlopen(f"{address}/data") as answer:
            assert answer.status == 200
        assert child.end() == 0
        assert not session(child.process.pid)
