"""Which statuses a run expects, as typed. Pure.

Knows the grammar `200`, `2xx`, `200-299` and commas between them. Touches nothing.
"""

import re
from typing import Final

LOWEST: Final = 200  # 1xx is interim: the final answer follows it (RFC 9110, 15.2)
HIGHEST: Final = 599
_PART: Final = re.compile(r"([2-5])xx|(\d{3})(?:-(\d{3}))?")


def parse_statuses(text: str) -> frozenset[int]:
    """Return the statuses that `text` names; a `ValueError` says in one sentence what is wrong with it."""
    found: set[int] = set()
    for part in text.split(","):
        match = _PART.fullmatch(part.strip().lower())
        if match is None:
            raise ValueError(f"expect {text!r} is not statuses such as 200, 2xx, 200-299 or 200,204")
        hundreds, first, last = match.groups()
        low = int(hundreds) * 100 if hundreds else int(first)
        high = low + 99 if hundreds else int(last or first)
        if not LOWEST <= low <= high <= HIGHEST:
            raise ValueError(f"expect {text!r}: statuses go up from {LOWEST} to {HIGHEST}")
        found.update(range(low, high + 1))
    return frozenset(found)
