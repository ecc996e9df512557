"""Malformed input on the socket, property-based: `make fuzz` sends 200,000 cases.

Whatever a client sends, the service answers below 500 (or 501 and 505, for what HTTP has and ours has not) or
closes; it logs no exception, leaks nothing and does not grow. h11 reads every answer, and judges every case
beside ours: a difference that fuzz_oracle.py does not list fails. More than a third of the cases are valid
requests with mutations, because random bytes alone never get past the request line; how many reached the
handler is part of the result.
"""

from __future__ import annotations

import argparse
import json
import re
import socket
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from metrics.exposition import total
from tests.proofs.fuzz_oracle import ONLY_H11_ROWS, ROWS, difference, read_by_h11
from tests.proofs.record import keep
from tests.support import letter
from tests.support.child import Child, service
from tests.support.processes import descriptors, resident_bytes

BATCH = 5_000  # cases per run of Hypothesis, which remembers each of them
PART = 50_000  # cases per service, after which the figures are kept: a long run can be resumed
PATIENCE_SECONDS = 5.0  # for an answer that is owed: a client that leaves before has its request given up
MORE_SECONDS = 0.002  # for one that is not; the service's own counters judge in the end
NOT_OURS = frozenset({"501", "505"})  # codings and versions of HTTP
STATUS = re.compile(rb"HTTP/1\.[01] (\d{3}) ")

token = st.text("abcdefghijklmnopqrstuvwxyzABCXYZ-_0123456789", min_size=1, max_size=12).map(str.encode)
# What parsers stumble over: length and framing headers that contradict each other, and their neighbours.
pitfalls = st.sampled_from(
    [
        *(b"\r\n", b"\n", b"\r", b"\0", b"\xff", b" ", b"\t", b":", b";", b"\r\n\r\n", b"\r\n ", b"%00"),
        *(b"HTTP/0.9", b"HTTP/1.0", b"HTTP/2.0", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"0\r\n\r\n"),
        b"Content-Length: 5\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length: 99999999999999999999\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: identity, chunked\r\n",
        b"ffffffffffffffff\r\n",
        b"Expect: 100-continue\r\n",
        b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x\r\n",
        b"Host: \r\n",
        b"Connection: close\r\n",
        b"Range: bytes=0-\r\n",
        b"Content-Encoding: deflate\r\n",
        b"Cookie: a=b;;=\r\n",
    ]
)
METHODS = (*[b"GET"] * 3, b"HEAD", b"POST", b"PUT", b"OPTIONS", b"DELETE", b"BREW")
TARGETS = (*[b"/data"] * 3, b"/healthz", b"/", b"*", b"/data?x=1", b"http://t/data")


