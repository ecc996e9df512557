"""The command `python -m service`: argv and environment in, exit code out.

The only place that reads argv or the environment, and that chooses an event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence

import uvloop
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from service import logs
from service.loading import StartError
from service.orders import Orders
from service.serve import EXIT_CANNOT_START, EXIT_DRAIN_DEADLINE, EXIT_FORCED, EXIT_LISTENER_BROKEN, serve
from service.settings import Settings
from service.states import Event
from service.tokens import raise_open_files

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "uvloop": uvloop.new_event_loop,
    "asyncio": asyncio.new_event_loop,
}


class _Sources(BaseSettings, Settings):
    """Answer GET /data with work that runs off the event loop.

    Each flag is also an environment variable: --accept-batch is SERVICE_ACCEPT_BATCH. A flag wins.
    """

    model_config = SettingsConfigDict(
        env_prefix="SERVICE_",
        cli_prog_name="python -m service",
        cli_kebab_case=True,
        cli_hide_none_type=True,
        cli_exit_on_error=False,
        env_ignore_empty=True,  # compose passes unset variables as empty ones
        frozen=True,
        extra="ignore",
    )


def read_settings(argv: Sequence[str]) -> Settings:
    """Settings from flags, then the environment, then defaults.

    Raises:
        ValueError: every wrong value, one sentence a line, naming flag and variable.
    """
    try:
        sources = _Sources(_cli_parse_args=list(argv))
    except SettingsError as error:
        raise ValueError(str(error).removeprefix("error parsing CLI: ")) from error
    except ValidationError as error:
        raise ValueError("\n".join(map(_sentence, error.errors()))) from error
    return Settings(**sources.model_dump())


def _sentence(error: ErrorDetails) -> str:
    if not error["loc"]:  # a rule about several settings, which it names itself
        return error["msg"].removeprefix("Value error, ")
    name = str(error["loc"][0])
    flag, variable = f"--{name.replace('_', '-')}", f"SERVICE_{name.upper()}"
    return f"{flag} ({variable}): {error['msg']}, not {error['input']!r}"


def handed_over(environ: Mapping[str, str], pid: int) -> int | None:
    """The descriptor of the socket that systemd has handed to this process (sd_listen_fds(3)), if it has.

    Raises:
        ValueError: there are several.
    """
    if environ.get("LISTEN_PID") != str(pid):
        return None
    if environ.get("LISTEN_FDS") != "1":
        raise ValueError(f"LISTEN_FDS: one socket can be served, not {environ.get('LISTEN_FDS')}")
    return 3  # SD_LISTEN_FDS_START


def effective_settings(argv: Sequence[str]) -> Settings:
    """What `read_settings` finds, with the socket that was handed over.

    Raises:
        ValueError: as `read_settings` and `handed_over`.
    """
    settings = read_settings(argv)
    fd = settings.fd or handed_over(os.environ, os.getpid())
    return settings.model_copy(update={"fd": fd})


def listen_to_signals(orders: Orders) -> None:
    """Turn SIGTERM and SIGINT into orders to stop, SIGHUP into one to reload.

    Through `signal` and not the event loop, because a loop that is blocked does not hear, and a second
    signal must be heard then above all. A handler runs between two bytecodes of whatever blocks.
    """
    for number, why in ((signal.SIGTERM, Event.TERMINATE), (signal.SIGINT, Event.INTERRUPT)):
        signal.signal(number, functools.partial(_stop, orders, why))
    signal.signal(signal.SIGHUP, lambda *_: orders.reload())


def _stop(orders: Orders, why: Event, *_: object) -> None:
    orders.stop(why)


def _force() -> None:
    # Not through the loop, not through the log, which this very signal may have interrupted in a write.
    # Workers see that their parent has gone and end within milliseconds.
    with contextlib.suppress(OSError):
        os.write(sys.stderr.fileno(), b"offloop: second signal: ended at once\n")
    os._exit(EXIT_FORCED)


def main(argv: Sequence[str]) -> int:
    """Run the service; returns 0 clean, 1 drain deadline hit, 2 cannot start, 3 listener broken."""
    # When we end without cleaning up, this helper of multiprocessing does, and would say so at length.
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker")
    orders = Orders(_force)
    listen_to_signals(orders)
    try:
        settings = effective_settings(argv)
    except ValueError as error:
        for line in str(error).splitlines():
            print(f"offloop: {line}", file=sys.stderr)
        return EXIT_CANNOT_START
    # The interpreter lets a thread wait 5 ms for the GIL each time it needs it. The admin thread needs it
    # about ten times per scrape, so while inline work computes, a scrape took 58 ms; with 1 ms it is 15.
    sys.setswitchinterval(0.001)
    raise_open_files()  # before the workers: they inherit it
    logs.configure(settings.log_format)
    with asyncio.Runner(loop_factory=LOOPS[settings.loop]) as runner:
        try:
            code = runner.run(serve(settings, orders, reread=lambda: effective_settings(argv)))
        except StartError as error:
            print(f"offloop: {error}", file=sys.stderr)
            return EXIT_CANNOT_START
    if code in (EXIT_DRAIN_DEADLINE, EXIT_LISTENER_BROKEN):
        # Work in a thread cannot be stopped, and a normal exit would wait for it beyond the deadline.
        logging.shutdown()
        os._exit(code)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
