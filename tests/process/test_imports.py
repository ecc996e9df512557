"""What a command loads before it does anything: nothing that only another one needs."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support import ROOT

SHOW = "import sys; import {module}; print(*sorted(m for m in sys.modules if '.' not in m))"


@pytest.mark.parametrize(
    ("module", "spared"),
    [
        ("loadtests.__main__", {"fastapi", "uvicorn", "matplotlib", "aiohttp", "pydantic", "psutil", "rich"}),
        ("loadtests.peers.race", {"fastapi", "uvicorn", "matplotlib"}),
        ("loadtests.peers.report", {"fastapi", "uvicorn", "matplotlib"}),
        ("loadtests.peers.__main__", {"fastapi", "uvicorn", "matplotlib", "aiohttp", "anyio", "loky"}),
    ],
)
def test_an_import_brings_nothing_that_only_some_need(module: str, spared: set[str]) -> None:
    command = [sys.executable, "-c", SHOW.format(module=module)]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    loaded = set(told.stdout.split())
    assert "loadtests" in loaded
    assert not loaded & spared


def imported(*arguments: str) -> set[str]:
    """The modules that a command has loaded when it ends."""
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['loadtests', *{list(arguments)!r}]\n"
        "try: runpy.run_module('loadtests', run_name='__main__')\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(ended.stderr.split())


@pytest.mark.parametrize("command", ["run", "experiment", "report", "compare"])
def test_a_command_that_draws_nothing_does_not_wait_for_matplotlib(command: str) -> None:
    loaded = imported(command, "--help")
    assert "loadtests.arguments" in loaded
    assert not loaded & {"matplotlib", "jinja2"}
