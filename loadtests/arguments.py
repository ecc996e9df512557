"""What the commands have in common: how they report a wrong word, their kinds of values, and the load.

Knows flags, defaults and exit codes. Touches the terminal for a wrong word, and the file of a body. Never
measures.
"""

import argparse
import sys
from pathlib import Path
from typing import Any, NoReturn

from loadtests.load.phase import ARRIVALS, CLOSERS, Phase
from loadtests.load.run import Machine, UsageError
from loadtests.load.thresholds import Threshold, parse_seconds

RATE = 20.0  # requests per second, unless --rate or --clients is given

PASSED, MISSED, USAGE, INVALID, INTERRUPTED = 0, 1, 2, 3, 130

EXIT_CODES_HELP = (
    "Exit codes: 0 passed, 1 a threshold was missed, 2 the command cannot be run as typed, "
    "3 the run is INVALID (the generator or the machine was the bottleneck, or too few samples), "
    "130 interrupted."
)


class Parser(argparse.ArgumentParser):
    """Reports a wrong flag or value in one sentence, without the page of usage."""

    def error(self, message: str) -> NoReturn:
        """End with exit code 2."""
        self.exit(USAGE, f"{self.prog}: {message} (see --help)\n")


class Help(argparse.ArgumentDefaultsHelpFormatter):
    """Adds the default to each help, where there is one worth the words."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return super()._get_help_string(action) if action.default else action.help


def add_load_flags(parser: Parser) -> None:
    """Add what describes a load, and the request that it is made of."""
    add = parser.add_argument_group("load").add_argument
    add(
        "--rate",
        type=rates,
        metavar="N[,N...]",
        help=f"requests per second (default: {RATE:g}). Several, such as 100,200,300, are sent one after "
        "another, each for --duration and judged by itself. A continuous ramp is not offered: a queue that "
        "has begun to grow shows only at a rate later on, so that it overestimates the capacity",
    )
    add(
        "--clients",
        type=count,
        metavar="N",
        help="instead of a rate: N clients in a closed loop, each sends when its last request has ended; "
        "that measures capacity, and no latency under an offered load: clients that wait their turn "
        "send nothing while the server stands still (coordinated omission)",
    )
    add("--duration", type=float, default=10, metavar="SECONDS", help="how long requests are sent")
    add("--arrivals", choices=ARRIVALS, help=f"even gaps ({ARRIVALS[0]}, the default), or independent users'")
    add("--seed", type=int, metavar="N", help="of the Poisson arrivals (default: 1)")
    add(
        "--max-in-flight", type=int, default=10_000, metavar="N", help="connections; above it nothing is sent"
    )
    add(
        "--source",
        metavar="IP[-IP]",
        help="local address, or a range of them that take turns: 127.0.0.2-127.0.0.9 (default: the kernel's)",
    )
    add("--port-range", metavar="LOW-HIGH", help="local ports to use (Linux 6.3; default: the kernel's)")
    add("--who-closes", choices=CLOSERS, default="server", help="first, and keeps the TIME_WAIT")
    add(
        "--keep-alive",
        action="store_true",
        help="send on idle connections that earlier requests left, on a new one when there is none; the "
        "ledger counts requests, and connections beside them (default: a connection for each request)",
    )
    add_request_flags(parser)


def add_request_flags(parser: Parser) -> None:
    """Add what describes a request and its answer."""
    request = parser.add_argument_group("request")
    add = request.add_argument
    add("--method", default="GET", metavar="NAME", help="request method")
    add(
        "-H",
        "--header",
        action="append",
        default=[],
        type=header,
        metavar="'NAME: VALUE'",
        help="repeatable",
    )
    body = request.add_mutually_exclusive_group()
    body.add_argument("--body", metavar="TEXT", help="request body, sent as UTF-8 (default: none)")
    body.add_argument(
        "--body-file", type=body_of_file, metavar="FILE", help="request body from a file; - is stdin"
    )
    add(
        "--timeout",
        type=float,
        default=10,
        metavar="SECONDS",
        help="from the start to the last byte of the answer",
    )
    add("--expect", default="200", metavar="STATUS", help="success: 200, 2xx, 200-299, or 200,204")
    add("--insecure", action="store_true", help="accept any certificate (default: verify)")


def phases_of(arguments: argparse.Namespace) -> list[Phase]:
    """The phases that the flags of `add_load_flags` describe, one after another; raises `UsageError`.

    Several only differ in their rates.
    """
    offered = ("rate", "arrivals", "seed")
    given = {name: value for name in offered if (value := getattr(arguments, name)) is not None}
    if arguments.clients is None:
        given.setdefault("rate", (RATE,))
    elif given:
        names = " and ".join(f"--{name}" for name in given)
        raise UsageError(f"--clients excludes {names}: a closed loop sends when answers come, at no set rate")
    steps: tuple[float | None, ...] = given.pop("rate", (None,))
    try:
        return [
            Phase(
                url=arguments.url,
                clients=arguments.clients,
                rate=rate,
                **given,
                duration_seconds=arguments.duration,
                source=arguments.source,
                port_range=arguments.port_range,
                keep_alive=arguments.keep_alive,
                who_closes=arguments.who_closes,
                max_in_flight=arguments.max_in_flight,
                **_request(arguments),
            )
            for rate in steps
        ]
    except ValueError as error:
        raise UsageError(str(error)) from None


def request_of(arguments: argparse.Namespace) -> Phase:
    """A phase with the request that the flags of `add_request_flags` describe, and a load to be replaced."""
    try:
        return Phase(url=arguments.url, rate=1, duration_seconds=1, **_request(arguments))
    except ValueError as error:
        raise UsageError(str(error)) from None


def _request(arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "method": arguments.method,
        "headers": tuple(arguments.header),
        "body": arguments.body or arguments.body_file or "",
        "timeout_seconds": arguments.timeout,
        "expect": arguments.expect,
        "insecure": arguments.insecure,
    }


def add_machine_flags(parser: Parser) -> None:
    """Add what the user says of this machine."""
    add = parser.add_argument_group("machine").add_argument
    add(
        "--server-process",
        action="append",
        default=[],
        metavar="NAME",
        help="repeatable; process of this machine that belongs to the server, beside those that listen on "
        "its port: its CPU time makes no run INVALID",
    )
    add(
        "--shared-machine",
        action="store_true",
        help="others use this machine: tell what they took of the CPU as a caution, not as INVALID",
    )


def machine_of(arguments: argparse.Namespace) -> Machine:
    """What the flags of `add_machine_flags` say."""
    return Machine(server_processes=arguments.server_process, shared=arguments.shared_machine)


def positive(text: str) -> float:
    """A positive number."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return value


