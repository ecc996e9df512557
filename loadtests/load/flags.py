"""The flags that describe a load, a request and this machine, and what is made of them.

Shared by the commands that send something. Touches nothing. Never measures.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from loadtests.arguments import Arguments, Parser, count
from loadtests.exits import UsageError
from loadtests.load.phase import ARRIVALS, BACKOFF, CLOSERS, NO_RETRY, RETRY_POLICIES, Phase
from loadtests.load.values import body_of_file, header, rates

if TYPE_CHECKING:
    from loadtests.load.order import Machine

RATE: Final = 20.0  # requests per second, unless --rate or --clients is given


def add_load_flags(parser: Parser) -> None:
    """Add the flags of a load and of its request."""
    add = parser.add_argument_group("load").add_argument
    add(
        "--rate",
        type=rates,
        metavar="N[,N...]",
        help=f"requests per second (default: {RATE:g}). Several rates, such as 100,200,300, are sent one "
        "after another, each for --duration, and each is judged by itself. There is no continuous ramp: a "
        "queue that begins to grow shows only later, at a higher rate, so a ramp overestimates the capacity",
    )
    add(
        "--clients",
        type=count,
        metavar="N",
        help="instead of a rate: N clients in a closed loop, each of which sends its next request when its "
        "last one has ended. That measures capacity, and not latency under an offered load: clients that "
        "wait for an answer send nothing while the server stalls (coordinated omission)",
    )
    add("--duration", type=float, default=10, metavar="SECONDS", help="how long to send requests")
    add(
        "--arrivals",
        choices=ARRIVALS,
        help="constant: evenly spaced (the default); poisson: at random, as independent users send",
    )
    add(
        "--seed",
        type=int,
        metavar="N",
        help="seed of Poisson arrivals and of the waits before retries (default: 1)",
    )
    add(
        "--max-in-flight",
        type=int,
        default=10_000,
        metavar="N",
        help="most connections at a time; a request that is due while there are so many is not sent",
    )
    add(
        "--source",
        metavar="IP[-IP]",
        help="local address to send from, or a range of addresses to use in turn, such as "
        "127.0.0.2-127.0.0.9 (default: the kernel's choice)",
    )
    add(
        "--port-range",
        metavar="LOW-HIGH",
        help="local ports to use (Linux 6.3; default: the kernel's)",
    )
    add(
        "--who-closes",
        choices=CLOSERS,
        default="server",
        help="the side that closes a connection first, and whose port then stays in TIME_WAIT",
    )
    add(
        "--keep-alive",
        action="store_true",
        help="send on connections that earlier requests have left idle, and open a new one when none is "
        "idle; the ledger then counts requests, and connections on a line of their own (default: one "
        "connection per request)",
    )
    _add_retry_flags(parser)
    add_request_flags(parser)


def _add_retry_flags(parser: Parser) -> None:
    """Add what clients do when an attempt fails."""
    add = parser.add_argument_group("retries").add_argument
    add(
        "--retries",
        type=int,
        default=0,
        metavar="N",
        help="how often clients send a request again, at most, whatever its method: when it timed out, could "
        "not connect, was cut off, or was answered 429 or 503 (unless --expect names these). Retries come on "
        "top of --rate and never delay it (default: 0)",
    )
    add(
        "--retry",
        choices=RETRY_POLICIES,
        metavar="POLICY",
        help="when they do. immediate: at once; backoff: after a random time up to 100 ms, doubled with each "
        "attempt, 10 s at most; budget: at once, while at most 10%% of the requests were retries, at most "
        "100 of them saved up; retry-after: when the answer's Retry-After says, else as backoff, and not at "
        "all after more than 60 s; none: never, whatever --retries (default: backoff with --retries, else "
        "none)",
    )


def add_request_flags(parser: Parser) -> None:
    """Add the flags of a request and of its answer."""
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
        help="request header; repeatable",
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
        help="time from the start of a request to the last byte of its answer",
    )
    add(
        "--expect",
        default="200",
        metavar="STATUS",
        help="statuses that count as success: 200, 2xx, 200-299, or 200,204",
    )
    add("--insecure", action="store_true", help="accept any certificate (default: verify it)")


def add_machine_flags(parser: Parser) -> None:
    """Add what the user says of this machine."""
    add = parser.add_argument_group("machine").add_argument
    add(
        "--server-process",
        action="append",
        default=[],
        metavar="NAME",
        help="name of a process on this machine that belongs to the server, besides those that listen on "
        "its port: its CPU time does not make a run INVALID; repeatable",
    )
    add(
        "--shared-machine",
        action="store_true",
        help="other people use this machine: report their CPU time as a caution, not as INVALID",
    )


def phases_of(arguments: Arguments) -> list[Phase]:
    """The phases that the flags of `add_load_flags` describe, one after another; raises `UsageError`.

    Several only differ in their rates.
    """
    offered = ("rate", "arrivals", "seed")
    given = {name: value for name in offered if (value := getattr(arguments, name)) is not None}
    if arguments.clients is None:
        given.setdefault("rate", (RATE,))
    elif excluded := given.keys() - ({"seed"} if arguments.retries else ()):  # it draws waits as well
        names = " and ".join(f"--{name}" for name in offered if name in excluded)
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
                retries=arguments.retries,
                retry=arguments.retry or (BACKOFF if arguments.retries else NO_RETRY),
                **_request(arguments),
            )
            for rate in steps
        ]
    except ValueError as error:
        raise UsageError(str(error)) from None


def request_of(arguments: Arguments) -> Phase:
    """A phase with the request that the flags of `add_request_flags` describe; its load is a placeholder."""
    try:
        return Phase(url=arguments.url, rate=1, duration_seconds=1, **_request(arguments))
    except ValueError as error:
        raise UsageError(str(error)) from None


def _request(arguments: Arguments) -> dict[str, Any]:
    return {
        "method": arguments.method,
        "headers": tuple(arguments.header),
        "body": arguments.body or arguments.body_file or "",
        "timeout_seconds": arguments.timeout,
        "expect": arguments.expect,
        "insecure": arguments.insecure,
    }


def machine_of(arguments: Arguments) -> Machine:
    """What the flags of `add_machine_flags` say."""
    from loadtests.load.order import Machine

    return Machine(server_processes=arguments.server_process, shared=arguments.shared_machine)


def run_as_typed(arguments: Arguments) -> list[str]:
    """The `run` command line to type again; without --out, whose folder would already hold a run."""
    from loadtests.load.remedies import without_flag

    program = Path(sys.executable)
    if program.is_relative_to(Path.cwd()):
        program = program.relative_to(Path.cwd())
    _, *words = arguments.words  # the command's own name comes first
    return [str(program), "-m", "loadtests", "run", *without_flag(words, "--out")]
