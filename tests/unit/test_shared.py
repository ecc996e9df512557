"""The metrics of several processes: slots that outlive their processes, one exposition for all of them."""

from __future__ import annotations

import fcntl
import math
import os
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest, values

from metrics import shared
from metrics.catalogue import CATALOGUE
from metrics.exposition import parse, total
from metrics.instruments import ConnectionEnd, Metrics, TaskOutcome
from metrics.peaks import WINDOW_SECONDS
from metrics.shared import KeptCounter, Sampler, SharedMetrics, Together
from metrics.slots import FILE_BYTES, RECORD, RECORD_BYTES, RECORDS_AT, STATE_AT, Slot, look
from service.log.output import Output
from tests.support.waiting import until

STALL_SECONDS = 5.0
Start = Callable[[], SharedMetrics]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(values, "ValueClass", values.ValueClass)  # to be restored
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    yield tmp_path
    values.close_all_multiprocess_files()  # type: ignore[no-untyped-call]


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    """Starts what would be a process of its own, and ends those that still live."""
    started: list[SharedMetrics] = []

    def _start() -> SharedMetrics:
        started.append(SharedMetrics(Slot(folder)))
        return started[-1]

    yield _start
    for metrics in started:
        die(metrics)


def die(metrics: SharedMetrics) -> None:
    """What the kernel does for a process that is killed: its lock is open, its files stay."""
    metrics.slot.close()


def scrape(folder: Path) -> dict[str, float]:
    return parse(generate_latest(Together(folder, STALL_SECONDS).registry).decode())


def test_a_process_takes_the_lowest_slot_that_is_free(folder: Path) -> None:
    first, second, third = (Slot(folder) for _ in range(3))
    assert [first.number, second.number, third.number] == [0, 1, 2]
    second.close()
    again = Slot(folder)
    assert again.number == 1
    assert [slot.alive for slot in look(folder)] == [True, True, True]
    for slot in (first, again, third):
        slot.close()
    assert [slot.alive for slot in look(folder)] == [False, False, False]


def test_counters_of_all_processes_are_added_and_go_on_over_generations(folder: Path, start: Start) -> None:
    for generation in range(1, 4):
        processes = start(), start()
        for metrics in processes:
            metrics.tasks[TaskOutcome.COMPLETED].inc(10)
            metrics.request("GET", "/data", 200, 0.003)
        found = scrape(folder)
        assert found["offload_tasks_total{outcome=completed}"] == 20 * generation
        assert found["http_requests_total{method=GET,route=/data,status=200}"] == 2 * generation
        of = "route=/data,status_class=2xx}"
        assert found[f"http_request_duration_seconds_count{{{of}"] == 2 * generation
        assert found[f"http_request_duration_seconds_bucket{{le=0.005,{of}"] == 2 * generation
        for metrics in processes:
            die(metrics)
    assert scrape(folder)["offload_tasks_total{outcome=completed}"] == 60
    assert len(list(folder.glob("counter_*"))) == len(list(folder.glob("slot-*"))) == 2


def test_the_books_close_while_processes_live_and_after_they_were_killed(folder: Path, start: Start) -> None:
    one, other = start(), start()
    held = [object() for _ in range(5)]
    for record in held:
        one.connections.opened(record)
        other.connections.opened(record)
    one.connections.ended(held[0], ConnectionEnd.CLOSED)
    assert book(folder) == (10, {"closed": 1}, 9)
    die(one)
    assert book(folder) == (10, {"closed": 1, "killed": 4}, 5)
    heir = start()
    assert heir.slot.number == one.slot.number
    assert book(folder) == (10, {"closed": 1, "killed": 4}, 5)
    heir.connections.opened(held[0])
    heir.connections.ended(held[0], ConnectionEnd.CLOSED)
    assert not heir.connections.ended(held[0], ConnectionEnd.ERROR)
    assert book(folder) == (11, {"closed": 2, "killed": 4}, 5)
    assert heir.connections.snapshot().accepted == 1  # its own alone: the service decides by that


