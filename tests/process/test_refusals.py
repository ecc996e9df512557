"""The short form of `make refusals`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.proofs import refusals


@pytest.mark.alone
def test_both_refuse_what_they_are_asked(tmp_path: Path) -> None:
    figures = refusals.compare(rounds=1, seconds=0.3, folder=tmp_path)
    assert set(figures["outcomes"]["bare"]) == {"status_503"}
    ours = figures["outcomes"]["ours"]
    assert ours["status_503"] > 0.9 * sum(ours.values())
    assert set(ours) <= {"ok", "status_503"}
    assert min(figures["cpu_us_per_refusal"].values()) > 0
