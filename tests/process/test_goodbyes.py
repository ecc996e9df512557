"""The short form of `make goodbyes`."""

from __future__ import annotations

from pathlib import Path

from tests.proofs.goodbyes import stops


async def test_every_client_hears_of_the_end(tmp_path: Path) -> None:
    figures = await stops(tmp_path, times=4, seed=1, jobs=1)
    assert figures["seen"]["exit 0"] == 4
