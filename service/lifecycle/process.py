"""What every entrance does to its process: before the service starts, and once it has started.

Knows limits, logs and the interpreter's switches. `serve` leaves all of these alone, because a program or a
test may run it in a process of its own.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import MutableMapping
from typing import Final

import structlog

from service.config.sources import Reading
from service.log.output import Output, catch
from service.log.setup import configure_logging
from service.net.connection_limit import raise_open_files
from service.offload.fork_server import prefer_directories, remove_directory

log = structlog.get_logger("offloop")

SWITCH_SECONDS: Final = 0.001
"""How long a thread waits for the GIL each time it needs it; Python's default is 5 ms. A scrape needs it
about ten times: while inline work computed, it took 58 ms, and takes 15 ms with this."""

EXIT_SECONDS: Final = 1.0
"""How long threads that the service does not know may keep the process after a clean stop."""

FULL_COLLECTION_AFTER: Final = 100
"""Collections of the middle generation between two full ones; Python's default is 10."""


def prepare_process(reading: Reading, environ: MutableMapping[str, str]) -> Output:
    """Prepare this process for a service.

    Call it before any worker or IO process starts: forks inherit all of it, other processes the environment
    and the limit on open files. A second call takes over the settings of `reading`.

    Args:
        environ: of this process; it gets PYTHONWARNINGS, unless that is set.

    Returns:
        The output of its log, which has no thread yet.
    """
    # After an exit without clean-up multiprocessing's resource tracker cleans up, and warns at length.
    environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker")
    sys.setswitchinterval(SWITCH_SECONDS)
    raise_open_files()
    # No cleaner looks there. systemd parts several by colons (systemd.exec(5)).
    prefer_directories([*environ.get("RUNTIME_DIRECTORY", "").split(":"), environ.get("XDG_RUNTIME_DIR", "")])
    output = catch()
    configure_logging(reading.settings.log_format)
    if reading.unknown_variables:
        log.warning("unknown variables", ignored=reading.unknown_variables)
    return output


def end_within(seconds: float, output: Output, code: int) -> None:
    """End this process with `code` in so many seconds, if it has not ended by then.

    The interpreter waits for every thread at its end, without a bound: also for those of an application or
    an executor of which the service knows nothing.
    """

    def end() -> None:
        output.flush()
        remove_directory()
        os._exit(code)

    last = threading.Timer(seconds, end)
    last.daemon = True
    last.start()


def collect_less() -> None:
    """Keep the garbage collector's full passes, which stop the event loop, short and rare.

    Call it once everything that lives as long as the process exists. A full pass takes 50 to 80 ms with
    1,000 connections. Frozen objects are not traversed again. And full passes come a tenth as often; what
    they would have found, cycles that have survived two younger passes, is some 500,000 objects at most by
    then.
    """
    gc.collect()
    gc.freeze()
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, FULL_COLLECTION_AFTER)
