"""One service from start to stop: what `serve` and the tests run.

Knows the parts as a whole and the states. Which parts there are and how they fit together is in parts.py,
how each is stopped in stopping.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from contextlib import AsyncExitStack

import structlog

from metrics.instruments import Metrics
from service.app.loading import StartError, load_tls
from service.background import in_background
from service.config.settings import Settings
from service.lifecycle.parts import Blueprint, Parts, assemble
from service.lifecycle.states import Event, Life, State
from service.lifecycle.stopping import Stopping
from service.web.connection import Tls

log = structlog.get_logger("offloop.server")

TLS = frozenset({"tls_cert", "tls_key", "tls_client_ca"})
RELOADABLE = TLS | {"max_connections"}


class Service:
    """One service: `start()`, then `parts`, then perhaps `lame_duck()`, then `stop()`.

    Args:
        metrics: instruments to use; without them, it makes its own.
        listener: a listening socket that other processes hold as well; without one, it opens the one that the
            settings name. The service closes it when it stops.
        admin: whether to serve the admin endpoint.
        tls: how to encrypt connections; without it, the certificates that the settings name are read.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        metrics: Metrics | None = None,
        listener: socket.socket | None = None,
        admin: bool = True,
        tls: Tls | None = None,
    ) -> None:
        self.settings = settings
        self.metrics = metrics or Metrics()
        self.life = Life()
        self.broken = asyncio.Event()
        """Set when the listener has failed for good."""
        self._listener = listener
        self._has_admin = admin
        self._tls = tls
        self._parts: Parts | None = None
        self._stack = AsyncExitStack()
        self._stopping = Stopping()

    @property
    def parts(self) -> Parts:
        """The parts, from the end of `start()` on.

        Raises:
            RuntimeError: the service has not started.
        """
        if self._parts is None:
            raise RuntimeError("the service has not started")
        return self._parts

    async def start(self) -> None:
        """Bring every part up and begin to accept.

        Raises:
            StartError: a part could not be started; those that were up have been stopped.
        """
        blueprint = Blueprint(
            self.settings,
            self.metrics,
            self._listener,
            self._has_admin,
            self._tls or await in_background("certificates", load_tls, self.settings),
            self.ready,
            self.alive,
            self.broken.set,
        )
        async with AsyncExitStack() as stack:
            self._parts = await assemble(blueprint, self._stopping, stack)
            self._stack = stack.pop_all()
        self.life.move(Event.UP)

    def ready(self) -> tuple[bool, str]:
        """Readiness, which implies liveness, and its reason; safe from any thread."""
        alive, why = self.alive()
        if not alive:
            return False, why
        if self.life.ready and not self.parts.offload.healthy:
            return False, self.parts.offload.trouble
        return self.life.ready, self.life.state.value

    def alive(self) -> tuple[bool, str]:
        """Liveness and its reason; safe from any thread."""
        if self.life.watched and (seconds := self.parts.loop_monitor.stalled()) is not None:
            return False, f"the event loop has not turned for {seconds:.1f} s"
        if self.life.watched and self.parts.offload.stuck:
            return False, "no worker can be started"
        return True, "ok"

    async def reload(self, settings: Settings) -> None:
        """Take over what may change while running: the certificates' files and the connection limit.

        What cannot be used is refused with the reason in the log, and the present value stays. Encrypted
        connections keep their certificate, and connections above a lower limit stay.
        """
        changed = {name for name, value in settings if value != getattr(self.settings, name)}
        taken = RELOADABLE
        if (self.settings.tls_cert is None) is not (settings.tls_cert is None):
            taken -= TLS  # clients of this port expect either TLS or plain HTTP
        if changed - taken:
            log.warning("settings need a restart", settings=sorted(changed - taken))
        after = self._with(settings, taken)
        parts = self.parts
        try:
            parts.hand_over.tls = await in_background("certificates", load_tls, after)
        except StartError as error:
            log.error("certificates refused", reason=str(error), now="the old ones")  # noqa: TRY400
            after = self._with(settings, taken - TLS)
        self.settings = after
        with contextlib.suppress(OSError):  # the open files cannot be counted now: the old limit stays
            parts.connection_limit.set(after.max_connections)
        log.info(
            "reloaded",
            max_connections=parts.connection_limit.limit,
            tls_cert=str(self.settings.tls_cert or "none"),
        )

    def _with(self, settings: Settings, names: frozenset[str]) -> Settings:
        """The present settings, with those called `names` from `settings`."""
        return self.settings.model_copy(update={name: getattr(settings, name) for name in names})

    async def lame_duck(self) -> None:
        """Keep serving for `drain_notice` seconds while readiness says no.

        Balancers see that and send new clients elsewhere. Each response closes its connection: a client that
        kept one would otherwise find it closed just as it sends the next request. A listener that breaks ends
        this early.
        """
        self.life.move(Event.TERMINATE)
        seconds = self.settings.drain_notice
        if seconds:
            self.parts.supervisor.close_after_responses()
            log.info("notice", seconds=seconds, active=self.metrics.connections.snapshot().active)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.broken.wait(), seconds)
        self.life.move(Event.BROKEN if self.broken.is_set() else Event.LAME_DUCK_OVER)

    async def stop(self, why: Event = Event.INTERRUPT) -> int:
        """Stop every part within `drain_timeout` seconds: accepting, connections, application, workers.

        Returns:
            Connections and tasks that the deadline has cut off; 0 is a clean stop.
        """
        if self.life.state is State.SERVING:  # else it has been a lame duck
            self.life.move(why)
        self._stopping.begin(self.settings.drain_timeout)
        await self._stack.aclose()
        abandoned = self._stopping.abandoned
        self.life.move(Event.DRAIN_DEADLINE if abandoned else Event.DRAINED)
        return abandoned
