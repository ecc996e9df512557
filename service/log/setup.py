"""Logging: structlog for the service, and the same shape for what libraries log. Everything goes to stderr.

Knows structlog and the root logger. Decides how much goes out (rate_limit.py) and nothing about what is
logged. Nobody who logs waits for a reader: output.py. What is bound in the context, such as the ids of
connection and request, is in every line, the libraries' too.
"""

from __future__ import annotations

import contextvars
import logging
import sys
import threading
import time
from typing import Final, Literal

import structlog
from structlog.contextvars import bind_contextvars, reset_contextvars

from service.log.rate_limit import Allowance, RateLimiter

PLAIN: Final = Allowance(per_second=200, burst=1000)
"""Of an event below WARNING: each line may be wanted, as in the request log. A flood of one event is 7,000
lines in half a minute: systemd's journal takes 10,000 and then drops *everything* that a service writes
(journald.conf, RateLimitBurst). At 80 us a line that is 2 % of a core."""

SERIOUS: Final = Allowance(per_second=10, burst=50)
"""Of a warning or an error, often with a traceback: the hundredth in a second says nothing new."""


class _RateLimit(logging.Filter):
    """Holds back lines above the allowance of their event, and writes their number into its next line.

    An event is the statement that logs it and not its text. The code has so many statements, but a client
    can make a library compose any number of texts.
    """

    def __init__(self) -> None:
        super().__init__()
        self._limiter = RateLimiter()
        # Handlers filter before they take their own. Re-entrant: a finaliser that logs may run at any moment.
        self._lock = threading.RLock()

    def filter(self, record: logging.LogRecord) -> bool:
        allowance = SERIOUS if record.levelno >= logging.WARNING else PLAIN
        with self._lock:
            suppressed = self._limiter.admit((record.pathname, record.lineno), allowance, time.monotonic())
        if suppressed:
            record.__dict__["suppressed"] = suppressed  # where logging itself puts `extra`
        return suppressed is not None


def bound(name: str) -> contextvars.ContextVar[str]:
    """What `bind_contextvars(name=...)` sets; to set it directly, as each request does, costs 4 us less."""
    token = bind_contextvars(**{name: ""})[name]
    reset_contextvars(**{name: token})
    found: contextvars.ContextVar[str] = token.var
    return found


def configure_logging(log_format: Literal["auto", "text", "json"]) -> None:
    """Send all logging of this process to stderr; a second call replaces the first.

    Args:
        log_format: text for people, JSON lines for programs, or auto: text if stderr is a terminal.
    """
    terminal = sys.stderr.isatty()
    text = log_format == "text" or (log_format == "auto" and terminal)
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=not text),
    ]
    last: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer(colors=terminal)]
        if text
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_RateLimit())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ExtraAdder(allow=["suppressed"]),
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *last,
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
