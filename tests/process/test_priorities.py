"""Overload hurts nobody who matters, short form of `make priorities`; each function asserts what must hold.

The work sleeps: how much one worker can do does not depend on what else this machine does.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.proofs import priorities

ONE_WORKER = ("--work", "tests.work:sleeps_40_ms", "--work-units", "1", "--workers", "1")
LIMIT = 1 / 0.04


@pytest.mark.alone
@pytest.mark.timeout(300)  # void rounds are repeated
def test_the_urgent_are_all_answered_whatever_the_others_send(tmp_path: Path) -> None:
    found = priorities.urgent_first(tmp_path / "urgent", 2, 5 * LIMIT, ONE_WORKER, may_be_disturbed=True)[
        "rounds"
    ][0]
    counted = found["with"]["the service counts"]
    assert counted["{outcome=completed,urgency=0}"] == found["with"]["urgent"]["planned"]
    assert counted["{outcome=rejected,urgency=3}"] > 0
    assert "{outcome=rejected,urgency=0}" not in counted


@pytest.mark.alone
def test_one_client_with_most_of_the_load_costs_the_others_nothing(tmp_path: Path) -> None:
    priorities.shared(tmp_path / "share", 2, LIMIT, ONE_WORKER)
