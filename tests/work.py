"""Work functions for the tests: named by `--work tests.work:...`."""

from __future__ import annotations

import asyncio
import ctypes
import enum
import itertools
import multiprocessing
import os
import signal
import subprocess
import tempfile
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, Any, Literal

import structlog
from aiohttp import web
from pydantic import Field

from service.offload import worker_main as runner
from service.work import data

NICENESS_AT_IMPORT = os.getpriority(os.PRIO_PROCESS, 0)


failing = threading.Event()
"""While set, `fails_on_demand` does."""


RELEASED = threading.Event()
RELEASED.set()


def until_released() -> str:
    """In a thread of the test's own process: as long as the test likes."""
    RELEASED.wait(30)
    return "{}"


def slow(units: int) -> bytes:
    """Blocks for half a second when units are more than one (the start calls it with one)."""
    if units > 1:
        time.sleep(0.5)
    return b"{}"


def raises(units: int) -> bytes:
    """Never works."""
    raise ZeroDivisionError(f"secret {units}")


def fails_on_demand(units: int) -> bytes:
    """Works at start, fails when a test says so."""
    if failing.is_set():
        raise ZeroDivisionError(f"secret {units}")
    return b"{}"


def not_json(units: int) -> set[int]:
    """Returns what cannot be sent."""
    return {units}


def kills_its_worker(units: int) -> bytes:
    """The way a segmentation fault or the kernel's OOM killer ends a process."""
    if units > 1 and multiprocessing.parent_process() is not None:
        os.kill(os.getpid(), signal.SIGKILL)
    return b"{}"


def niceness() -> tuple[int, set[int]]:
    """That of the process when it imported this module, and those of all its threads now."""
    threads = [int(name) for name in os.listdir("/proc/self/task")]  # noqa: PTH208  # names are what it takes
    return NICENESS_AT_IMPORT, {os.getpriority(os.PRIO_PROCESS, thread) for thread in threads}


def works_or_kills(units: int, poison: bool = False) -> bytes:  # the query names it
    """The work of the experiment, unless the client asks for the worker's death."""
    if poison:
        kills_its_worker(2)
    return data(units)


def kills_its_worker_once(units: int) -> bytes:
    """Dies with the first worker that runs it in earnest, and not with the next."""
    if units > 1 and multiprocessing.parent_process() is not None:
        trace = Path(tempfile.gettempdir()) / f"offloop-test-{os.getppid()}"
        try:
            trace.unlink()
        except FileNotFoundError:
            trace.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    return b"{}"


def exits(units: int) -> bytes:
    """What would end the whole service if it came through."""
    raise SystemExit(units)


def stops_iterating(units: int) -> bytes:
    """What would leave an asyncio future waiting for ever if it came through."""
    raise StopIteration(units)


class _NeedsTwoError(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} {two}")


def raises_what_cannot_be_pickled(units: int) -> bytes:
    """What would break a process pool if it came through: it cannot be unpickled."""
    raise _NeedsTwoError(units, units)


def returns_what_cannot_be_pickled(units: int) -> object:
    """What would break a whole call if it came through."""
    return threading.Lock() if units else None


no_way_to_pickle_me = lambda units: b"{}"  # noqa: ARG005, E731  # a function without a name is the point


def slow_second(units: int) -> bytes:
    """A second of waiting for every unit above the first."""
    time.sleep(units - 1)
    return b"{}"


def sleeps_40_ms(units: int) -> bytes:  # noqa: ARG001  # every work function has them
    """Keeps a worker busy and no core."""
    time.sleep(0.04)
    return b"{}"


def sleeps_for_a_minute(units: int) -> bytes:
    """Work that keeps even the start waiting."""
    time.sleep(60 * units)
    return b"{}"


def begins_and_stays(begun: str) -> None:
    """Says by a file that it runs, then outlives every test."""
    Path(begun).touch()
    time.sleep(60)


