"""The worker's side: runs one task after the other and reports what became of each.

Knows nothing of the service: a worker process imports this and the work, and starts in milliseconds. The
worker of a lane (`prepare`, `serve`) gets tasks and sends outcomes over a socket, each as its length and
then its bytes. The worker of an executor (`prepare_for_executor`, `arrive`, `run_apart`) gets them from the
executor; one that somebody else has made runs `run_abroad`.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import multiprocessing
import os
import pickle
import resource
import signal
import socket
import struct
import sys
import threading
import time
import traceback
from typing import Any, Final, NamedTuple

Packed = Any
"""A function and its arguments as they travel: pickled to a process, as they are to a thread."""

TASK: Final = struct.Struct("!Qdd")
"""Before a task: how many bytes follow, when it was submitted, and until when it may start."""

OUTCOME: Final = struct.Struct("!QQ")
"""Before an outcome: how many bytes it has, and how many its result, which follows it."""

MOST_TEXT: Final = 2**16
"""Characters of a failure that travel. A message may quote a whole argument, and all of it is logged."""

ARRIVED: Final = b"."
"""What a worker of an executor sends when it can work."""

PEAK_UNIT: Final = 1 if sys.platform == "darwin" else 1024  # getrusage(2): bytes there, KiB on Linux

_most_result: float = math.inf  # bytes
_channel: socket.socket
_barrier: socket.socket


class Failure(NamedTuple):
    """What a task raised, as text.

    Text, because exceptions do not travel well: one that cannot be unpickled would break its worker, a
    SystemExit would end the service and a StopIteration leaves an asyncio future waiting for ever. None of
    that may be in the power of a single request.
    """

    summary: str
    details: str


class Done(NamedTuple):
    """What became of one task, as its worker reports it; the times in seconds."""

    result: Any
    failure: Failure | None
    waited: float  # from submitted to started
    took: float  # from started to finished
    cpu: float  # of the worker's thread; other threads of the worker do not count
    peak_bytes: int  # the most memory this worker ever used


def failure_of(error: BaseException) -> Failure:
    """The exception and its traceback as text, each cut off at `MOST_TEXT`."""
    summary = traceback.format_exception_only(error)[-1].strip()
    return Failure(summary[:MOST_TEXT], "".join(traceback.format_exception(error))[-MOST_TEXT:])


LATE: Final = Failure("the deadline passed before the task could start", "")
"""Of a task that was not run, because nobody waits for it any more."""


def run(packed: Packed, submitted: float, until: float = math.inf, most_result: float | None = None) -> Done:
    """Run one task, unless it is later than `until`; by default the worker knows how large its result may be.

    CLOCK_MONOTONIC is one clock for all processes of a machine, so a worker can tell how long ago
    the IO process submitted.
    """
    started, before = time.monotonic(), time.thread_time()
    most = _most_result if most_result is None else most_result
    result, failure = None, None
    try:
        if started > until:
            failure = LATE
        elif isinstance(packed, bytes):
            function, args = pickle.loads(packed)
            result = pickle.dumps(function(*args), pickle.HIGHEST_PROTOCOL)
            if len(result) > most:
                failure = Failure(f"the result has {len(result)} bytes, {most} are allowed", "")
                result = None
        else:
            function, args = packed
            result = function(*args)
    except BaseException as error:
        failure = failure_of(error)
    cpu, took = time.thread_time() - before, time.monotonic() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * PEAK_UNIT
    return Done(result, failure, max(started - submitted, 0.0), took, cpu, peak)


def run_apart(
    packed: bytes, submitted: float, until: float = math.inf, most_result: float | None = None
) -> Done:
    """Run one task in a process of its own: a child that the work forked and that returns here exits.

    Else there would be two that report what became of the task, and take the next one.
    """
    pid = os.getpid()
    done = run(packed, submitted, until, most_result)
    if os.getpid() != pid:
        os._exit(0)
    return done


def run_abroad(packed: bytes, most_result: float) -> Done:
    """Run one task in a worker that we have not made: in a thread or process, here or on another machine.

    What the work raises comes back as a value, so whatever else is raised is the executor's. No time travels:
    another machine has another CLOCK_MONOTONIC. How long the task has waited is for its sender to tell.
    """
    return run_apart(packed, time.monotonic(), most_result=most_result)


def prepare(channel: socket.socket, most_result: float = math.inf) -> None:
    """First call in a new worker process of a lane, whose tasks come over `channel`."""
    # Initialisers of a ProcessPoolExecutor have no other way to leave something.
    global _channel, _most_result
    _channel, _most_result = channel, most_result
    channel.setblocking(True)  # whatever the work's module has set as the default
    # A child that the work forks must not keep this side open: that it closes says that the worker is dead.
    os.register_at_fork(after_in_child=lambda: os.close(channel.detach()))
    settle()


def settle() -> None:
    """Make this process a worker.

    It leads a process group of its own, to which all belongs that the work starts and that does not leave it
    (setsid(2)): whoever ends the worker ends the group (`kill_group`).

    systemd sends SIGTERM to the whole control group, and a SIGHUP that means "reload" may go there, too; but
    when to stop is the parent's decision: it lets running requests finish. And as no terminal has this group
    in its foreground, one with `stty tostop` would stop a worker for a print (termios(3)).

    A worker must not outlive a parent that was killed: neither fork, spawn nor forkserver ensures that, and
    PR_SET_PDEATHSIG does nothing under forkserver, whose children have another parent. A thread that waits
    for the parent's sentinel works everywhere and takes about 10 ms, unless the work holds the GIL. Against
    that Linux has `end_with_parent`, which comes later; until then there is no work.
    """
    os.setpgid(0, 0)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGTTOU):
        signal.signal(number, signal.SIG_IGN)

    def watch() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def lower(nice: int) -> None:
    """Add so much to the niceness of this worker, once it is up.

    Not before: while it imports the work, whoever waits for a worker waits for that. Where others take the
    cores, a worker that replaced a dead one took seconds for it.

    By group, because on Linux the niceness of a process is that of one thread (nice(2)), and importing may
    have started others: numpy's do most of its work.
    """
    os.setpriority(os.PRIO_PGRP, 0, os.getpriority(os.PRIO_PROCESS, 0) + nice)


def kill_group(leader: int) -> None:
    """Kill a worker that has settled, and whatever it has started: all of its process group.

    The worker may have ended before, and the fork server reaps it at once. Can its number be another's by
    now? Not while anything is left of the group: the kernel keeps a number for as long as it names one
    (free_pid in kernel/pid.c). And if nothing is left, it hands out numbers in turn, so that this one comes
    back after all others, whereas we are called milliseconds after the end.
    """
    with contextlib.suppress(ProcessLookupError, PermissionError):  # gone; or another user's: set-uid
        os.killpg(leader, signal.SIGKILL)


def end_with_parent() -> int:
    """Let the kernel kill this worker's group when the parent has died; returns the worker's pid.

    The sentinel is the read end of a pipe to which the parent alone has the write end. A descriptor with
    O_ASYNC sends a signal when it becomes readable, here at the end of the pipe: to the owner, which may be a
    group, and SIGIO or the signal that F_SETSIG names, which may be SIGKILL (fcntl(2); pipe_release in
    fs/pipe.c). No code of the worker has to run for that.

    Call it in a task and not before: over the same pipe the parent has sent what this process is to run, and
    its write(2) may be about to signal that when we have read it already. Before it hands out a task, it has
    returned from there. Afterwards nothing is written.
    """
    parent = multiprocessing.parent_process()
    if sys.platform == "linux" and parent is not None:
        sentinel = parent.sentinel
        fcntl.fcntl(sentinel, fcntl.F_SETOWN, -os.getpid())
        fcntl.fcntl(sentinel, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(sentinel, fcntl.F_SETFL, fcntl.fcntl(sentinel, fcntl.F_GETFL) | os.O_ASYNC)
        # If the parent has died before, the thread sees it: no work that holds the GIL has come yet, and none
        # will, because the pool hands out no task before this one is done.
    return os.getpid()


def serve() -> None:
    """The one call of a lane's worker, which lasts as long as it: until the lane closes the channel."""
    with _channel, _channel.makefile("rb") as tasks:
        while head := tasks.read(TASK.size):
            size, submitted, until = TASK.unpack(head)
            done = run_apart(tasks.read(size), submitted, until)
            _channel.sendall(framed(done))


def framed(done: Done) -> bytes:
    """An outcome as it travels to the lane: a pickled result is not pickled once more, but follows it."""
    result, *rest = done
    result = result or b""
    outcome = pickle.dumps(tuple(rest), pickle.HIGHEST_PROTOCOL)
    return b"".join((OUTCOME.pack(len(outcome), len(result)), outcome, result))


def prepare_for_executor(barrier: socket.socket, most_result: float = math.inf) -> None:
    """First call in a new worker process of an executor, which will `arrive` at `barrier`."""
    global _barrier, _most_result
    _barrier, _most_result = barrier, most_result
    barrier.setblocking(True)
    settle()


def arrive(packed: bytes | None, nice: int) -> None:
    """First task of a worker of an executor: import what the work needs, say so, and wait for all others.

    A worker that waits takes no second task, so as many of these as there are workers reach each of them.
    """
    with _barrier:
        try:
            if packed is not None:
                warm(packed)
            lower(nice)
        finally:
            _barrier.sendall(ARRIVED)
            _barrier.recv(1)  # nothing ever comes: the executor closes its side when all are there
    end_with_parent()


def warm(packed: bytes) -> None:
    """Import what the work needs, so that no request waits for it."""
    pickle.loads(packed)
