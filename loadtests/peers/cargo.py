"""Builds the design that is written in Rust, and finds how much of its work takes as long as Python's.

Knows cargo, and where Debian keeps the sources of the crates that it packages. Touches one file in the user's
cache, and no network.
"""

from __future__ import annotations

import hashlib
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

SOURCE: Final = Path(__file__).parent / "hyper"
FILES: Final = ("Cargo.toml", "src/main.rs")
CRATES: Final = Path("/usr/share/cargo/registry")
PACKAGES: Final = "Debian 12: apt-get install cargo librust-hyper-dev librust-tokio-dev"

LOOK_SECONDS: Final = 0.2  # for a first guess of the rounds, whose cost is not quite proportional
MEASURE_SECONDS: Final = 2.0  # then it is found to some 2 % even beside others


class NotBuiltError(Exception):
    """The design cannot be built here; why, in a few words."""


def program(cache: Path) -> Path:
    """Where the program is once it is built; each version of the source has its own."""
    digest = hashlib.sha256(b"".join((SOURCE / name).read_bytes() for name in FILES)).hexdigest()
    return cache / f"hyper-{digest[:12]}"


def build(cache: Path, crates: Path = CRATES) -> Path:
    """Build the program unless that has been done, and return it.

    Raises:
        NotBuiltError: there is no cargo or a crate is missing, or the cache cannot be written.
    """
    built = program(cache)
    if built.exists():
        return built
    if (cargo := shutil.which("cargo")) is None:
        raise NotBuiltError(f"cargo is not installed ({PACKAGES})")
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="build-", dir=cache) as name:
            _compile(cargo, Path(name), crates).replace(built)
    except OSError as error:
        raise NotBuiltError(f"{error.filename}: {error.strerror}") from None
    return built


def _compile(cargo: str, folder: Path, crates: Path) -> Path:
    """Compile a copy of the source: cargo writes Cargo.lock beside Cargo.toml."""
    shutil.copytree(SOURCE, folder / "source")
    config = {  # of a directory as the source of all crates: cargo's documentation, "Source Replacement"
        "source.crates-io.replace-with": "debian",
        "source.debian.directory": str(crates),
    }
    ended = subprocess.run(
        [
            *(cargo, "build", "--release", "--offline", "--target-dir", str(folder / "target")),
            *(part for name, value in config.items() for part in ("--config", f"{name}='{value}'")),
        ],
        cwd=folder / "source",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if ended.returncode:
        errors = [line for line in ended.stderr.splitlines() if line.startswith("error")]
        said = errors[0].partition(": ")[2] if errors else f"cargo ended with {ended.returncode}"
        raise NotBuiltError(f"{said} ({PACKAGES})")
    return folder / "target/release/offloop-hyper"


def rounds(built: str | Path, work: Callable[[int], object], units: int) -> int:
    """How many rounds of the program take the CPU time of `work(units)`, at least `units`.

    Both are measured by turns: the same work may take twice the time a few minutes later, but Rust then slows
    as Python does. Hence a fixed amount of work, and no loop that watches the clock until S is over: in a
    faster minute than that of the calibration its requests would be longer than those of the others.
    """
    found = units
    for seconds in (LOOK_SECONDS, MEASURE_SECONDS):
        ratio = statistics.median(_ratios(built, work, units, found, seconds))
        found = max(units, round(found * ratio))
    return found


def _ratios(
    built: str | Path, work: Callable[[int], object], units: int, rounds: int, seconds: float
) -> Iterator[float]:
    """CPU time of Python over that of Rust, once at least."""
    command = [str(built), "measure", str(units), str(rounds)]
    until = time.monotonic() + seconds
    while True:
        before = time.thread_time()
        work(units)
        spent = time.thread_time() - before
        yield spent / float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        if time.monotonic() >= until:
            return
