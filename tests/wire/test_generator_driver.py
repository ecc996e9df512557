"""The driver as a child process: progress while it runs, samples however it ends."""

from __future__ import annotations

import collections.abc
import gc
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from loadtests.load import driver
from loadtests.load.driver import CoreWait
from loadtests.load.facts import Progress
from loadtests.load.generator import Generator, GeneratorError, read_samples
from loadtests.load.phase import Phase
from loadtests.load.summary import ledger, summarise
from tests.support.processes import descriptors, resident_bytes
from tests.support.servers import OK_ANSWER, ScriptedServer, answer_with


def run_phase(phase: Phase, samples_path: Path) -> collections.abc.Generator[Progress, None, None]:
    with Generator() as generator:
        yield from generator.run(phase, samples_path)


def test_a_run_tells_its_progress_and_leaves_every_planned_request_in_the_file(tmp_path: Path) -> None:
    with ScriptedServer(answer_with(OK_ANSWER)) as server:
        phase = Phase(url=server.url, rate=100, duration_seconds=0.5, arrivals="poisson", seed=4)
        lines = list(run_phase(phase, tmp_path / "samples.json"))
    samples, facts = read_samples(tmp_path / "samples.json")
    assert lines[0].fired <= lines[-1].fired == lines[-1].planned == len(samples)
    assert lines[-1].outcomes == {"ok": len(samples)}
    assert lines[-1].connected == len(server.requests) == len(samples)
    assert lines[-1].in_flight == 0
    assert facts.interrupted is facts.unreachable is False
    assert facts.address == f"127.0.0.1:{server.port}"
    assert 0 < facts.cpu_seconds < facts.wall_seconds
    assert facts.wall_seconds >= 0.5
    assert [path.name for path in tmp_path.iterdir()] == ["samples.json"]


def test_a_stopped_driver_leaves_a_complete_file_that_says_so(tmp_path: Path) -> None:
    with ScriptedServer(lambda connection: server.hold(connection)) as server:
        phase = Phase(url=server.url, rate=100, duration_seconds=60)
        run = run_phase(phase, tmp_path / "samples.json")
        while next(run).fired < 5:
            pass
        run.close()
    samples, facts = read_samples(tmp_path / "samples.json")
    books = ledger(samples)
    assert facts.interrupted is True
    assert books.planned == 6_000
    assert books.sent >= 5
    assert books.not_sent > 0
    assert summarise(samples, facts, phase).outcomes.keys() == {"aborted", "not_sent"}


def test_an_end_before_the_first_request_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # SIGTERM came while the GC collected what the last phase had left: an exception in its callback is
    # reported and lost, and the phase went on for its whole length.
    said: list[dict[str, Any]] = []

    def emit(message: dict[str, Any], *, wait: bool = False) -> bool:  # noqa: ARG001  # as the real one
        said.append(message)
        return True

    monkeypatch.setattr(driver, "emit", emit)
    serving = driver.Driver()
    monkeypatch.setattr(serving._pauses, "restart", lambda: serving.end(signal.SIGTERM))
    phase = Phase(url="http://127.0.0.1:9/data", rate=100, duration_seconds=60)
    orders = [json.dumps({"phase": phase.to_json(), "samples_path": str(tmp_path / "samples.json")})] * 2
    try:
        serving.serve(orders)
    finally:
        gc.callbacks.remove(serving._pauses._note)
    samples, facts = read_samples(tmp_path / "samples.json")
    assert facts.interrupted
    assert facts.wall_seconds < 10
    assert (ledger(samples).planned, ledger(samples).sent) == (6000, 0)
    assert {"end": None} not in said, "it served another"


def test_ctrl_c_in_the_parent_stops_the_driver_and_keeps_what_was_measured(tmp_path: Path) -> None:
    with ScriptedServer(answer_with(OK_ANSWER)) as server:
        run = run_phase(Phase(url=server.url, rate=100, duration_seconds=60), tmp_path / "samples.json")
        while not next(run).outcomes.get("ok"):
            pass
        with pytest.raises(KeyboardInterrupt):
            run.throw(KeyboardInterrupt)
    samples, facts = read_samples(tmp_path / "samples.json")
    assert facts.interrupted is True
    assert ledger(samples).answered > 0


def test_a_driver_that_cannot_start_says_why_in_one_sentence(tmp_path: Path) -> None:
    phase = Phase(url="http://127.0.0.1:9/", rate=1, duration_seconds=1, source="192.0.2.1")
    with pytest.raises(GeneratorError, match="Cannot assign requested address"):
        list(run_phase(phase, tmp_path / "samples.json"))
    assert list(tmp_path.iterdir()) == []


