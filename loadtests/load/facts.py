"""What the generator says about itself: while it runs, and at the end of a phase.

Knows the fields and their form as JSON. Touches nothing. Says nothing about the server: the samples do.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Self


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a phase has come, about five times a second."""

    elapsed_seconds: float
    duration_seconds: float
    planned: int  # in a closed loop: sent so far
    fired: int  # requests, without their retries
    connected: int
    in_flight: int
    outcomes: dict[str, int]  # by label, the most frequent ones
    ports: int = 0  # different local ports so far
    half_ports_after: int | None = None  # connections until half of the port range was used; None: it is not
    retried: int = 0  # attempts that followed another one


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorFacts:
    """How the generator fared in one phase; every judgement of a run starts from these.

    `sending`: from the start until the last request was due (or until the phase was stopped). After that it
    only waits for answers, and an overloaded generator recovers: its share of a core is judged while it
    sends.
    """

    address: str  # where it connected to, such as 127.0.0.1:8080
    started_monotonic: float  # seconds of this machine's monotonic clock, as are all times of samples
    started_epoch: float  # the same moment in seconds since 1970
    wall_seconds: float  # until the end of the last answer
    cpu_seconds: float
    sending_seconds: float
    sending_cpu_seconds: float
    busiest_second_cpu_share: float  # of one core, while sending; of the whole phase if it is shorter
    gc_pauses: int
    gc_max_pause_seconds: float
    interrupted: bool  # stopped early
    unreachable: bool  # connections failed and none was ever established
    late_port_parity: int | None = None  # of the ports that the kernel assigns last; None: no preference
    not_closed_by_server: int = 0  # answered in full and then left open: the generator closed them

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """Read the `to_json` form back; missing or unknown fields raise `TypeError`."""
        return cls(**fields)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return dataclasses.asdict(self)
