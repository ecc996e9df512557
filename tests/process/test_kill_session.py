"""A killed session leaves nothing: no process, and no semaphore of those that were killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from loadtests.experiment.child import kill_session
from tests.support.processes import session

SHARED = Path("/dev/shm")  # where Linux shows POSIX semaphores

HOLDS_ONE = """
import multiprocessing, time
lock = multiprocessing.get_context("forkserver").Lock()
print(lock._semlock.name, flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(not SHARED.is_dir(), reason="no /dev/shm: semaphores cannot be seen")
def test_a_killed_session_leaves_no_semaphore() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS_ONE], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as leader:
        try:
            assert leader.stdout is not None
            left = SHARED / f"sem.{leader.stdout.readline().strip().removeprefix('/')}"
            assert left.exists()
            assert len(session(leader.pid)) == 2, "the leader, and what cleans up behind it"
        finally:
            kill_session(leader.pid)
        assert not session(leader.pid)
        assert not left.exists()
