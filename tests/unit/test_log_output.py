"""The way out of the log: order, bounds, what is told; its reader stops, goes, comes back."""

from __future__ import annotations

import logging
import os
import select
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from service.log import output as outputs
from service.log.output import Output, catch
from tests.support.waiting import until

LONG = 20_000  # bytes; several times PIPE_BUF


class Pipe:
    """Both ends of a pipe, an output that writes to it, and what it told."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        self.told: list[tuple[int, int]] = []
        self.output = Output(self.writer, self.tell)
        self._read = b""

    def tell(self, lines: int, total: int) -> None:
        self.told.append((lines, total))
        self.output.write(f"{lines} dropped\n".encode())

    def fill(self) -> None:
        """Until nothing fits any more."""
        os.set_blocking(self.writer, False)
        try:
            while True:
                os.write(self.writer, b"." * select.PIPE_BUF)
        except BlockingIOError:
            os.set_blocking(self.writer, True)

    def drain(self) -> bytes:
        """What is in the pipe now."""
        os.set_blocking(self.reader, False)
        try:
            while data := os.read(self.reader, 65536):
                self._read += data
        except BlockingIOError:
            pass
        return self._read

    def lines(self) -> list[str]:
        return self.drain().lstrip(b".").decode().splitlines()

    def until_lines(self, lines: list[str]) -> None:
        until(lambda: self.lines() == lines, lambda: f"{self.lines()[:3]} ... {self.lines()[-3:]}", 20)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    one = Pipe()
    yield one
    os.set_blocking(one.writer, False)  # whatever its thread still waits for
    one.drain()
    one.output.stop()
    os.close(one.writer)
    os.close(one.reader)


def numbers(first: int, beyond: int) -> list[str]:
    return [str(number) for number in range(first, beyond)]


def write(pipe: Pipe, lines: list[str]) -> None:
    for line in lines:
        pipe.output.write(f"{line}\n".encode())


@pytest.mark.parametrize("threaded", [False, True], ids=["at once", "by the thread"])
def test_lines_go_out_in_their_order(pipe: Pipe, threaded: bool) -> None:
    if threaded:
        pipe.output.start()
    write(pipe, numbers(0, 500))
    pipe.output.flush(20)
    assert pipe.lines() == numbers(0, 500)
    assert pipe.output.dropped == 0


def test_without_a_thread_a_line_that_would_have_to_wait_is_dropped_and_told(pipe: Pipe) -> None:
    pipe.fill()
    write(pipe, numbers(0, 3))
    assert pipe.output.dropped == 3
    pipe.drain()
    write(pipe, numbers(3, 5))
    assert pipe.lines() == ["3", "3 dropped", "4"]
    assert pipe.told == [(3, 3)]


@pytest.mark.parametrize(
    ("limit", "value", "fit"), [("MOST_LINES", 10, 10), ("MOST_BYTES", 10, 5)], ids=["lines", "bytes"]
)
def test_the_buffer_is_bounded(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch, limit: str, value: int, fit: int
) -> None:
    monkeypatch.setattr(outputs, limit, value)
    pipe.fill()
    pipe.output.start()
    write(pipe, ["a"] * 30)  # two bytes each
    assert pipe.output.dropped == 30 - fit
    pipe.until_lines(["a"] * fit)
    write(pipe, ["b"])
    pipe.until_lines(["a"] * fit + ["b", f"{30 - fit} dropped"])
    write(pipe, ["c"])
    pipe.until_lines(["a"] * fit + ["b", f"{30 - fit} dropped", "c"])


def test_a_flush_ends_in_time_though_there_is_no_reader(pipe: Pipe) -> None:
    pipe.fill()
    pipe.output.start()
    write(pipe, ["stays"])
    begun = time.monotonic()
    pipe.output.flush(0.1)
    assert 0.1 <= time.monotonic() - begun < 5


@pytest.mark.parametrize("threaded", [False, True], ids=["at once", "by the thread"])
def test_a_reader_that_has_gone_costs_the_lines_and_nothing_else(pipe: Pipe, threaded: bool) -> None:
    os.close(pipe.reader)
    if threaded:
        pipe.output.start()
    for number in numbers(0, 5):
        write(pipe, [number])
        pipe.output.flush(20)
    assert pipe.output.dropped == 5
    assert not pipe.told
    pipe.reader, writer = os.pipe()
    os.dup2(writer, pipe.writer)  # as a rotation of logs does
    os.close(writer)
    write(pipe, ["here"])
    pipe.output.flush(20)
    write(pipe, ["again"])
    pipe.output.flush(20)
    assert [line for line in pipe.lines() if "dropped" not in line] == ["here", "again"]
    assert pipe.told == [(5, 5)]


def test_a_closed_descriptor_is_no_error(pipe: Pipe) -> None:
    kept = os.dup(pipe.writer)
    os.close(pipe.writer)
    write(pipe, ["nowhere"])
    os.dup2(kept, pipe.writer)
    os.close(kept)
    assert pipe.output.dropped == 1


def test_a_line_longer_than_the_pipe_arrives_whole_though_somebody_made_it_non_blocking(pipe: Pipe) -> None:
    os.set_blocking(pipe.writer, False)  # the flag is the pipe's: whoever shares it can set it
    pipe.output.start()
    write(pipe, ["x" * 40 * LONG, "y"])
    pipe.until_lines(["x" * 40 * LONG, "y"])


def test_a_pipe_that_is_filled_between_look_and_write_is_waited_for(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures, real = [BlockingIOError()] * 3, os.write

    def fail_at_first(descriptor: int, data: bytes) -> int:
        if descriptor == pipe.writer and failures:
            raise failures.pop()
        return real(descriptor, data)

    monkeypatch.setattr(os, "write", fail_at_first)
    pipe.output.start()
    write(pipe, ["late"])
    pipe.until_lines(["late"])
    assert not failures
    assert pipe.output.dropped == 0


def test_many_threads_lose_nothing_and_mix_no_lines(pipe: Pipe) -> None:
    pipe.output.start()
    threads = [
        threading.Thread(target=write, args=(pipe, numbers(1000 * n, 1000 * n + 200))) for n in range(8)
    ]
    for thread in threads:
        thread.start()
    until(lambda: len(pipe.lines()) == 1600, seconds=20)
    for thread in threads:
        thread.join()
    assert sorted(map(int, pipe.lines())) == [1000 * n + m for n in range(8) for m in range(200)]


def test_a_forked_child_writes_its_own_lines_and_none_of_its_parents(pipe: Pipe) -> None:
    pipe.fill()
    pipe.output.start()
    write(pipe, ["parent"])
    pipe.drain()
    child = os.fork()
    if child == 0:
        write(pipe, ["child"])
        os._exit(0 if pipe.output.dropped == 0 else 1)
    assert os.waitpid(child, 0)[1] == 0
    pipe.output.flush(20)
    assert sorted(pipe.lines()) == ["child", "parent"]


class Fails:
    """Its finaliser does."""

    def __del__(self) -> None:
        raise LookupError("in a finaliser")


def fail_in_a_finaliser() -> None:
    Fails()


def log_badly() -> None:
    logging.getLogger("badly").error("%d", "no number")


def say() -> None:
    print("said", file=sys.stderr)


@pytest.mark.parametrize(
    ("speak", "said"),
    [(say, "said"), (fail_in_a_finaliser, "in a finaliser"), (log_badly, "no number")],
    ids=["print", "a finaliser", "a line that cannot be formatted"],
)
def test_nothing_that_python_writes_to_stderr_waits_for_a_reader(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch, speak: Callable[[], object], said: str
) -> None:
    with os.fdopen(os.dup(pipe.writer), "w") as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        monkeypatch.setattr(sys, "unraisablehook", sys.__unraisablehook__)
        output = catch()
        assert catch() is output
        monkeypatch.setattr(logging.getLogger(), "handlers", [logging.StreamHandler(sys.stderr)])
        pipe.fill()
        speak()  # returns
        assert output.dropped > 0
        pipe.drain()
        speak()
        assert said in pipe.drain().decode()
        monkeypatch.undo()
