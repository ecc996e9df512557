"""Proofs that replicas behind HAProxy are one service, long form: `make replicas`.

HAProxy runs with deploy/haproxy.cfg, of which only the places of the replicas are others. The work sleeps, so
that the cores of the machine bound nothing but what HAProxy, the replicas and the clients cost.

What counts as lost: a request that HAProxy answers with 502, because the replica that had it has gone. What
is open on a replica that is killed is lost; nothing else is.
"""

from __future__ import annotations

import json
import signal
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

from metrics.exposition import total
from tests.proofs.record import prove
from tests.support.child import Child, service
from tests.support.haproxy import HAProxy, haproxy
from tests.support.load import Load, load
from tests.support.waiting import until

Figures = dict[str, Any]
WORKERS, WORK_SECONDS, REPLICAS = 4, 0.04, 3
LIMIT = WORKERS / WORK_SECONDS
"""Requests per second that one replica can answer."""

OFFERED = 1.5
"""Of the limit: enough that no worker is ever idle; what is too much is refused."""

LEAST_GAIN = 2.85
LOST = "status_502"
NAMES = ("killed", "drained", "left")
ACCEPTED = "http_connections_accepted_total"


@contextmanager
def replicas(folder: Path, *flags: str) -> Iterator[list[Child]]:
    """Three services as one would start them behind HAProxy, ready."""
    common = ("--work", "tests.work:sleeps_40_ms", "--work-units", "1", "--workers", str(WORKERS))
    with ExitStack() as stack:
        started = [
            stack.enter_context(service(folder / f"log{number}", *common, *flags))
            for number in range(1, REPLICAS + 1)
        ]
        for one in started:
            one.ready()
        yield started


def killed_and_drained(folder: Path, seconds: float, rate: float) -> Figures:
    """Under load, one of three is killed and another drained; then everybody's books are held together.

    The killed one is stopped first, until HAProxy has something open on it: else the kill would mostly meet
    a replica that is idle. The wait of 5 s: the last one has to answer whatever comes, and late is answered.
    """
    with (
        replicas(folder, "--queue-wait", "5", "--drain-notice", "5") as (killed, drained, left),
        haproxy(folder / "haproxy", (killed, drained, left)) as proxy,
    ):
        under = Load(proxy.address, seconds, rate, folder / "load")
        until(lambda: all(proxy.server(number, "sessions_total") > 5 for number in (1, 2, 3)), "all serve")
        killed.process.send_signal(signal.SIGSTOP)
        until(lambda: proxy.server(1, "current_sessions") > 0, "it holds a request")
        killed.process.send_signal(signal.SIGKILL)
        proxy.until_down(1)
        drained.process.send_signal(signal.SIGTERM)
        proxy.until_down(2)
        in_time = drained.process.poll() is None  # and not because its port had gone
        assert under.is_running(), "the load ended before the drain"
        assert drained.process.wait(30) == 0
        outcomes = under.outcomes()
        ledger = json.loads((folder / "load/summary.json").read_text())["ledger"]
        (stopped,) = drained.events("stopped")
        figures: Figures = {
            "rate": rate,
            "outcomes": outcomes,
            "connected": ledger["connected"],
            "HAProxy": _books(proxy),
            "accepted": {"drained": stopped["accepted"], "left": int(left.scrape()[ACCEPTED])},
            "answered": {"left": int(total(left.scrape(), "http_requests_total", status="200"))},
        }
        assert left.end() == 0
    assert in_time, figures
    _reconcile(figures)
    return figures


def _books(proxy: HAProxy) -> Figures:
    """What HAProxy has counted: of its clients, and of each replica.

    `connected`: connections that a request went out on. A try that was refused, or reset before that, counts
    as an attempt and as a retry, the second also among the `errors`: else those are answers that never came.
    """
    client = {"proxy": "http"}
    until(
        lambda: total(proxy.scrape(), "haproxy_frontend_current_sessions", **client) == 0,
        "HAProxy has no client",
    )
    values = proxy.scrape()
    books: Figures = {
        "clients": int(total(values, "haproxy_frontend_sessions_total", **client)),
        "requests": int(total(values, "haproxy_frontend_http_requests_total", **client)),
        "ok": int(total(values, "haproxy_frontend_http_responses_total", code="2xx", **client)),
        "failed": int(total(values, "haproxy_frontend_http_responses_total", code="5xx", **client)),
    }
    for number, name in enumerate(NAMES, 1):
        server = {"server": str(number), "proxy": "replicas"}

        def count(figure: str, server: dict[str, str] = server, **labels: str) -> int:
            return int(total(values, f"haproxy_server_{figure}", **server, **labels))

        retried = count("retry_warnings_total") + count("redispatch_warnings_total")
        books[name] = {
            "connected": count("connection_attempts_total") - retried,
            "retried": retried,
            "ok": count("http_responses_total", code="2xx"),
            "errors": count("response_errors_total"),
            "refused": count("connection_errors_total"),
        }
    return books


