"""Replicas behind HAProxy, short form of `make replicas`; each function asserts what must hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.proofs import replicas
from tests.support import ROOT
from tests.support.haproxy import CONFIGURATION
from tests.support.tools import need, run


def test_haproxy_finds_no_fault_in_the_configuration(tmp_path: Path) -> None:
    code, said = run([need("haproxy", "haproxy"), "-c", "-f", CONFIGURATION], tmp_path, cwd=ROOT)
    assert code == 0, said
    assert "WARNING" not in said


def test_a_kill_costs_what_was_open_on_it_and_a_drain_nothing_and_all_books_agree(tmp_path: Path) -> None:
    replicas.killed_and_drained(tmp_path, seconds=8, rate=40)


def test_what_waits_for_a_replica_that_stands_still_is_refused_after_the_queue_wait(tmp_path: Path) -> None:
    replicas.queue_is_bounded(tmp_path, held=2, waiting=5)


@pytest.mark.alone
def test_three_replicas_carry_more_than_one(tmp_path: Path) -> None:
    replicas.gain(tmp_path, seconds=1.5, pairs=3, least=2)
