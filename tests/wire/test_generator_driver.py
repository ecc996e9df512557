"""The driver as a child process: progress while it runs, samples however it ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtests.load.generator import GeneratorError, read_samples, run_phase
from loadtests.load.phase import Phase
from loadtests.load.summary import ledger, summarise
from tests.wire.generator_support import OK_ANSWER, ScriptedServer, answer_with


def test_a_run_tells_its_progress_and_leaves_every_planned_request_in_the_file(tmp_path: Path) -> None:
    with ScriptedServer(answer_with(OK_ANSWER)) as server:
        phase = Phase(url=server.url, rate=100, duration_seconds=0.5, arrivals="poisson", seed=4)
        lines = list(run_phase(phase, tmp_path / "samples.json"))
    samples, facts = read_samples(tmp_path / "samples.json")
    assert lines[0]["fired"] <= lines[-1]["fired"] == lines[-1]["planned"] == len(samples)
    assert lines[-1]["outcomes"] == {"ok": len(samples)}
    assert lines[-1]["connected"] == len(server.requests) == len(samples)
    assert lines[-1]["in_flight"] == 0
    assert facts["interrupted"] is facts["unreachable"] is False
    assert facts["address"] == f"127.0.0.1:{server.port}"
    assert 0 < facts["cpu_seconds"] < facts["wall_seconds"]
    assert facts["wall_seconds"] >= 0.5
    assert [path.name for path in tmp_path.iterdir()] == ["samples.json"]


def test_a_stopped_driver_leaves_a_complete_file_that_says_so(tmp_path: Path) -> None:
    with ScriptedServer(lambda connection: server.hold(connection)) as server:
        phase = Phase(url=server.url, rate=100, duration_seconds=60)
        run = run_phase(phase, tmp_path / "samples.json")
        while next(run)["fired"] < 5:
            pass
        run.close()
    samples, facts = read_samples(tmp_path / "samples.json")
    books = ledger(samples)
    assert facts["interrupted"] is True
    assert books["planned"] == 6_000
    assert books["sent"] >= 5
    assert books["not_sent"] > 0
    assert summarise(samples, facts, phase)["outcomes"].keys() == {"aborted", "not_sent"}


def test_ctrl_c_in_the_parent_stops_the_driver_and_keeps_what_was_measured(tmp_path: Path) -> None:
    with ScriptedServer(answer_with(OK_ANSWER)) as server:
        run = run_phase(Phase(url=server.url, rate=100, duration_seconds=60), tmp_path / "samples.json")
        while not next(run)["outcomes"].get("ok"):
            pass
        with pytest.raises(KeyboardInterrupt):
            run.throw(KeyboardInterrupt)
    samples, facts = read_samples(tmp_path / "samples.json")
    assert facts["interrupted"] is True
    assert ledger(samples)["answered"] > 0


def test_a_driver_that_cannot_start_says_why_in_one_sentence(tmp_path: Path) -> None:
    phase = Phase(url="http://127.0.0.1:9/", rate=1, duration_seconds=1, source="192.0.2.1")
    with pytest.raises(GeneratorError, match="Cannot assign requested address"):
        list(run_phase(phase, tmp_path / "samples.json"))
    assert list(tmp_path.iterdir()) == []
