"""The parent's side of the load generator: starts the driver, passes its progress on, ends it.

Knows the driver's command line and the two ways a run can end early. Touches one child process.
Never sends a request itself.
"""

import json
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any, Final

from loadtests.load.phase import Phase
from loadtests.load.sample import Sample, from_columns

# The driver notices SIGTERM at its next line of progress; the rest is for writing the samples.
STOP_SECONDS: Final = 20.0

Progress = dict[str, Any]


class GeneratorError(Exception):
    """The driver could not start or broke; the message is one sentence for the user."""


def run_phase(phase: Phase, samples_path: Path) -> Generator[Progress, None, None]:
    """Run one phase in a process of its own and leave its samples in `samples_path`.

    Yields about five times a second `{"elapsed", "duration", "planned", "fired", "connected",
    "in_flight", "outcomes": {name: count}}`, times in seconds. `close()` of this generator, or an
    exception such as KeyboardInterrupt, stops the driver, waits for it and still leaves the samples,
    marked as interrupted. Raises `GeneratorError` when the driver cannot start.
    """
    command = [sys.executable, "-m", "loadtests.load.driver"]
    # A session of its own: Ctrl-C reaches the parent alone, which then decides.
    child = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert child.stdin is not None
    assert child.stdout is not None
    with child.stdin, child.stdout:
        try:
            child.stdin.write(json.dumps({"phase": phase.to_json(), "samples_path": str(samples_path)}))
            child.stdin.close()
            for line in child.stdout:
                progress = json.loads(line)
                if "error" in progress:
                    raise GeneratorError(progress["error"])
                yield progress
        except BaseException:
            child.terminate()
            raise
        finally:
            _wait(child)
    if child.returncode:
        raise GeneratorError(f"the load generator ended with exit code {child.returncode}; see its traceback")


def read_samples(path: Path) -> tuple[list[Sample], dict[str, Any]]:
    """Return the samples of a phase and the generator's facts about itself.

    Facts: `address`, `started_monotonic`, `started_epoch`, `wall_seconds`, `cpu_seconds`,
    `gc_pauses`, `gc_max_pause_seconds`, `interrupted`, `unreachable`.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    return from_columns(content), content["generator"]


def _wait(child: subprocess.Popen[str]) -> None:
    """Wait for the child; whoever has no patience left (a second Ctrl-C) loses the samples."""
    try:
        child.wait(STOP_SECONDS)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        child.kill()
        child.wait()