def test_who_looks_while_a_slot_is_taken_over_sees_its_connections_killed_once_and_for_all(
    folder: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = start()
    one.connections.opened(object())
    die(one)
    assert book(folder) == (1, {"killed": 1}, 0)
    write, looks = Slot.write, list[tuple[float, dict[str, float], float]]()
    looking = threading.Thread(target=lambda: looks.append(book(folder)))

    def late(self: Slot, *counts: Any) -> None:
        """The lock is taken, and the counts are still those of the dead."""
        looking.start()
        looking.join(0.02)
        write(self, *counts)

    with monkeypatch.context() as patch:
        patch.setattr(Slot, "write", late)
        start()
    looking.join()
    assert looks == [(1, {"killed": 1}, 0)]


def test_nobody_waits_for_a_process_that_was_stopped_while_it_took_a_slot_over(
    folder: Path, start: Start
) -> None:
    one = start()
    one.connections.opened(object())
    with (folder / "takeover").open("rb") as stopped:
        fcntl.flock(stopped, fcntl.LOCK_EX)
        assert book(folder) == (1, {}, 1)
        assert start().slot.number == 1


def test_slots_of_a_version_without_takeovers_are_read_by_one_who_may_write_nothing(
    folder: Path, start: Start
) -> None:
    assert look(folder) == []
    start().connections.passed(ConnectionEnd.CLOSED)
    (folder / "takeover").unlink()
    assert book(folder) == (1, {"closed": 1}, 0)
    assert not (folder / "takeover").exists()


def test_a_connection_that_ends_at_once_is_in_the_slot(folder: Path, start: Start) -> None:
    one = start()
    one.connections.passed(ConnectionEnd.CLOSED)
    assert book(folder) == (1, {"closed": 1}, 0)


def book(folder: Path) -> tuple[float, dict[str, float], float]:
    found = scrape(folder)
    reasons = {reason: total(found, "http_connections_completed_total", reason=reason) for reason in REASONS}
    return (
        found["http_connections_accepted_total"],
        {reason: count for reason, count in reasons.items() if count},
        found["http_connections_active"],
    )


REASONS = ("killed", *ConnectionEnd)


def test_the_peaks_of_living_processes_are_added_and_each_is_forgotten_by_time_alone(
    folder: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)  # the clock of the reader
    one, other = (start() for _ in range(2))
    for metrics, number in ((one, 3), (other, 4)):
        metrics.connections._clock = lambda: now
        held = [object() for _ in range(number)]
        for record in held:
            metrics.connections.opened(record)
        for record in held[1:]:
            metrics.connections.ended(record, ConnectionEnd.CLOSED)
    for _ in range(2):
        found = scrape(folder)
        assert found["http_connections_active"] == 2
        assert found["http_connections_active_peak"] == 7
    die(one)
    assert scrape(folder)["http_connections_active_peak"] == 4
    assert start().slot.number == one.slot.number
    assert scrape(folder)["http_connections_active_peak"] == 4, "an heir has held nothing yet"
    now += WINDOW_SECONDS + 1
    assert scrape(folder)["http_connections_active_peak"] == 1, "what the other still holds"


def test_gauges_of_the_dead_are_gone_and_an_heir_begins_anew(folder: Path, start: Start) -> None:
    one, other = start(), start()
    for metrics, depth in ((one, 3), (other, 4)):
        metrics.offload_depth.set(depth)
        metrics.backlog_limit.set(128)
        metrics.offload_predicted_wait.set(depth / 10)
        metrics.requests_in_flight = depth
        metrics.sample()
        metrics.offload_limit.set(math.inf)
    found = scrape(folder)
    assert found["offload_queue_depth"] == 7
    assert found["listener_backlog_limit"] == 128  # it is one and the same listener
    assert found["offload_predicted_wait_seconds"] == 0.4  # the worst that a task can meet
    assert found["http_requests_in_flight"] == 7
    assert found["offload_queue_limit"] == math.inf
    die(one)
    assert scrape(folder)["offload_queue_depth"] == 4
    start()
    assert scrape(folder)["offload_queue_depth"] == 4


def test_what_functions_answer_is_sampled_until_the_end(
    folder: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared, "SAMPLE_SECONDS", 0.001)
    metrics, depth = start(), [1]
    metrics.offload_depth.set_function(lambda: depth[0])
    metrics.watch_waiting(3, lambda: depth[0])
    metrics.watch_backlog(lambda: (5, 128))
    sampler = Sampler(metrics)
    until(lambda: scrape(folder)["offload_queue_depth"] == 1)
    depth[0] = 2
    sampler.close()
    found = scrape(folder)
    assert found["offload_queue_depth"] == 2
    assert found["offload_waiting{urgency=3}"] == 2
    assert found["listener_backlog_connections"] == 5


class Drops:
    """A number that logs while it is added: what a finaliser does that runs under the lock of a counter."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def __lt__(self, _: object) -> bool:
        return False

    def __radd__(self, other: float) -> float:
        self._output.write(b"dropped")
        return other + 1


def test_a_line_that_is_dropped_under_the_lock_of_a_counter_waits_for_nothing(
    start: Start, tmp_path: Path
) -> None:
    metrics, output = start(), Output(10**6, lambda *_: None)  # none that is open
    metrics.log_dropped.set_function(lambda: output.dropped)
    thread = threading.Thread(
        target=metrics.tasks[TaskOutcome.FAILED].inc, args=(Drops(output),), daemon=True
    )
    thread.start()
    thread.join(10)
    assert not thread.is_alive(), "all counters of a process share one lock here"
    for _ in range(2):  # what was told once is not told again
        metrics.sample()
        assert scrape(tmp_path)["log_lines_dropped_total"] == 1


def test_one_ready_process_makes_the_service_ready(folder: Path, start: Start) -> None:
    together = Together(folder, STALL_SECONDS)
    assert together.ready() == (False, "no process")
    one, other = start(), start()
    assert together.ready() == (False, "starting, starting")
    one.slot.say(True, "serving")
    other.slot.say(False, "workers keep dying, " * 9)
    ready, why = together.ready()
    assert ready
    assert why.startswith("serving, workers keep dying")
    die(one)
    assert not together.ready()[0]


def test_a_process_whose_loop_has_stalled_is_not_ready_until_it_turns_again(
    folder: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    together = Together(folder, STALL_SECONDS)
    one, other = start(), start()
    for metrics in (one, other):
        metrics.slot.say(True, "serving")
    now += STALL_SECONDS
    assert together.ready() == (True, "serving, serving")
    now += 0.5
    other.slot.say(True, "serving")
    assert together.ready() == (True, "the event loop has not turned for 5.5 s, serving")
    now += STALL_SECONDS + 1
    assert not together.ready()[0]
    one.slot.say(False, "draining")
    now += 2 * STALL_SECONDS
    assert together.ready()[1].startswith("draining, "), "one that is not ready has given its reason"
    one.slot.say(True, "serving")
    assert together.ready()[0]


def test_of_a_process_of_a_version_that_tells_no_time_what_it_said_counts(folder: Path, start: Start) -> None:
    metrics = start()
    with (folder / "slot-0").open("r+b") as file:
        file.seek(STATE_AT)
        file.write(struct.pack("=?63s", True, b"serving"))
    assert Together(folder, 0.0).ready() == (True, "serving")
    metrics.slot.say(True, "serving")
    assert not Together(folder, 0.0).ready()[0]


def test_the_whole_catalogue_is_published_as_by_one_process(folder: Path, start: Start) -> None:
    def use(metrics: Metrics) -> None:
        metrics.info(version="1", offload="inline", loop="uvloop")
        metrics.connections.opened(metrics)
        metrics.request("GET", "/data", 200, 0.1)
        metrics.handshake("ok", 0.1)
        metrics.accept_errors.labels("shortage", "EMFILE").inc()

    single = Metrics()
    use(single)
    use(start())
    text = generate_latest(Together(folder, STALL_SECONDS).registry).decode()
    for row in CATALOGUE:
        assert f"# HELP {row.name} {row.help}" in text
        assert f"# TYPE {row.name} {'gauge' if row.type == 'info' else row.type}" in text
    ours = parse(text)
    assert ours.pop("http_connections_completed_total{reason=killed}") == 0
    theirs = parse(generate_latest(single.registry).decode())
    assert ours == {name: theirs[name] for name in theirs if not name.startswith(("process_", "python_"))}


def test_one_scrape_can_ask_for_some_names_alone(folder: Path, start: Start) -> None:
    start()
    names = ["http_connections_active", "offload_workers"]
    restricted = Together(folder, STALL_SECONDS).registry.restricted_registry(names)
    assert parse(generate_latest(restricted).decode()) == dict.fromkeys(names, 0)


@pytest.mark.parametrize("size", [0, 1 << 16])
def test_a_scrape_bears_files_that_have_just_been_made(folder: Path, start: Start, size: int) -> None:
    start().tasks[TaskOutcome.FAILED].inc()
    for name in ("counter_7.db", "histogram_7.db", "gauge_livesum_7.db", "slot-7"):
        (folder / name).write_bytes(bytes(size))
    assert scrape(folder)["offload_tasks_total{outcome=failed}"] == 1


@pytest.mark.parametrize("connections", [1, 2])
def test_a_record_that_was_half_written_is_not_read(folder: Path, start: Start, connections: int) -> None:
    metrics = start()
    for _ in range(connections):
        metrics.connections.opened(object())
    content = (folder / "slot-0").read_bytes()
    count = int.from_bytes(content[:8], sys.byteorder)
    die(metrics)
    with (folder / "slot-0").open("r+b") as file:
        file.seek(512 + (count + 1) % 2 * RECORD_BYTES)  # where the next record would have gone
        file.write(b"\xff" * (RECORD.size // 2))
    assert book(folder) == (connections, {"killed": connections}, 0)


def test_a_record_that_changes_under_its_reader_is_read_again(
    folder: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics, pread = start(), os.pread

    def torn_at_first(fd: int, size: int, at: int) -> bytes:
        page = pread(fd, size, at)
        if size == FILE_BYTES and not metrics.connections.snapshot().accepted:
            metrics.connections.opened(object())
            return page[:RECORDS_AT] + b"\xff" * (size - RECORDS_AT)
        return page

    monkeypatch.setattr(os, "pread", torn_at_first)
    assert look(folder)[0].book.accepted == 1


def test_a_process_without_a_slot_counts_too_and_its_count_outlives_it(folder: Path, start: Start) -> None:
    metrics = start()
    metrics.log_dropped.set_function(lambda: 3)
    metrics.sample()
    for _ in range(2):  # the second continues, as one with the number of a dead one would
        counter = KeptCounter(folder, "log_lines_dropped_total")
        for value in (1, 2):
            counter.show(value)
        counter.close()
    assert scrape(folder)["log_lines_dropped_total"] == 7
