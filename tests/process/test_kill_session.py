"""A killed session leaves nothing: no process, and no semaphore of those that were killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from loadtests.sessions import TRACKER, kill_session
from tests.support.processes import argv, session
from tests.support.waiting import until

SHARED = Path("/dev/shm")  # where Linux shows POSIX semaphores

HOLDS_ONE = """
import multiprocessing, signal
lock = multiprocessing.get_context("forkserver").Lock()
print(lock._semlock.name, flush=True)
signal.pause()
"""


def tracker_of(leader: int) -> bool:
    """Whether it runs: until it has executed its program, it looks as the leader does."""
    return any(TRACKER in word for pid in session(leader) for word in argv(pid))


@pytest.mark.skipif(not SHARED.is_dir(), reason="no /dev/shm: semaphores cannot be seen")
def test_a_killed_session_leaves_no_semaphore() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS_ONE], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as leader:
        try:
            assert leader.stdout is not None
            left = SHARED / f"sem.{leader.stdout.readline().strip().removeprefix('/')}"
            assert left.exists()
            until(lambda: tracker_of(leader.pid), "what cleans up behind it is there")
        finally:
            kill_session(leader.pid)
        assert not session(leader.pid)
        assert not left.exists()
