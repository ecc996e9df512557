"""Loads what the settings name: the work function, the application, the executor, the certificates.

Each is tried here, so that a mistake shows at the start and not at the first request. Knows
`package.module:name`, calibration and certificate files. Touches no process and no socket.
"""

from __future__ import annotations

import importlib
import itertools
import time
from collections.abc import Callable, Collection
from typing import Any

import structlog
from aiohttp import web

from service.app.offloader import Offloader
from service.app.query import Binding
from service.config.settings import Settings
from service.net import tls
from service.web.connection import Tls
from service.work import body, calibrate, cpu_seconds

log = structlog.get_logger("offloop.loading")


class StartError(Exception):
    """The service cannot start; the message is one sentence for the operator."""


def _import(name: str) -> Any:
    """The object that `package.module:name` names."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def load_application(settings: Settings, offloader: Offloader) -> web.Application:
    """The application that the factory `settings.app` makes.

    Raises:
        StartError: the factory cannot be imported, raises, or returns something else.
    """
    try:
        made = _import(str(settings.app))(offloader)
        if not isinstance(made, web.Application):
            raise TypeError(f"it returned {type(made).__name__} and not an aiohttp Application")
    except Exception as error:
        raise StartError(
            f"the application {settings.app} cannot be used: {type(error).__name__}: {error}"
        ) from error
    return made


def check_routes(app: web.Application, settings: Settings, always: Collection[str]) -> None:
    """See that `settings.route_urgency` names routes that there are, those of sub-applications included.

    Args:
        always: paths of which every GET needs a worker. The check before HTTP knows a path and no route, so
            each of these must be a route by its name, or it would have another urgency there.

    Raises:
        StartError: something else is named.
    """
    routes = {route.resource.canonical for route in app.router.routes() if route.resource is not None}
    for one in settings.route_urgency:
        if one.route not in routes:
            raise StartError(f"--route-urgency names {one.route}, which is no route of the application")
    if settings.route_urgency and (others := sorted({*always} - routes)):
        raise StartError(
            f"with --route-urgency, offload.always must name routes as they were added: {others[0]} is none"
        )


def load_executor(settings: Settings) -> Callable[[], Any] | None:
    """The factory that `settings.executor` names, None without one. It is called when the workers start.

    Raises:
        StartError: it cannot be imported or called.
    """
    if settings.executor is None:
        return None
    try:
        factory: Callable[[], Any] = _import(settings.executor)
        if not callable(factory):
            raise TypeError(f"it is {type(factory).__name__} and cannot be called")
    except Exception as error:
        raise StartError(
            f"the executor {settings.executor} cannot be used: {type(error).__name__}: {error}"
        ) from error
    return factory


def load_work(settings: Settings) -> tuple[Binding | None, float | None]:
    """Import the work function, find its number of units, and call it.

    Returns:
        The work function bound to its query, None with an application; and the wall-clock seconds that a call
        takes, None if only a query can tell its arguments.

    Raises:
        StartError: the function cannot be imported, calibrated or called, or its result is no body.
    """
    if settings.app is not None:
        return None, None
    try:
        function = _import(settings.work)
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
            takes = (time.monotonic() - began) / next(calls)  # more than its CPU time if it sleeps
    except Exception as error:
        raise StartError(
            f"the work function {settings.work} cannot be used: {type(error).__name__}: {error}"
        ) from error
    log.info("work", function=settings.work, units=units, cpu_ms=cost and round(cost * 1e3, 3))
    return work, takes


def load_tls(settings: Settings) -> Tls | None:
    """How to encrypt connections, with the certificates read from their files; None for plain HTTP.

    Raises:
        StartError: the files cannot be used.
    """
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    try:
        context = tls.context(settings.tls_cert, settings.tls_key, settings.tls_client_ca)
    except tls.TlsError as error:
        raise StartError(str(error)) from error
    return Tls(context, settings.tls_handshake_timeout)
