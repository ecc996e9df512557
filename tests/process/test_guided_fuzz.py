"""The short form of `make guided-fuzz`."""

from __future__ import annotations

import importlib.util

import pytest

from tests.proofs.guided_fuzz import TARGETS, fuzz


@pytest.mark.parametrize("target", TARGETS)
def test_no_bytes_mislead_what_reads_them_by_itself(target: str) -> None:
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("atheris has no wheel for this Python")
    assert fuzz(target, 20_000)["runs"] >= 20_000
