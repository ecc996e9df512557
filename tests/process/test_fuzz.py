"""The short form of `make fuzz`: what clients send may be anything."""

from __future__ import annotations

from pathlib import Path

from tests.proofs.fuzz import fuzz


def test_no_bytes_on_the_socket_break_the_service(tmp_path: Path) -> None:
    figures = fuzz(1_000, first_seed=1, folder=tmp_path)
    assert figures["requests_that_reached_the_handler"] > 100
