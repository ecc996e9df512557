"""What a wheel holds: each module, template and schema that the checkout has."""

from __future__ import annotations

import tomllib
from pathlib import Path

from setuptools import find_namespace_packages

from tests.support import ROOT

SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
PACKAGES = find_namespace_packages(str(ROOT), **SETTINGS["packages"]["find"])
NOT_INSTALLED = ("loadtests/scripts", "metrics/grafana", "metrics/prometheus")  # read by other programs
FILES = [
    path.relative_to(ROOT)
    for top in ("service", "metrics", "loadtests")
    for path in sorted((ROOT / top).rglob("*"))
    if path.is_file() and path.suffix != ".pyc"
]


def is_packed(file: Path) -> bool:
    """Whether setuptools finds the file's package, and takes files of this name from it."""
    package = ".".join(file.parent.parts)
    patterns = ["*.py", *SETTINGS["package-data"].get(package, ())]
    return package in PACKAGES and any(file.match(pattern) for pattern in patterns)


def test_a_wheel_holds_all_that_is_imported_or_read() -> None:
    names = {file.as_posix() for file in FILES if is_packed(file)}
    assert names >= {"service/app/data.py", "metrics/slots.py", "loadtests/peers/__main__.py"}
    assert names == {file.as_posix() for file in FILES if not file.as_posix().startswith(NOT_INSTALLED)}