def test_the_wait_for_a_core_is_read_from_the_kernels_account_where_there_is_one(tmp_path: Path) -> None:
    account = tmp_path / "schedstat"
    account.write_text("608261 1037797000 3\n")
    assert CoreWait(account)() == pytest.approx(1.037797)
    assert CoreWait(tmp_path / "none")() == 0.0


def tiny(url: str) -> Phase:
    return Phase(url=url, rate=100, duration_seconds=0.02)


def test_one_process_serves_phase_after_phase_and_ends_with_the_context(tmp_path: Path) -> None:
    with ScriptedServer(answer_with(OK_ANSWER)) as server, Generator() as generator:
        assert generator.pid is None
        pids: set[int | None] = set()
        for number in range(3):
            list(generator.run(tiny(server.url), tmp_path / f"{number}.json"))
            pids.add(generator.pid)
        assert len(pids) == 1
        (pid,) = pids
        for number in range(3):
            samples, facts = read_samples(tmp_path / f"{number}.json")
            assert [sample.outcome for sample in samples] == ["ok", "ok"]
            assert facts.gc_pauses == 0
            assert facts.cpu_seconds < 0.5
    assert pid is not None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_fifty_phases_leave_no_descriptor_and_no_memory_behind(tmp_path: Path) -> None:
    def held() -> tuple[int, int]:
        assert generator.pid is not None
        return descriptors(generator.pid), resident_bytes(generator.pid)

    with ScriptedServer(answer_with(OK_ANSWER)) as server, Generator() as generator:
        for number in range(50):
            list(generator.run(tiny(server.url), tmp_path / "samples.json"))
            if number == 4:
                before = held()
        after = held()
    assert after[0] == before[0]
    assert after[1] <= before[1] + 512 * 1024


def test_a_phase_that_cannot_start_leaves_the_generator_as_it_was(tmp_path: Path) -> None:
    bad = Phase(url="http://127.0.0.1:9/", rate=1, duration_seconds=1, source="192.0.2.1")
    with ScriptedServer(answer_with(OK_ANSWER)) as server, Generator() as generator:
        list(generator.run(tiny(server.url), tmp_path / "samples.json"))
        pid = generator.pid
        with pytest.raises(GeneratorError, match="Cannot assign requested address"):
            list(generator.run(bad, tmp_path / "bad.json"))
        list(generator.run(tiny(server.url), tmp_path / "samples.json"))
        assert generator.pid == pid


def test_a_phase_that_is_closed_early_is_kept_and_the_next_one_runs_in_a_new_process(tmp_path: Path) -> None:
    with ScriptedServer(answer_with(OK_ANSWER)) as server, Generator() as generator:
        run = generator.run(Phase(url=server.url, rate=100, duration_seconds=60), tmp_path / "long.json")
        while not next(run).outcomes.get("ok"):
            pass
        cut_off = generator.pid
        run.close()
        assert generator.pid is None
        assert read_samples(tmp_path / "long.json")[1].interrupted is True
        list(generator.run(tiny(server.url), tmp_path / "next.json"))
        assert generator.pid != cut_off
    assert read_samples(tmp_path / "next.json")[1].interrupted is False


def test_the_end_of_the_context_stops_a_phase_that_nobody_closed(tmp_path: Path) -> None:
    with ScriptedServer(answer_with(OK_ANSWER)) as server:
        with Generator() as generator:
            run = generator.run(Phase(url=server.url, rate=100, duration_seconds=60), tmp_path / "long.json")
            next(run)
            with pytest.raises(RuntimeError, match="one phase at a time"):
                next(generator.run(tiny(server.url), tmp_path / "second.json"))
        assert read_samples(tmp_path / "long.json")[1].interrupted is True
        run.close()


def test_a_generator_that_was_ended_between_phases_is_replaced(tmp_path: Path) -> None:
    with ScriptedServer(answer_with(OK_ANSWER)) as server, Generator() as generator:
        list(generator.run(tiny(server.url), tmp_path / "samples.json"))
        pid = generator.pid
        assert pid is not None
        os.kill(pid, signal.SIGTERM)  # idle, it ends at once and without a word
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        list(generator.run(tiny(server.url), tmp_path / "samples.json"))
        assert generator.pid != pid


def test_a_generator_that_breaks_in_a_phase_is_an_error_with_its_exit_code(tmp_path: Path) -> None:
    with ScriptedServer(answer_with(OK_ANSWER)) as server, Generator() as generator:
        run = generator.run(Phase(url=server.url, rate=100, duration_seconds=60), tmp_path / "samples.json")
        next(run)
        assert generator.pid is not None
        os.kill(generator.pid, signal.SIGKILL)
        with pytest.raises(GeneratorError, match="exit code -9"):
            list(run)
