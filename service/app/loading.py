"""Loads the work or the application that the operator named, and tries it before the first request does.

Knows `package.module:name`, calibration and the settings that choose. Touches no process and no socket.
"""

from __future__ import annotations

import importlib
import itertools
import time
from typing import Any

import structlog
from aiohttp import web

from service.app.offloader import Offloader
from service.app.query import Binding
from service.config.settings import Settings
from service.work import body, calibrate, cpu_seconds

log = structlog.get_logger("offloop.loading")


class StartError(Exception):
    """The service cannot start; the message is one sentence for the operator."""


def _named(name: str) -> Any:
    """What `package.module:name` stands for."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def load_application(settings: Settings, offloader: Offloader) -> web.Application:
    """The user's own application: a bad factory fails at start."""
    try:
        made = _named(str(settings.app))(offloader)
        if not isinstance(made, web.Application):
            raise TypeError(f"it returned {type(made).__name__} and not an aiohttp Application")
    except Exception as error:
        raise StartError(
            f"the application {settings.app} cannot be used: {type(error).__name__}: {error}"
        ) from error
    return made


def load_work(settings: Settings) -> tuple[Binding | None, float | None]:
    """Import the work, call it, and settle the units: a bad function fails here, not at a request.

    Returns:
        The work, and the seconds that it takes; None for what is not known.
    """
    if settings.app is not None:
        return None, None
    try:
        function = _named(settings.work)
        work = Binding(function)
        units = None
        if "units" in work.parameters:
            body(function, {"units": 1})
            units = settings.work_units or calibrate(function, settings.work_ms / 1e3)[0]
            work = Binding(function, units=units)
        trial = work.trial()
        cost = takes = None
        if trial is not None:
            calls = itertools.count()
            began = time.monotonic()
            cost = cpu_seconds(lambda _: (body(function, trial), next(calls)), 0)
            takes = (time.monotonic() - began) / next(calls)  # more than the CPU time, if it sleeps
    except Exception as error:
        raise StartError(
            f"the work function {settings.work} cannot be used: {type(error).__name__}: {error}"
        ) from error
    log.info("work", function=settings.work, units=units, cpu_ms=cost and round(cost * 1e3, 3))
    return work, takes
