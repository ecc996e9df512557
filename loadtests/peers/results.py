"""The result of a comparison, as typed values and as JSON. Pure.

The file is the boundary between measuring and reporting: tables and figure are functions of it. Blocks are
kept as rows under one list of columns, without samples.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Final, Self

from loadtests.experiment.statistics import Estimate
from loadtests.peers.block import Block, Conditions
from loadtests.peers.plan import Plan
from loadtests.peers.rows import Row, rows_of

BLOCK: Final = tuple(field.name for field in dataclasses.fields(Block) if field.name != "conditions")
CONDITIONS: Final = tuple(field.name for field in dataclasses.fields(Conditions))
DIGITS: Final = 5  # significant ones: more than any clock here has


@dataclasses.dataclass(frozen=True, slots=True)
class Results:
    """The plan, all blocks that were measured, void ones too, the machine, and why designs were skipped."""

    environment: dict[str, Any]
    plan: Plan
    blocks: tuple[Block, ...]
    skipped: dict[str, str]

    @property
    def rows(self) -> list[Row]:
        """A row for each load and design."""
        return rows_of(self.plan, self.blocks)

    @property
    def invalid(self) -> bool:
        """Whether some row misses more pairs than it has: the machine was too busy."""
        return any(2 * row.pairs < self.plan.cycles for row in self.rows)

    def to_json(self) -> dict[str, Any]:
        """Return plan, rows and blocks as JSON types; the rows are for readers and never read back."""
        content = {
            "state": "invalid" if self.invalid else "ok",
            "environment": self.environment,
            "plan": self.plan.to_json(),
            "skipped": self.skipped,
            "columns": [*BLOCK, *CONDITIONS],
            "blocks": [_values(block) for block in self.blocks],
        }
        kept = self.from_json(content)  # rounded: the rows must follow from the blocks in the file
        return {**content, "rows": [_row_to_json(row) for row in kept.rows]}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """Read a file back; a missing column raises `KeyError`."""
        blocks = []
        for values in content["blocks"]:
            named = dict(zip(content["columns"], values, strict=True))
            conditions = Conditions(**{name: named[name] for name in CONDITIONS})
            blocks.append(Block(**{name: named[name] for name in BLOCK}, conditions=conditions))
        return cls(content["environment"], Plan.from_json(content["plan"]), tuple(blocks), content["skipped"])


def _values(block: Block) -> list[Any]:
    values = [getattr(block, name) for name in BLOCK]
    return [_round(value) for value in values + [getattr(block.conditions, name) for name in CONDITIONS]]


def _row_to_json(row: Row) -> dict[str, Any]:
    fields = {field.name: getattr(row, field.name) for field in dataclasses.fields(row)}
    return {
        name: _estimate_to_json(value) if isinstance(value, Estimate) else _round(value)
        for name, value in fields.items()
    }


def _estimate_to_json(estimate: Estimate) -> dict[str, Any]:
    ends = {"low": estimate.low, "high": estimate.high} if estimate.finite else {"low": None, "high": None}
    return {name: _round(value) for name, value in {"value": estimate.value, **ends}.items()}


def _round(value: Any) -> Any:
    if isinstance(value, float) and math.isfinite(value) and value:
        return round(value, DIGITS - 1 - math.floor(math.log10(abs(value))))
    return value
