"""The machine that a run was measured on: hardware, kernel, settings, versions, load before the run.

Touches /proc and package metadata. Contains no name of the machine or of its user.
"""

from __future__ import annotations

import dataclasses
import os
import platform
import resource
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from loadtests.neighbours import effective_cores

SYSCTLS = (
    "net/core/somaxconn",
    "net/ipv4/ip_local_port_range",
    "net/ipv4/tcp_tw_reuse",
    "net/ipv4/tcp_max_syn_backlog",
    "net/ipv4/tcp_abort_on_overflow",
)
PACKAGES = ("aiohttp", "uvloop", "prometheus-client", "httptools")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """Facts that a reader needs to judge or repeat a run; None for what cannot be read."""

    date: str
    cpu: str | None
    cores: float
    memory_bytes: int
    kernel: str
    python: str
    packages: dict[str, str | None]
    sysctl: dict[str, str | None]
    open_files_limit: int
    load_average: float  # of the minute before the run


def environment() -> Environment:
    """The facts as they are now."""
    return Environment(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        cpu=_cpu_model(),
        cores=effective_cores(),
        memory_bytes=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        kernel=f"{platform.system()} {platform.release()}",
        python=f"{platform.python_implementation()} {platform.python_version()}",
        packages={name: _version(name) for name in PACKAGES},
        sysctl={name.replace("/", "."): _read(Path("/proc/sys") / name) for name in SYSCTLS},
        open_files_limit=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        load_average=os.getloadavg()[0],
    )


def _cpu_model() -> str | None:
    text = _read(Path("/proc/cpuinfo")) or ""
    names = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor() or None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _read(path: Path) -> str | None:
    try:
        return (
            " ".join(path.read_text(encoding="utf-8").split()) if path.name != "cpuinfo" else path.read_text()
        )
    except OSError:
        return None