def _reconcile(figures: Figures) -> None:
    """Clients, HAProxy and replicas have counted the same, and only the killed one lost anything."""
    outcomes, books = figures["outcomes"], figures["HAProxy"]
    assert set(outcomes) == {"ok", LOST}, figures
    assert books["clients"] == books["requests"] == figures["connected"] == sum(outcomes.values()), figures
    assert books["ok"] == outcomes["ok"] == sum(books[name]["ok"] for name in NAMES), figures
    assert books["failed"] == outcomes[LOST] <= books["killed"]["errors"], figures
    lost = dict.fromkeys(NAMES, 0) | {"killed": outcomes[LOST]}
    for name in NAMES:
        assert books[name]["connected"] == books[name]["ok"] + lost[name], figures
        assert books[name]["refused"] == 0, figures  # so often was every retry in vain
    for name in ("drained", "left"):
        assert books[name]["errors"] == 0, figures
        assert books[name]["connected"] == figures["accepted"][name], figures
    assert books["left"]["ok"] == figures["answered"]["left"], figures


def queue_is_bounded(folder: Path, held: int, waiting: int) -> Figures:
    """A replica that stands still gets `maxconn` requests; the next wait `timeout queue`, no longer.

    It goes on before HAProxy has given it up, so what it holds is answered.
    """
    flags = [*("--work", "tests.work:sleeps_40_ms", "--work-units", "1", "--workers", "1")]
    flags += ["--queue-wait", "5"]  # it answers, however late, all that it holds when it goes on
    with (
        service(folder / "log", *flags) as replica,
        haproxy(folder / "haproxy", [replica], ("maxconn 400", f"maxconn {held}")) as proxy,
        ThreadPoolExecutor(held + waiting) as clients,
    ):
        replica.process.send_signal(signal.SIGSTOP)
        first = [clients.submit(_ask, proxy.address) for _ in range(held)]
        until(lambda: proxy.server(1, "current_sessions") == held, "it holds all that it may")
        began = time.monotonic()
        then = [clients.submit(_ask, proxy.address) for _ in range(waiting)]
        refused = Counter(one.result() for one in then)
        took = time.monotonic() - began
        replica.process.send_signal(signal.SIGCONT)
        answered = Counter(one.result() for one in first)
        assert replica.end() == 0
    figures: Figures = {"held": dict(answered), "waiting": dict(refused), "refused_after": round(took, 2)}
    assert answered == {200: held}, figures
    assert refused == {503: waiting}, figures
    assert took >= 0.2, figures
    return figures


def _ask(address: str) -> int:
    """The status of one answer."""
    try:
        with urlopen(f"{address}/data", timeout=30) as answer:
            return int(answer.status)
    except HTTPError as error:
        with error:
            return error.code


def gain(folder: Path, seconds: float, pairs: int, least: float) -> Figures:
    """How much more three replicas carry than one, in pairs whose order alternates; both behind HAProxy."""
    ratios: list[float] = []
    carried: dict[int, list[float]] = {1: [], REPLICAS: []}
    with (
        replicas(folder) as started,
        haproxy(folder / "one", started[:1]) as one,
        haproxy(folder / "three", started) as three,
    ):
        for pair in range(pairs):
            blocks = [(1, one), (REPLICAS, three)]
            for count, proxy in blocks if pair % 2 else blocks[::-1]:
                kept = folder / f"load{pair}-{count}"
                carried[count].append(_carried(proxy, seconds, OFFERED * count * LIMIT, kept))
            ratios.append(carried[REPLICAS][-1] / carried[1][-1])
        assert [replica.end() for replica in started] == [0] * REPLICAS
    figures: Figures = {
        "limit_of_one": LIMIT,
        "one": _rounded(carried[1], 1),
        "three": _rounded(carried[REPLICAS], 1),
        "ratios": _rounded(ratios, 3),
        "median_ratio": round(statistics.median(ratios), 3),
    }
    assert statistics.median(ratios) >= least, figures
    return figures


def _carried(proxy: HAProxy, seconds: float, rate: float, out: Path) -> float:
    """Answers per second while more is offered than can be answered; the rest is refused."""
    summary = load(proxy.address, seconds, rate, out)
    assert set(summary["outcomes"]) == {"ok", "status_503"}, summary["outcomes"]
    return float(summary["achieved_per_second"])


def _rounded(values: Sequence[float], digits: int) -> list[float]:
    return [round(value, digits) for value in values]


def main() -> int:
    """Run all in full and keep the figures."""
    proofs: dict[str, Callable[[Path], Figures]] = {
        "one killed, one drained": lambda folder: killed_and_drained(folder, 20, 80),
        "a queue in front of one that stands still": lambda folder: queue_is_bounded(folder, 20, 80),
        "three beside one": lambda folder: gain(folder, 5, 12, LEAST_GAIN),
    }
    return prove("replicas", proofs)


if __name__ == "__main__":
    sys.exit(main())
