"""What the service says that answers took, short form of `make overload`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.proofs import overload


@pytest.mark.alone
def test_no_duration_is_longer_than_the_clients_or_invented(tmp_path: Path) -> None:
    found = overload.overload(tmp_path, overload.Row(4, 3), 6.0)
    assert found["times the limit"] == pytest.approx(3, abs=0.1)
    client, service = found["mean ms of 200s: client"], found["mean ms of 200s: service"]
    assert 0 < service <= client
