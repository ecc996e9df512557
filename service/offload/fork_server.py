"""The fork server, from which all worker processes come: where its socket lies, and that it answers.

multiprocessing starts it with the first worker, keeps it in a private singleton, and starts another if it has
died. But it does not see that the socket is gone (a cleaner of temporary files; a run directory that went
with the last session of its user), or that the fork server hangs: no lost worker would ever come back. So we
end one that does not answer, and the next start finds it dead. Workers that are up need none: lanes go on. An
executor learns from it whether its workers live, and starts anew.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Final, TypeVar

import structlog

from service.background import in_background
from service.folder import Folder, make, sweep

log = structlog.get_logger("offloop.workers")
T = TypeVar("T")

PRELOAD: Final = [
    "service.offload.forkserver_signals",
    "concurrent.futures.process",
    "service.offload.worker_main",
    "service.work",
]
"""What the fork server imports once, so that each worker need not."""

ANSWER_SECONDS: Final = 10.0
"""How long the fork server may take to start a process, or all those of an executor; usually milliseconds,
and some 0.3 s if it has to be started itself."""

NO_ANSWER: Final = (FileNotFoundError, ConnectionError, EOFError, TimeoutError)
"""What starting a process raises if it does not answer: no socket, no listener, gone meanwhile, hangs.
Anything else, such as a shortage of descriptors, another fork server would not mend."""

PREFIX: Final = "offloop-fork-"

LONGEST: Final = 63
"""Bytes of a directory's name: a socket's has room for 103 (sun_path of macOS; unix(7): 107), and 40 of those
are the names that are made below and by multiprocessing."""

_preferred: list[str] = []
_made: list[Folder] = []
_making = threading.Lock()


def prefer_directories(directories: Iterable[str]) -> None:
    """Let the socket lie in the first of these that will do, else in the directory for temporary files."""
    _preferred[:] = directories


def forkserver_context(context: ForkServerContext | None = None) -> ForkServerContext:
    """What starts processes from the fork server: no copy of our threads, sockets or locks reaches them."""
    context = context or multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    return context


async def from_fork_server(start: Callable[[], T]) -> T:
    """Await `start()`, which starts processes, on a thread: it waits for the fork server's answer.

    Raises:
        Exception: what `start` raises. If the fork server has not answered, the next call finds another.
    """
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            return await in_background("worker-start", _with_room, start)
    except NO_ANSWER as error:
        log.warning("fork server does not answer", error=repr(error))
        await in_background("fork-server-end", _end)
        raise


def _with_room(start: Callable[[], T]) -> T:
    """Call `start` once there is a directory for the socket, whether or not one is needed now."""
    # No public name says where multiprocessing is to put sockets. Should this one ever go, a test fails.
    config = multiprocessing.current_process()._config  # type: ignore[attr-defined]  # typeshed has none
    with _making:
        if not os.path.isdir(config.get("tempdir") or ""):  # noqa: PTH112  # a string is what it takes
            config["tempdir"] = str(_make_directory())
    return start()


def _make_directory() -> Path:
    parent, uid = Path(first_usable(_preferred) or tempfile.gettempdir()), os.getuid()
    sweep(parent, PREFIX, uid)
    folder = make(parent, PREFIX, uid, os.getgid())
    if _made:  # a cleaner has removed it
        _made.pop().release()
    _made.append(folder)
    # At the end of this process and of none that it forks.
    Finalize(None, remove_directory, exitpriority=-100)
    return folder.path


def remove_directory() -> None:
    """Remove the socket's directory: for who ends this process by `os._exit`, which multiprocessing does not
    hear of. One that is left is removed by the next service of this user."""
    for folder in _made:
        shutil.rmtree(folder.path, ignore_errors=True)


def first_usable(directories: Iterable[str]) -> str | None:
    """The first of these that we may write to and whose name is short enough; None: there is none."""
    for directory in directories:
        if len(os.fsencode(directory)) <= LONGEST and os.access(directory, os.W_OK | os.X_OK):
            return directory
    return None


def _end() -> None:
    """Kill the fork server, and wait until it is dead: the next start of a process then makes another.

    There is no public way. Closing its "alive" pipe, as multiprocessing's own tests do, ends it only when all
    workers have ended, and never if it hangs. It is our child, and multiprocessing waits for it when it makes
    the next: until then its number is its own.
    """
    pid = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]  # as above
    if pid is not None:
        with suppress(ProcessLookupError, ChildProcessError):  # another thread was faster
            os.kill(pid, signal.SIGKILL)
            if sys.platform == "linux":  # elsewhere one more attempt may fail
                os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
