"""What is asked of a run besides its load. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from loadtests.load.thresholds import Threshold


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """Where results go.

    `out`: the run folder; None for one that is thrown away. `json`: a file for the summary, "-" for stdout.
    `junit`: a file for the thresholds.
    """

    out: Path | None = None
    json: str | None = None
    junit: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What the user says of this machine.

    `server_processes`: names of processes that belong to the server, besides those that listen on its port.
    `shared`: other people use the machine, so their CPU time is a caution and no reason for INVALID.
    """

    server_processes: Sequence[str] = ()
    shared: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is asked of a run besides its load.

    `slo_seconds`: the latest an answer may come to count as goodput. `command`: the run as it was typed, word
    by word, from which remedies are made that can be pasted.
    """

    thresholds: Sequence[Threshold]
    slo_seconds: float | None
    keep: Keep
    command: Sequence[str]
    machine: Machine
