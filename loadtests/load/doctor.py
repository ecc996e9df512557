"""Do the local ports suffice? Examined before each run, and by the command `ports`.

Knows how a forecast follows from a phase, the machine's rules and its open connections, and how to word it.
Touches /proc through port_state.py. Never sends anything.
"""

import itertools
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from loadtests.exits import UsageError
from loadtests.load.endpoint import Endpoint, make_endpoint
from loadtests.load.phase import Phase
from loadtests.load.port_state import held_ports, is_loopback, port_rules, source_for
from loadtests.load.ports import Demand, Forecast, PortRules, forecast
from loadtests.load.remedies import Remedy, remedies
from loadtests.load.retrying import worst_case
from loadtests.load.schedule import offsets_of

WIDTH: Final = 78


@dataclass(frozen=True, slots=True)
class Examination:
    """What a run will do to the ports, and what helps if they do not suffice."""

    address: Any  # of the server, as socket.connect takes it
    forecast: Forecast
    remedies: tuple[Remedy, ...]

    @property
    def suffices(self) -> bool:
        """Whether every request will find a port."""
        return self.forecast.first_without is None


def examined(phases: Sequence[Phase], command: Sequence[str]) -> Examination:
    """Resolve the server's address and examine the phases; raises `UsageError` if nothing can be sent.

    The generator does the same once more on its own. For the arguments see `examine`.
    """
    phase = phases[0]
    try:
        return examine(phases, make_endpoint(phase), command)
    except (OSError, UnicodeError) as error:
        source = f" from {phase.source}" if phase.source else ""
        raise UsageError(
            f"cannot send to {phase.url}{source}: {getattr(error, 'strerror', None) or error}"
        ) from None


def examine(phases: Sequence[Phase], endpoint: Endpoint, command: Sequence[str]) -> Examination:
    """Simulate phases, one after another, on the ports as they are now.

    They differ in their rates only, and each begins when the one before has sent everything (in reality a
    little later, when everything is answered). `command`: the run as it was typed, word by word. Raises
    `OSError` if there is no route to the server.
    """
    phase = phases[0]
    begins = itertools.accumulate((each.duration_seconds for each in phases), initial=0.0)
    host, port = endpoint.address[:2]
    rules = port_rules()
    if (span := phase.port_span) is not None:
        rules = rules.within(span)
    requests = [
        begin + offset for each, begin in zip(phases, begins, strict=False) for offset in offsets_of(each)
    ]
    offsets = worst_case(requests, phase.retry, phase.retries_at_most)
    # How many kept connections are open at the same time depends on how fast the server answers: only an
    # upper bound is known.
    most = phase.clients or min(len(offsets), phase.max_in_flight)
    demand = Demand(
        offsets=[] if phase.keep_alive else offsets,
        sources=phase.sources or (source_for(endpoint.family, endpoint.address),),
        client_closes=phase.who_closes == "client",
        loopback=is_loopback(host),
        most_at_once=most if phase.keep_alive else None,
        retries=0 if phase.keep_alive else len(offsets) - len(requests),
    )
    held = held_ports(host, port)
    found = forecast(demand, rules, held)
    cures = remedies(demand, rules, held, command) if found.first_without is not None else []
    return Examination(endpoint.address, found, tuple(cures))


def lines(examination: Examination) -> Iterator[str]:
    """The examination for a terminal: the budget, the forecast, and commands to paste.

    Sentences are wrapped; a command is never broken, however long it is.
    """
    for sentence in sentences(examination.forecast):
        yield from textwrap.wrap(sentence, WIDTH)
    if examination.suffices:
        return
    if not examination.remedies:
        yield "Send less, or send from more machines: no setting of this machine helps."
        return
    yield "Each of these helps by itself:"
    for remedy in examination.remedies:
        yield f"  {remedy.command}"
        yield f"      {remedy.effect}{' (as root)' if remedy.needs_root else ''}"


def sentences(found: Forecast) -> Iterator[str]:
    """The budget and the forecast."""
    each = f" on each of {found.sources} addresses" if found.sources > 1 else ""
    busy = f", {found.busy:,} of them busy now" if found.busy else ""
    if found.most_at_once is not None:
        back = (
            "Connections are kept, so a run needs as many as it has requests under way at a time, which "
            f"depends on the server; at most {found.most_at_once:,}."
        )
    elif found.sustained_per_second is None:
        back = "The server closes first, so a port is free again as soon as its connection ends."
    else:
        back = (
            f"The client closes first, so a port is free again {found.quarantine_seconds:g} s after its "
            f"connection: {found.sustained_per_second:,.0f} connections/s can be sustained."
        )
    yield f"{found.ports:,} local ports{each}{busy}. {back}"
    counted = "attempts" if found.retries else "requests"
    if found.first_without is not None:
        yield (
            f"{counted[:-1].capitalize()} {found.first_without:,} of {found.planned:,}, "
            f"{found.at_seconds:.1f} s after the start, will find none (EADDRNOTAVAIL)."
        )
    elif found.planned:
        yield f"All of {found.planned:,} {counted} will find one."
    if found.retries:
        yield (
            f"That counts {found.retries:,} retries, the most there can be, each sent as soon as its request "
            "was due."
        )


def state_lines(rules: PortRules, sockets: Counter[str]) -> Iterator[str]:
    """The machine's ports and rules, independent of any run."""
    reserved = f", {rules.reserved:,} reserved" if rules.reserved else ""
    span = f"{rules.low} to {rules.high}{reserved}"
    yield f"local ports   {rules.ports:,} for each local address and server"
    yield f"              ({span})"
    yield "after use     the side that closes first keeps the port in TIME_WAIT"
    yield "                the server closes first    free at once"
    for loopback, where in ((True, "loopback"), (False, "elsewhere")):
        seconds = rules.quarantine_seconds(client_closes=True, loopback=loopback)
        yield (
            f"                the client, {where:<14} free after {seconds:g} s: "
            f"{rules.ports / seconds:,.0f}/s sustained"
        )
    told = ", ".join(f"{count:,} {name}" for name, count in sockets.most_common())
    yield f"sockets now   {told or 'none'}"
