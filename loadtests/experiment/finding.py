"""What a rule says of a claim: held, did not hold, or inconclusive, with the numbers it saw. Pure."""

from __future__ import annotations

import dataclasses
from typing import Final

from loadtests.experiment.statistics import Estimate, Region

HELD: Final = "held"
DID_NOT_HOLD: Final = "did not hold"
INCONCLUSIVE: Final = "inconclusive"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a rule found. `numbers`: what it saw; `why`: one sentence; the interval, if one was judged."""

    verdict: str
    numbers: str
    why: str
    estimate: Estimate | None = None
    region: Region | None = None
