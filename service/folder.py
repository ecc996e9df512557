"""A folder that is held by those who use it, and removed after the last or by a later start.

They hold a shared lock on it, flock(2): who made it, and each fork, as such a lock belongs to the open file
that forks inherit. The kernel releases it however they end. So a folder whose lock nobody holds is used by
nobody. Two are like that: that of the metrics, and that of the fork server's socket.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path


class Folder:
    """A folder that this process and its forks hold.

    Args:
        held: its descriptor, if this process holds it already: see `pass_on`.
    """

    def __init__(self, path: Path, held: int | None = None) -> None:
        self.path = path
        self._held = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW) if held is None else held
        os.set_inheritable(self._held, False)
        fcntl.flock(self._held, fcntl.LOCK_SH)

    def pass_on(self) -> int:
        """Let the program that this process is about to execute hold it; returns the descriptor."""
        os.set_inheritable(self._held, True)
        return self._held

    def release(self) -> None:
        """Let this process hold it no more."""
        os.close(self._held)

    def is_there(self) -> bool:
        """False if it was removed just before this process held it."""
        with contextlib.suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(self._held), self.path.stat())
        return False


def make(parent: Path, prefix: str, uid: int, gid: int) -> Folder:
    """A new folder for processes of this user. Under its name it is held from the first moment on."""
    hidden = Path(tempfile.mkdtemp(prefix=f".{prefix}", dir=parent))
    os.chown(hidden, uid, gid)
    folder = Folder(hidden)
    folder.path = hidden.rename(parent / hidden.name.removeprefix("."))
    return folder


def inherit(path: Path, held: int | None, uid: int, gid: int) -> Folder:
    """The folder of an older arbiter.

    One of a version that does not pass it on (`held` is None) may have ended just now, and its last user have
    removed the folder: then it is made again.
    """
    if held is not None:
        return Folder(path, held)
    while True:
        path.mkdir(mode=0o700, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.chown(path, uid, gid)
            folder = Folder(path)
            if folder.is_there():
                return folder
            folder.release()


def remove_if_unused(path: Path) -> bool:
    """Remove the folder unless a process holds it; returns whether it is gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:  # removed meanwhile, or no folder of ours
        return not path.exists()
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(path, ignore_errors=True)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def sweep(parent: Path, prefix: str, uid: int) -> None:
    """Remove what was left by services of this user whose processes were killed."""
    for path in parent.glob(f"{prefix}*"):
        with contextlib.suppress(FileNotFoundError):
            if path.lstat().st_uid == uid:
                remove_if_unused(path)
