"""Runs tools that are not ours: skips without them, bounds their time, ends what it started."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support import ROOT


def need(tool: str, package: str) -> str:
    """The path of a tool; skips the test where it is missing (OFFLOOP_STRICT makes that a failure)."""
    path = shutil.which(tool)
    if path is None:
        pytest.skip(f"{tool} is not installed (Debian package {package})")
    return path


def run(
    command: Sequence[str | Path], folder: Path, seconds: float = 60, *, cwd: Path = ROOT
) -> tuple[int, str]:
    """Run a tool to its end; its exit code and everything it said, on stdout or stderr.

    HOME is a folder of the test: siege writes its configuration there when it finds none.
    """
    ended = subprocess.run(
        [str(part) for part in command],
        timeout=seconds,
        cwd=cwd,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(folder), "LC_ALL": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return ended.returncode, ended.stdout
