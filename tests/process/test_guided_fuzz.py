"""The short form of `make guided-fuzz`."""

from __future__ import annotations

import importlib.util

import pytest

from tests.proofs.guided_fuzz import fuzz


@pytest.mark.parametrize(("target", "runs"), [("early", 50_000), ("channel", 5_000)])
def test_no_bytes_mislead_what_reads_them_by_itself(target: str, runs: int) -> None:
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("atheris has no wheel for this Python")
    assert fuzz(target, runs)["runs"] >= runs
