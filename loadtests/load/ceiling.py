"""The generator's own ceiling on this machine: as `self-test` last measured it, and as `run` warns by it.

Knows the form of the file. Touches nothing else.
"""

import dataclasses
import json
from pathlib import Path
from typing import Final

from loadtests.files import write_json

FILE: Final = "self-test.json"
"""In the folder for what is kept between commands."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Ceiling:
    """Up to `per_second` the generator was on time, and from `above_per_second` on it was not.

    `why`: what was late. `cpu_seconds`: of the generator, for one request, in the last trial that was on
    time.
    """

    per_second: float
    above_per_second: float
    cpu_seconds: float
    why: str


def keep(ceiling: Ceiling, file: Path) -> None:
    """Keep the ceiling for later runs; its folder is made if it does not exist."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, dataclasses.asdict(ceiling), indent=2)


def remembered(file: Path) -> Ceiling | None:
    """The ceiling as last measured; None if it never was, or cannot be read."""
    try:
        return Ceiling(**json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
