"""Ends a session of processes, and leaves nothing of it behind.

Knows processes through psutil. Touches those of the session that it is given, by their ids.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import Final

import psutil

CLEAN_SECONDS: Final = 10.0

TRACKER: Final = "resource_tracker"
"""In the command of the process, multiprocessing's or loky's, that unlinks the semaphores which killed ones
have left. It ends by itself once it is alone; killed with the others, it would leave them in /dev/shm."""


def kill_session(leader: int) -> None:
    """Kill all of a session, but what cleans up behind the others: that has `CLEAN_SECONDS` to do so."""
    patience = time.monotonic() + CLEAN_SECONDS
    while processes := members(leader):
        for process in processes:
            with contextlib.suppress(psutil.Error):  # it has ended since it was listed
                if time.monotonic() > patience or not any(TRACKER in word for word in process.cmdline()):
                    process.kill()
        time.sleep(0.01)


def members(leader: int) -> list[psutil.Process]:
    """The living processes of a session, whether or not its leader still lives."""
    return [process for process in psutil.process_iter() if _is_member(process, leader)]


def _is_member(process: psutil.Process, leader: int) -> bool:
    with contextlib.suppress(psutil.Error, ProcessLookupError):  # it has ended since it was listed
        return os.getsid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE
    return False
