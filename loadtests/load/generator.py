"""The parent's side of the load generator: starts the driver, gives it phases, passes on its progress.

Knows the driver's command line and the ways a phase can end early. Touches one child process. Never
sends a request itself.
"""

import collections.abc
import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Final, Self

from loadtests.exits import BrokenError
from loadtests.load.facts import GeneratorFacts, Progress
from loadtests.load.phase import Phase
from loadtests.load.sample import Sample, from_columns

# The driver notices SIGTERM within milliseconds; the rest is for writing the samples.
STOP_SECONDS: Final = 20.0


class GeneratorError(BrokenError):
    """The driver could not start or broke; the message is one sentence for the user."""


class Generator:
    """A load generator that runs phase after phase in one child process; a context manager.

    The child starts with the first phase. A phase that ends early ends the child too, and the next phase
    starts another: nothing of an interrupted phase can reach into the next one.
    """

    def __init__(self) -> None:
        self._child: subprocess.Popen[str] | None = None
        self._busy = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._child is not None:
            self._end(self._child, terminate=self._busy)

    @property
    def pid(self) -> int | None:
        """The pid of the child, while there is one."""
        return None if self._child is None else self._child.pid

    def run(self, phase: Phase, samples_path: Path) -> collections.abc.Generator[Progress, None, None]:
        """Run one phase and write its samples to `samples_path`; yields its progress.

        Closing this iterator, leaving the context, or an exception such as KeyboardInterrupt stops the
        phase, waits for the child and still writes the samples, marked as interrupted. Raises
        `GeneratorError` if the phase cannot start or the child breaks, `RuntimeError` while another phase is
        running.
        """
        if self._busy:
            raise RuntimeError("one phase at a time: the generator is still sending another")
        child = self._ready_child()
        self._busy = True
        try:
            problem = yield from _serve(child, phase, samples_path)
        except BaseException:
            self._end(child, terminate=True)
            raise
        finally:
            self._busy = False
        if problem is not None:
            raise GeneratorError(problem)

    def _ready_child(self) -> subprocess.Popen[str]:
        if self._child is not None and self._child.poll() is not None:
            self._end(self._child, terminate=False)
        if self._child is None:
            # In a session of its own: Ctrl-C reaches the parent alone, which then decides.
            self._child = subprocess.Popen(
                [sys.executable, "-m", "loadtests.load.driver"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        return self._child

    def _end(self, child: subprocess.Popen[str], *, terminate: bool) -> None:
        """Stop the child, by closing its stdin or by SIGTERM, and wait for it; harmless when repeated."""
        if child is not self._child:
            return
        self._child = None
        assert child.stdin is not None
        assert child.stdout is not None
        if terminate:
            child.terminate()
        with contextlib.suppress(BrokenPipeError):  # an order that the child never read
            child.stdin.close()
        child.stdout.close()  # lets a child go on that blocks on its last line
        _wait(child)


def read_samples(path: Path) -> tuple[list[Sample], GeneratorFacts]:
    """Return the samples of a phase and the generator's facts about itself.

    Raises `ValueError` when a column is missing, `TypeError` when a fact is.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    return from_columns(content), GeneratorFacts.from_json(content["generator"])


def _serve(
    child: subprocess.Popen[str], phase: Phase, samples_path: Path
) -> collections.abc.Generator[Progress, None, str | None]:
    """Send one order and yield its progress; returns why the phase could not start, or None."""
    assert child.stdin is not None
    assert child.stdout is not None
    with contextlib.suppress(BrokenPipeError):  # then stdout has ended as well
        child.stdin.write(json.dumps({"phase": phase.to_json(), "samples_path": str(samples_path)}) + "\n")
        child.stdin.flush()
    while line := child.stdout.readline():
        message = json.loads(line)
        if "end" in message:
            problem: str | None = message["end"]
            return problem
        yield Progress(**message)
    raise GeneratorError(
        f"the load generator ended with exit code {child.wait(STOP_SECONDS)}; see its traceback"
    )


def _wait(child: subprocess.Popen[str]) -> None:
    """Wait for the child; a second Ctrl-C kills it, and the samples are lost."""
    try:
        child.wait(STOP_SECONDS)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        child.kill()
        child.wait()
