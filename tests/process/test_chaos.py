"""The short form of `make chaos`: each fault once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.proofs.chaos import ANSWERS, chaos


@pytest.mark.alone
@pytest.mark.timeout(300)  # each of its faults may take WHOLE_SECONDS
def test_chaos_costs_no_request_but_those_on_a_killed_process(tmp_path: Path) -> None:
    figures = chaos(tmp_path, seconds=15, seed=1)
    assert set(figures["faults"].values()) >= {1}
    assert len(figures["faults"]) == 11
    answered = sum(figures["outcomes"][name] for name in ANSWERS & set(figures["outcomes"]))
    assert answered >= 0.9 * figures["rate"] * 15
