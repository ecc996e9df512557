"""Fuzzing guided by coverage (atheris, libFuzzer): `make guided-fuzz` runs 1,000,000 inputs for each target.

*early*: the early check (web/early_reject.py) reads bytes of a request by itself, before any parser. What it
takes for a plain GET must be one for h11 as well: same path, no body, nothing behind it. What h11 refuses may
be refused with 503 instead of 400, and no worse.

*channel*: what a lane reads from its worker's socket (offload/process_lane.py), in pieces of any size. The
outcomes come out whole and in order; a length that no outcome has ends the lane.
"""

from __future__ import annotations

import argparse
import itertools
import pickle
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import h11

from metrics.instruments import Metrics
from tests.proofs.record import keep
from tests.support import ROOT

RUNS: Final = 1_000_000
SEED: Final = 1
BARE_LF: Final = re.compile(rb"(?<!\r)\n")
"""h11 takes it for the end of a line, as RFC 9112, 2.2 allows; ours does not, and answers 400 or 503."""

TARGETS: Final = ("early", "channel")
SEEDS: Final = {
    "early": (
        b"GET /data HTTP/1.1\r\nHost: t\r\n\r\n",
        b"GET /data?x=1 HTTP/1.1\r\nHost: t\r\nAccept: */*\r\nConnection: close\r\n\r\n",
        b"GET /data HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\n\r\n",
        b"GET /data HTTP/1.1\r\nTransfer-Encoding: chunked\r\nHost: t\r\n\r\n",
        b"GET /data HTTP/1.1\r\nHost: t\r\nHost: u\r\n\r\n",
        b"GET /data HTTP/1.1\r\nHost: t\r\n\r\nGET /data HTTP/1.1\r\nHost: t\r\n\r\n",
    ),
    "channel": (bytes([7, 1, 2, 3, 0, 4]), bytes([255, 9, 255, 0, 1, 1]) + bytes(range(240, 256))),
}
"""From which the first mutations are made: bytes alone would not get past a request line."""


class Open:
    """A gate that is never asked."""

    def may_refuse(self) -> bool:
        return True


def early_check() -> Any:
    """The function that is fuzzed, and judges each input."""
    from service.web.early_reject import EarlyReject

    check = EarlyReject(["/data"], Open(), 1.0, Metrics())  # type: ignore[arg-type]  # it is never asked

    def one(data: bytes) -> None:
        path = check._recognise(data)
        if path is None or BARE_LF.search(data):
            return
        server = h11.Connection(our_role=h11.SERVER)
        server.receive_data(data)
        try:
            request = server.next_event()
            end = server.next_event()
        except h11.RemoteProtocolError:
            return
        assert isinstance(request, h11.Request), data
        assert request.method == b"GET", data
        assert request.http_version == b"1.1", data
        assert request.target.partition(b"?")[0] == path.encode() == b"/data", data
        assert isinstance(end, h11.EndOfMessage), data
        assert server.trailing_data == (b"", False), data

    return one


def channel() -> Any:
    """The same of the channel."""
    from service.offload.process_lane import ProcessLane
    from service.offload.worker_main import Done, framed

    class Transport:
        aborted = False

        def abort(self) -> None:
            self.aborted = True

    def one(data: bytes) -> None:
        seen: list[Done] = []
        lane = ProcessLane(lambda _, outcomes: seen.extend(outcomes), lambda _: None, 0, most_result=1000)
        transport = Transport()
        lane.connection_made(transport)  # type: ignore[arg-type]  # all that it needs of one
        lane._transport = transport  # type: ignore[assignment]
        # The input says how many outcomes there are, how long, in which pieces they come, and what is wrong.
        sizes = [size * 4 for size in data[1:6]]
        sent = [
            Done(
                pickle.dumps(bytes(size), pickle.HIGHEST_PROTOCOL) if size else None,
                None,
                0.0,
                0.1,
                0.1,
                number,
            )
            for number, size in enumerate(sizes)
        ]
        wire = b"".join(map(framed, sent))
        tail = data[6:22] if data[:1] > b"\xc0" and len(data) >= 22 else b""
        step = 1 + (data[0] if data else 0)
        wire += tail
        for at in range(0, len(wire), step):
            if transport.aborted:
                break
            lane.data_received(wire[at : at + step])
        fit = list(itertools.takewhile(lambda done: len(done.result or b"") <= 1000, sent))
        assert seen[: len(fit)] == fit, (seen, sent)
        if len(fit) < len(sent):
            assert transport.aborted
        elif not tail:
            assert not transport.aborted
            assert len(seen) == len(sent)

    return one


def fuzz(target: str, runs: int) -> dict[str, Any]:
    """Run one target in a process of its own, because libFuzzer ends it; returns its figures."""
    command = [sys.executable, "-m", "tests.proofs.guided_fuzz", "--inside", target, "--runs", str(runs)]
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(SEEDS[target]):
            (Path(corpus) / str(number)).write_bytes(seed)
        command += ["--corpus", corpus]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=3600, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    executed = re.findall(r"^#(\d+)\s+DONE\s+cov: (\d+) ft: (\d+)", done.stderr, re.MULTILINE)
    assert executed, done.stderr[-4000:]
    ran, coverage, features = map(int, executed[-1])
    assert ran >= runs
    assert coverage > 5, "nothing of ours was reached"
    return {"runs": ran, "edges_covered": coverage, "features": features, "seed": SEED}


def main() -> int:
    """The long form; with --inside one target, from which libFuzzer does not come back."""
    parser = argparse.ArgumentParser(prog="python -m tests.proofs.guided_fuzz", description=__doc__)
    parser.add_argument("--runs", type=int, default=RUNS, metavar="N", help="inputs each (default: 1000000)")
    parser.add_argument("--inside", choices=TARGETS, help="this is the process of that target")
    parser.add_argument("--corpus", metavar="FOLDER", help="and these are its inputs")
    arguments = parser.parse_args()
    if arguments.inside:
        import atheris  # type: ignore[import-untyped]  # it ships no types

        with atheris.instrument_imports(include=["service.web.early_reject", "service.offload.process_lane"]):
            one = early_check() if arguments.inside == "early" else channel()
        flags = [
            f"-runs={arguments.runs}",
            f"-seed={SEED}",
            "-max_len=512",
            f"-artifact_prefix={arguments.corpus}/",
            arguments.corpus,
        ]
        atheris.Setup([sys.argv[0], *flags], one)
        atheris.Fuzz()
    figures = {target: fuzz(target, arguments.runs) for target in TARGETS}
    print(figures)
    if arguments.runs >= RUNS:
        keep("guided-fuzz", "make guided-fuzz", figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
