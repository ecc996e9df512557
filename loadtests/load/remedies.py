"""What helps a run whose local ports do not suffice: commands to paste, each tried by a forecast. Pure."""

import dataclasses
import shlex
from collections.abc import Callable, Sequence
from typing import Final

from loadtests.load.ports import Demand, HeldPort, PortRules, forecast

WIDEST: Final = (1024, 65535)
SPARE_ADDRESSES: Final = tuple(f"127.0.0.{last}" for last in range(2, 255))
"""Addresses of loopback, all of which belong to this machine; IPv6 has only ::1."""

ANSWER_SECONDS: Final = 0.1
"""For how long a request may hold its port while it is answered; a remedy must suffice for that."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """A command to paste that makes the ports suffice, and its effect. `needs_root`: to run the command."""

    command: str
    effect: str
    needs_root: bool = False


def remedies(
    demand: Demand, rules: PortRules, held: Sequence[HeldPort], command: Sequence[str]
) -> list[Remedy]:
    """All remedies for a forecast that fails, each tested by a forecast of its own, the simplest first.

    `command`: the run as it was typed, word by word.
    """

    def cures(changed: Demand, by: PortRules = rules) -> bool:
        return forecast(changed, by, held, ANSWER_SECONDS).first_without is None

    found = []
    if demand.client_closes and cures(dataclasses.replace(demand, client_closes=False)):
        typed = with_flag(command, "--who-closes", "server")
        found.append(Remedy(command=typed, effect="the server closes first and keeps the TIME_WAIT"))
    on_ipv4 = not any(":" in source for source in demand.sources)
    if demand.loopback and on_ipv4 and (more := _enough_sources(demand, cures)) is not None:
        typed = with_flag(command, "--source", f"{more[0]}-{more[-1]}")
        effect = f"{len(more)} local addresses have {rules.ports:,} ports each"
        found.append(Remedy(command=typed, effect=effect))
    if demand.client_closes and cures(demand, dataclasses.replace(rules, tw_reuse=1)):
        sysctl = "sysctl -w net.ipv4.tcp_tw_reuse=1"
        effect = f"a port in TIME_WAIT may be taken again after {rules.reuse_delay_seconds:g} s"
        found.append(Remedy(command=sysctl, effect=effect, needs_root=True))
    low, high = WIDEST
    if cures(demand, dataclasses.replace(rules, low=low, high=high)):
        sysctl = f"sysctl -w net.ipv4.ip_local_port_range='{low} {high}'"
        effect = f"{high - low + 1:,} ports instead of {rules.ports:,}"
        found.append(Remedy(command=sysctl, effect=effect, needs_root=True))
    return found


def _enough_sources(demand: Demand, cures: Callable[[Demand], bool]) -> tuple[str, ...] | None:
    """The fewest loopback addresses that suffice; None if even 253 of them do not."""
    few, many = 1, len(SPARE_ADDRESSES)
    if not cures(dataclasses.replace(demand, sources=SPARE_ADDRESSES)):
        return None
    while few < many:
        middle = (few + many) // 2
        if cures(dataclasses.replace(demand, sources=SPARE_ADDRESSES[:middle])):
            many = middle
        else:
            few = middle + 1
    return SPARE_ADDRESSES[:many]


def with_flag(command: Sequence[str], flag: str, value: str) -> str:
    """A command line for a shell, with one flag set to a new value."""
    return shlex.join([*without_flag(command, flag), flag, value])


def without_flag(command: Sequence[str], flag: str) -> list[str]:
    """A command line, word by word, without one flag and its value."""
    words: list[str] = []
    skip = False
    for word in command:
        if not skip and word != flag and not word.startswith(f"{flag}="):
            words.append(word)
        skip = word == flag
    return words
