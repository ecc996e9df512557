"""Faults under load, short form of `make faults` and `make soak`; each function asserts what must hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.proofs import faults

pytestmark = pytest.mark.alone


def test_killed_workers_cost_no_request(tmp_path: Path) -> None:
    # Half the goodput: a window this short cannot tell 80 % from all that a busy machine has.
    faults.killed_workers(tmp_path, seconds=1.5, pause=0.2, share=0.5)


def test_a_task_that_never_ends_costs_its_own_request(tmp_path: Path) -> None:
    # The load is longer than the deadline: the others do not notice the end of the task either.
    faults.endless_task(tmp_path, seconds=4, deadline=3, compared=False)


def test_no_work_is_done_for_clients_that_vanish(tmp_path: Path) -> None:
    faults.vanishing(tmp_path, clients=400, good=20)


def test_a_crowd_that_vanishes_takes_its_work_along(tmp_path: Path) -> None:
    faults.crowd(tmp_path, clients=200)


def test_memory_and_descriptors_stay_under_faults(tmp_path: Path) -> None:
    faults.soak(tmp_path, requests=200, rate=200)
