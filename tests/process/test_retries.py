"""Every attempt is in the books, short form of `make retries`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.proofs import retries

ONE_WORKER = ("--work", "tests.work:sleeps_40_ms", "--work-units", "1", "--workers", "1")


@pytest.mark.alone
def test_every_attempt_of_clients_that_try_again_is_in_the_books_of_both_sides(tmp_path: Path) -> None:
    found = retries.soak(tmp_path, 150, 75, ONE_WORKER)
    assert found["clients"]["planned"] == 150
    assert found["outcomes of attempts"]["usual"]["status_503"] > 0
