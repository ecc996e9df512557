"""The generator beside wrk and hey, short form of `make beside-tools`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.proofs import beside_tools
from tests.support.tools import need

pytestmark = pytest.mark.alone


def test_each_tool_counts_what_the_server_counts_and_measures_no_less_than_it_held(tmp_path: Path) -> None:
    need("wrk", "wrk")
    need("hey", "hey")
    with beside_tools.server(hold_ms=20) as place:
        found = beside_tools.measure(place, 2, 0.4, tmp_path, 0)  # compares the books of either side
    assert found.keys() == {"offloop", "wrk", "hey"}
    for run in found.values():
        assert run.hold >= 0.020
        assert run.median >= 0.0195, "sooner than the server answers, but for the steps of a clock"
    assert found["offloop"].parts.keys() == {"connected to read", "sent to finished"}