# Made once: to make a strategy costs more than to draw from it.
methods, targets = st.sampled_from(METHODS), st.sampled_from(TARGETS)
versions = st.sampled_from([b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0"])
header_lists = st.lists(st.tuples(token, token).map(b": ".join), max_size=3)
bodies, booleans, quarter = st.binary(max_size=40), st.booleans(), st.integers(0, 3)
cuts = st.sampled_from(["insert", "flip", "delete", "repeat", "cut"])
insertions = st.one_of(pitfalls, st.binary(min_size=1, max_size=4))
up_to_four, up_to_eight, up_to_twenty = st.integers(0, 4), st.integers(1, 8), st.integers(1, 20)
masks = st.integers(1, 255)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """A request that means something, perhaps with a body, perhaps chunked."""
    method, target = draw(methods), draw(targets)
    headers = [b"Host: t", *draw(header_lists)]
    body = draw(bodies) if method in (b"POST", b"PUT") or draw(quarter) == 0 else b""
    if body and draw(booleans):
        headers.append(b"Transfer-Encoding: chunked")
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    elif body:
        headers.append(b"Content-Length: %d" % len(body))
    return b"%s %s %s\r\n%s\r\n\r\n%s" % (method, target, draw(versions), b"\r\n".join(headers), body)


request_lists = st.lists(requests(), min_size=1, max_size=3)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """One to three such requests in a row, with up to four wounds."""
    raw = bytearray(b"".join(draw(request_lists)))
    for _ in range(draw(up_to_four)):
        at = draw(st.integers(0, len(raw)))
        match draw(cuts):
            case "insert":
                raw[at:at] = draw(insertions)
            case "flip" if at < len(raw):
                raw[at] ^= draw(masks)
            case "delete":
                del raw[at : at + draw(up_to_eight)]
            case "repeat":
                raw[at:at] = raw[at : at + 16] * draw(up_to_twenty)
            case "cut":
                del raw[at:]
    return bytes(raw)


cases = st.one_of(
    mutated().map(lambda raw: ("mutated", raw)),
    mutated().map(lambda raw: ("mutated", raw)),
    st.binary(max_size=200).map(lambda raw: ("random", raw)),
    st.lists(pitfalls, max_size=20).map(lambda parts: ("pitfalls", b"".join(parts))),
)


class Target:
    """The service under test: sends a case, checks the answer."""

    def __init__(self, child: Child) -> None:
        place = urlsplit(child.ready()[0])
        self._address = (str(place.hostname), int(place.port or 0))
        self.sent: Counter[str] = Counter()
        self.statuses: Counter[str] = Counter()
        self.differences: Counter[str] = Counter()

    def send(self, kind: str, raw: bytes) -> None:
        """Send one case and check the answer: no failure of ours, HTTP to the letter, and h11's verdict."""
        reading = read_by_h11(raw)
        answer = self._exchange(raw, reading.answers)
        statuses = _statuses(answer)
        self.sent[kind] += 1
        self.statuses[statuses[0] if statuses else "none"] += 1
        assert not [one for one in statuses if one.startswith("5") and one not in NOT_OURS], (raw, answer)
        letter.check(raw, answer)
        differs = difference(reading, raw, statuses)
        if differs is not None:
            assert differs[0] in {row.name for row in (*ROWS, *ONLY_H11_ROWS)}, (differs, raw, answer)
            self.differences[differs[0]] += 1

    def _exchange(self, raw: bytes, owed: int) -> bytes:
        """One connection: all bytes, then as many answers as are owed, and whatever comes behind them.

        Not end of file first: a client that stops sending has left, and its request is given up.
        """
        answer = bytearray()
        with socket.create_connection(self._address, timeout=30) as client:
            client.sendall(raw)
            try:
                while True:
                    answers = sum(not status.startswith("1") for status in _statuses(answer))
                    client.settimeout(PATIENCE_SECONDS if answers < owed else MORE_SECONDS)
                    if not (chunk := client.recv(65536)):
                        break
                    answer += chunk
            except (ConnectionError, TimeoutError):
                pass  # refusing to read on, and waiting for more, are answers too
        return bytes(answer)


def _statuses(answer: bytes | bytearray) -> list[str]:
    return [found.decode() for found in STATUS.findall(answer)]


def fuzz(count: int, first_seed: int, folder: Path) -> dict[str, Any]:
    """Send `count` cases to a service of its own; returns the figures, all assertions held."""
    log = folder / "log"
    with service(log, "--offload", "inline", "--work-units", "10", "--header-timeout", "5") as child:
        target = Target(child)
        files, memory = descriptors(child.process.pid), []
        for number, done in enumerate(range(0, count, BATCH)):
            _batch(target, min(BATCH, count - done), first_seed + number)
            memory.append(resident_bytes(child.process.pid))
            print(f"\r{min(done + BATCH, count):>9,} of {count:,}", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)

        def all_have_gone() -> bool:
            values = child.scrape()
            return (
                values["http_connections_accepted_total"] == target.sent.total()
                and values["http_connections_active"] == 0
            )

        child.wait_until(all_have_gone)
        values = child.scrape()
        child.wait_until(
            lambda: descriptors(child.process.pid) <= files + 1
        )  # + 1: the scrape's own connection, closing
        assert child.end() == 0
    text = log.read_text()
    assert "Traceback" not in text, text
    assert '"level":"error"' not in text.replace(" ", ""), text
    reached = total(values, "http_requests_total", route="/data")
    accepted, sent = values["http_connections_accepted_total"], target.sent.total()
    assert total(values, "http_connections_completed_total") == accepted == target.sent.total()
    failed = {
        status for name in values for status in re.findall(r"http_requests_total.*status=(5\d\d)", name)
    }
    assert failed <= NOT_OURS, failed
    assert target.sent["mutated"] >= sent / 3, target.sent
    # The first batches fill caches and arenas; from a quarter of the way on nothing may grow.
    grown = memory[-1] - memory[len(memory) // 4]
    assert len(memory) < 8 or grown < 4 * 1024 * 1024, memory
    return {
        "cases": sent,
        "kinds": dict(target.sent),
        "first_status": dict(target.statuses.most_common()),
        "refused_by_ours_or_h11_alone": dict(target.differences.most_common()),
        "answers": total(values, "http_requests_total"),
        "requests_that_reached_the_handler": reached,
        "rss_mib": [round(bytes_ / 2**20, 1) for bytes_ in memory[:: max(len(memory) // 10, 1)]],
        "rss_grown_since_a_quarter_mib": round(grown / 2**20, 2),
        "log_lines": len(text.splitlines()),
    }


def added(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures of several parts: counts are added; of what grew, the most; of a list, the last."""
    whole: dict[str, Any] = {}
    for name in parts[0]:
        values = [part[name] for part in parts]
        if name == "rss_grown_since_a_quarter_mib":
            whole[name] = max(values)
        elif isinstance(values[0], list):
            whole[name] = values[-1]
        elif isinstance(values[0], dict):
            whole[name] = dict(sum((Counter(value) for value in values), Counter()).most_common())
        else:
            whole[name] = sum(values)
    return whole


def _batch(target: Target, count: int, number: int) -> None:
    @seed(number)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(cases)
    def send(case: tuple[str, bytes]) -> None:
        target.send(*case)

    send()


def main() -> int:
    """The long form."""
    parser = argparse.ArgumentParser(prog="python -m tests.proofs.fuzz", description=__doc__)
    parser.add_argument(
        "--cases", type=int, default=200_000, metavar="N", help="connections (default: 200000)"
    )
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the first batch (default: 1)")
    parser.add_argument(
        "--resume",
        type=Path,
        metavar="FILE",
        help="keep the figures of every part here, and go on from there",
    )
    arguments = parser.parse_args()
    kept: Path | None = arguments.resume
    parts = json.loads(kept.read_text()) if kept is not None and kept.exists() else []
    for done in range(len(parts) * PART, arguments.cases, PART):
        with tempfile.TemporaryDirectory() as folder:
            count = min(PART, arguments.cases - done)
            parts.append(fuzz(count, arguments.seed + done // BATCH, Path(folder)))
        if kept is not None:
            kept.write_text(json.dumps(parts))
    figures = added(parts)
    print(figures)
    if arguments.cases >= 200_000:
        keep("fuzz", "make fuzz", figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