def count(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def whole(text: str) -> int:
    """A whole number."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def rates(text: str) -> tuple[float, ...]:
    """A rate, or several with commas; whether one makes sense is for the phase to say."""
    try:
        return tuple(map(float, text.split(",")))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a rate, nor several with commas") from None


def loads(text: str) -> tuple[float, ...]:
    """Positive numbers with commas."""
    return tuple(positive(part) for part in text.split(","))


def header(text: str) -> tuple[str, str]:
    """Name and value of a header line."""
    name, colon, value = text.partition(":")
    if not colon:
        raise argparse.ArgumentTypeError(f"{text!r} is not 'NAME: VALUE'")
    return name.strip(), value.strip()


def body_of_file(name: str) -> str:
    """The content of a file, bytes that are no UTF-8 as surrogates."""
    try:
        content = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot read {name}: {error.strerror}") from None
    return content.decode("utf-8", "surrogateescape")


def threshold(text: str) -> Threshold:
    """A threshold such as `p99<100ms`."""
    try:
        return Threshold.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def duration(text: str) -> float:
    """Seconds of `100ms` or `1.5s`."""
    try:
        return parse_seconds(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def success(text: str) -> Threshold:
    """A share such as `99.9%` as the threshold on errors that it is."""
    try:
        share = float(text.removesuffix("%"))
    except ValueError:
        share = -1.0
    if not text.endswith("%") or not 0 <= share < 100:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share below 100 %, such as 99.9%")
    return Threshold.parse(f"errors<={100 - share:.6g}%")
