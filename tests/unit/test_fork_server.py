"""Where the fork server's socket lies: the first directory that will do."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path

import pytest

from service.offload.fork_server import LONGEST, PREFIX, first_usable


@pytest.mark.parametrize(
    ("directories", "chosen"),
    [
        ([], None),
        (["", "/no/such/directory"], None),
        (["/proc/self/no", "/tmp"], "/tmp"),
        (["/", "/tmp"], "/"),
        (["/" + "./" * LONGEST, "/tmp"], "/tmp"),
    ],
)
def test_the_first_that_exists_and_is_short_enough(
    directories: list[str], chosen: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, _: os.path.isdir(path))  # noqa: PTH112  # "" is no path; root may write anywhere
    assert first_usable(directories) == chosen


def test_one_that_we_may_not_write_to_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: path != "/" or not mode & os.W_OK)
    assert first_usable(["/", "/tmp"]) == "/tmp"


def test_a_socket_fits_into_the_longest_name() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as short, socket.socket(socket.AF_UNIX) as listener:
        longest = Path(short) / ("x" * (LONGEST - len(short) - 1))
        longest.mkdir()
        assert first_usable([str(longest)]) == str(longest)
        made = tempfile.mkdtemp(prefix=PREFIX, dir=longest)
        name = tempfile.mktemp(prefix="listener-", dir=made)  # as multiprocessing's arbitrary_address does
        listener.bind(name)
        assert len(name) == 103
