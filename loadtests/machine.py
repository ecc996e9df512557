"""What the numbers were measured on: hardware, kernel, settings, versions, and who else was busy.

Touches /proc and package metadata. Nothing in it names the machine or its user.
"""

from __future__ import annotations

import os
import platform
import resource
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

SYSCTLS = (
    "net/core/somaxconn",
    "net/ipv4/ip_local_port_range",
    "net/ipv4/tcp_tw_reuse",
    "net/ipv4/tcp_max_syn_backlog",
    "net/ipv4/tcp_abort_on_overflow",
)
PACKAGES = ("aiohttp", "uvloop", "prometheus-client", "httptools")


def environment() -> dict[str, Any]:
    """Facts that a reader needs to judge or repeat a run; what cannot be read is null."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": _cpu_model(),
        "cores": cores(),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": {name: _version(name) for name in PACKAGES},
        "sysctl": {name.replace("/", "."): _read(Path("/proc/sys") / name) for name in SYSCTLS},
        "open_files_limit": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        "load_average": list(os.getloadavg()),
    }


def cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def stolen_seconds() -> float | None:
    """CPU seconds that a hypervisor gave to somebody else since boot, all cores; None off Linux."""
    line = _read(Path("/proc/stat"))
    return int(line.split()[8]) / os.sysconf("SC_CLK_TCK") if line else None


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
