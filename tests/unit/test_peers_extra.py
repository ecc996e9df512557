"""What the comparison with the usual designs needs is an extra, and nobody else pays for it."""

from __future__ import annotations

import importlib.util
import tomllib
from pathlib import Path

import pytest

from loadtests.exits import UsageError
from loadtests.peers import race

ROOT = Path(__file__).parents[2]
EXTRAS: dict[str, list[str]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
    "optional-dependencies"
]


def test_the_designs_frameworks_are_in_no_extra_but_their_own() -> None:
    needed = {package for packages in race.NEEDED.values() for package in packages}
    assert {name.partition(">")[0] for name in EXTRAS["peers"]} == needed
    assert not {name.partition(">")[0] for name in EXTRAS["loadtests"]} & needed


def test_the_image_goes_without_them() -> None:
    installed = {
        line.partition("==")[0] for line in (ROOT / "deploy/requirements.txt").read_text().splitlines()
    }
    assert "matplotlib" in installed  # of the load tests, which are in it
    assert not {name.partition(">")[0] for name in EXTRAS["peers"]} & installed


def test_a_missing_package_is_named_with_its_extra_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "uvicorn" else found(name))
    race.check_installed(("offloop", "pool", "gunicorn"))
    with pytest.raises(UsageError, match=r"needs uvicorn: pip install '.\[loadtests,peers\]'"):
        race.check_installed(("offloop", "fastapi"))
