"""What else used the machine and the server during a run. Pure.

Knows what spoils a run. Touches nothing: witness.py observes.
"""

import dataclasses
from typing import Any

from loadtests.neighbours import MOST_STOLEN, Share, Shares


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings(Shares):
    """Shares of the machine's CPU time, and connections of the server that were not ours."""

    busiest_other: str | None = None  # name of the process that used most of the others' CPU time
    foreign_connections: int = 0

    shared_machine: bool = False  # --shared-machine: a caution and no fault

    def faults(self, most_stolen: float = MOST_STOLEN) -> tuple[str, ...]:
        """Why the run says nothing about the server; empty if it may be judged."""
        found = [] if self.shared_machine else list(Shares.faults(self, most_stolen))
        if self.foreign_connections:
            found.append(
                f"other clients used the server: {self.foreign_connections} of its connections were not this "
                "run's; stop them, or measure another server"
            )
        return tuple(found)

    def cautions(self) -> tuple[str, ...]:
        """What a reader should know of a run that may be judged."""
        return Shares.faults(self) if self.shared_machine else ()

    def told(self, sentence: str, share: Share) -> str:
        """A fault with what to do about it."""
        if share == "stolen":
            return f"{sentence}: measure at another time, or on a machine of its own"
        if share == "throttled":
            return f"{sentence}: raise it (cpu.max of the cgroup), or offer less"
        if self.busiest_other is None:
            return f"{sentence}: stop them"
        return (
            f"{sentence}, most of it {self.busiest_other}: stop it, or say "
            f"--server-process {self.busiest_other} if it belongs to the server"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return dataclasses.asdict(self)