def dies_in_its_answer(died: str) -> bytes:
    """Killed when half of its answer is on its way; once, and then there is a file."""
    if not Path(died).exists():
        Path(died).touch()

        def half(self: Connection, sent: bytes) -> None:
            os.write(self.fileno(), sent[: len(sent) // 2])
            os.kill(os.getpid(), signal.SIGKILL)

        Connection._send = half  # type: ignore[attr-defined]  # where every byte of it goes through
    return bytes(100_000)


def waits_for(begun: str, go: str) -> int:
    """Says by a file which process runs it, until there is another file."""
    Path(begun).write_text(str(os.getpid()))
    while not Path(go).exists():
        time.sleep(0.005)
    return os.getpid()


def slow_when_told(units: int) -> bytes:  # noqa: ARG001  # the chassis names it
    """Twenty seconds once the file that TESTS_WORK_SLOW names exists."""
    if Path(os.environ["TESTS_WORK_SLOW"]).exists():
        time.sleep(20)
    return b"{}"


def fails_when_told(units: int) -> bytes:  # noqa: ARG001  # the chassis names it
    """In a service that starts while the file that TESTS_WORK_FAILS names exists: fails."""
    if threading.current_thread().name == "calibration" and Path(os.environ["TESTS_WORK_FAILS"]).exists():
        raise ZeroDivisionError("told to")
    return b"{}"


def waits_when_told(units: int) -> bytes:  # noqa: ARG001  # the chassis names it
    """In a service that starts while the file that TESTS_WORK_WAITS names exists: until that is gone."""
    while threading.current_thread().name == "calibration" and Path(os.environ["TESTS_WORK_WAITS"]).exists():
        time.sleep(0.01)
    return b"{}"


def opens_a_file(units: int) -> bytes:  # noqa: ARG001  # the chassis names it
    """What a handler does that needs a descriptor of its own."""
    with Path(os.devnull).open("rb"):
        return b"{}"


def sleeps_unless_tried(units: int) -> bytes:
    """Seconds of sleep; the start tries and measures it, and must not wait."""
    if threading.current_thread().name.startswith("work_"):
        time.sleep(units if units > 1 else 0)
    return b"{}"


gate = threading.Event()
"""What `waits_at_the_gate` waits for; for work in threads."""


def waits_at_the_gate(units: int) -> bytes:
    """Stays until a test opens the gate; the start, which calls it from elsewhere, need not wait."""
    if threading.current_thread().name.startswith("work_") and units > 1:
        gate.wait(20)
    return b"{}"


def area(width: int, height: float = 2.0, **more: str) -> dict[str, float | str]:
    """Takes its arguments from the query."""
    return {"area": width * height, **more}


def fails_in_a_worker(name: str) -> None:
    """Raises what a client may not see."""
    raise LookupError(f"secret {name}")


def spins(seconds: float) -> bytes:
    """So much CPU time."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass
    return b"{}"


def sleeps_4_ms() -> bytes:
    """Takes as long as the work of the experiment and leaves the core to others."""
    time.sleep(0.004)
    return b"{}"


def forks(stays: bool) -> tuple[int, int]:  # a flag of a test
    """The pids of the worker and of a child that stays after it, or comes back out of the work."""
    child = os.fork()
    if child == 0 and stays:
        time.sleep(60)
        os._exit(0)
    return os.getpid(), child


def starts_a_process(where: str, then: str) -> bytes:
    """Starts a process and says which by a file; then "stays", "dies" or returns."""
    child = subprocess.Popen(["sleep", "600"])
    Path(where).write_text(f"{child.pid}\n")
    if then == "stays":
        time.sleep(600)
    elif then == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    return b"{}"


def holds_the_gil(begun: str) -> None:
    """Says by a file that it runs, then sleeps in C: no other thread of the worker runs any more."""
    Path(begun).touch()
    ctypes.PyDLL(None).sleep(600)


def leaves_a_thread() -> int:
    """A thread that keeps the worker's process from ending by itself."""
    threading.Thread(target=time.sleep, args=(60,)).start()
    return os.getpid()


def hangs_if_exists(path: str) -> None:
    """A minute, if there is such a file."""
    if Path(path).exists():
        time.sleep(60)


class HangsWhenLoaded:
    """An argument that keeps the worker that unpickles it, as long as a file exists."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return hangs_if_exists, (self.path,)


class DiesWhenLoaded:
    """An argument that ends the worker a moment after it was unpickled."""

    def __reduce__(self) -> tuple[object, tuple[()]]:
        return dies_soon, ()


class DiesAtOnce:
    """An argument that no worker survives."""

    def __reduce__(self) -> tuple[object, tuple[()]]:
        return dies_at_once, ()


def dies_at_once() -> None:
    """The worker's end."""
    if multiprocessing.parent_process() is not None:
        os._exit(1)


def dies_soon() -> None:
    """The worker's end in 20 ms."""
    if multiprocessing.parent_process() is not None:
        threading.Timer(0.02, os._exit, (1,)).start()


def reads_blockingly() -> bool:
    """Whether the worker that runs this waits for its next task."""
    return runner._channel.getblocking()


def blocking_application(_: object) -> web.Application:
    """Its one handler blocks the event loop for as long as it is asked to."""

    async def block(request: web.Request) -> web.Response:
        time.sleep(float(request.query["seconds"]))  # noqa: ASYNC251  # the fault that is tried
        return web.Response()

    app = web.Application()
    app.router.add_get("/block", block)
    return app


def fails_with_a_width(width: int) -> bytes:
    """Takes a number from the query and never works."""
    raise LookupError(f"secret {width}")


def lingering_application(_: object) -> web.Application:
    """Leaves a thread behind at its end that takes a minute, and an idle one would not do."""

    async def linger(_: web.Application) -> None:
        asyncio.get_running_loop().run_in_executor(None, time.sleep, 60)

    app = web.Application()
    app.on_cleanup.append(linger)
    return app


def failing_application(_: object) -> web.Application:
    """Its start-up fails."""

    async def fail(_: web.Application) -> None:
        raise ZeroDivisionError("no data base")

    app = web.Application()
    app.on_startup.append(fail)
    return app


class Shape(enum.StrEnum):
    """What a query may name."""

    ROUND = "round"
    SQUARE = "square"


def typed(
    count: int,
    factor: float = 1.0,
    flag: bool = False,
    shape: Shape = Shape.ROUND,
    one: Literal["a", "b"] = "a",
    part: Annotated[int, Field(ge=1, le=10)] = 1,
    name: str = "",
) -> dict[str, Any]:
    """Takes one of each kind of argument.

    The second paragraph is for readers of the code.
    """
    return {
        "count": count,
        "factor": factor,
        "flag": flag,
        "shape": shape,
        "one": one,
        "part": part,
        "name": name,
    }


def talkative_application(_: object) -> web.Application:
    """Its one handler logs a line as long as it is asked to."""
    numbers = itertools.count()

    async def say(request: web.Request) -> web.Response:
        structlog.get_logger("talkative").info(
            "said", number=next(numbers), text="x" * int(request.query["length"])
        )
        return web.Response()

    app = web.Application()
    app.router.add_get("/say", say)
    return app


def kills_if_poison(name: str) -> bytes:
    """An input that no worker survives, among others that each does."""
    if name.startswith("poison"):
        os.kill(os.getpid(), signal.SIGKILL)
    return b"{}"


def kills_once_then_waits(trace: str, go: str) -> bytes:
    """Kills the first worker that runs it, stays on the next until there is a file; `none` does neither."""
    if trace != "none":
        if not Path(trace).exists():
            Path(trace).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        while not Path(go).exists():
            time.sleep(0.005)
    return b"{}"


def dies_while_there_is_a_file(path: str) -> bytes:
    """Killed by accident: once, as it takes the file with it."""
    if Path(path).exists():
        Path(path).unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    return b"{}"


class Where:
    """Becomes the name of the thread that unpickles it."""

    def __reduce__(self) -> tuple[object, tuple[()]]:
        return this_thread, ()


def this_thread() -> str:
    """The name of the thread that calls it."""
    return threading.current_thread().name


def says_where_it_is_unpickled(size: int) -> tuple[object, bytes]:
    """Something that tells, and something of this size."""
    return Where(), bytes(size)


def as_large_as_asked(size: int) -> bytes:
    """A body of so many bytes."""
    return bytes(size)
