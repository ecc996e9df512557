"""What `make repeats` and `make comebacks` leave behind when they are told to stop."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from tests.support import ROOT
from tests.support.processes import children, gone
from tests.support.waiting import until


@pytest.mark.timeout(300)
def test_ctrl_c_leaves_no_experiment_and_no_service() -> None:
    command = [sys.executable, "-m", "tests.proofs.repeats", "--preset", "a-a", "--runs", "1"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, start_new_session=True) as proof:
        try:
            (experiment,) = until(lambda: children(proof.pid))
            until(lambda: len(children(experiment)) == 4)  # three services and a generator
            started = {experiment, *children(experiment)}
        finally:
            proof.send_signal(signal.SIGINT)
        assert proof.wait(timeout=120)
    assert all(gone(pid) for pid in started)
