"""What the generator says about itself: while it runs, and when a phase is over.

Knows the fields and their form as JSON. Touches nothing. Never says anything about the server: that
is for the samples.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Self


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a phase stands, told about five times a second."""

    elapsed_seconds: float
    duration_seconds: float
    planned: int  # of a closed loop: what was sent so far
    fired: int
    connected: int
    in_flight: int
    outcomes: dict[str, int]  # by label, the most frequent ones
    ports: int = 0  # different local ports so far
    half_ports_after: int | None = None  # connections until half of the port range was gone; None: it is not


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorFacts:
    """How the generator fared in one phase; every judgement of a run starts from these.

    `sending`: from the start until the last request was due (or until the phase was stopped). What
    comes after it is waiting for answers, in which an overworked generator recovers: its share of a
    core is judged while it sends.
    """

    address: str  # where it connected to, such as 127.0.0.1:8080
    started_monotonic: float  # seconds of this machine's monotonic clock, as are all times of samples
    started_epoch: float  # the same moment in seconds since 1970
    wall_seconds: float  # to the end of the last answer
    cpu_seconds: float
    sending_seconds: float
    sending_cpu_seconds: float
    busiest_second_cpu_share: float  # of one core, while sending; over a shorter phase, of the whole of it
    gc_pauses: int
    gc_max_pause_seconds: float
    interrupted: bool  # stopped before its end
    unreachable: bool  # connections failed and not one ever stood
    late_port_parity: int | None = None  # of the ports that the kernel hands out last; None: no preference
    not_closed_by_server: int = 0  # answered in full and then left open: we had to close them

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """Read the `to_json` form back; missing or unknown fields raise `TypeError`."""
        return cls(**fields)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return dataclasses.asdict(self)
