"""What the generator costs per request beside the least that a client can do: `make generator`.

Both send 1,000 connections a second to the null responder for some seconds, in turns, each in a process of
its own. The figure is the ratio of their CPU per request, pair by pair.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from loadtests.experiment.statistics import geometric
from loadtests.load.generator import Generator, read_samples
from loadtests.load.phase import Phase
from tests.proofs.record import keep

RATE = 1000.0
SECONDS = 1.0
MOST_RATIO = 1.15


def minimal(port: int) -> float:
    """CPU seconds of a request by the minimal client."""
    command = [sys.executable, "-m", "tests.proofs.minimal_client", str(port), str(RATE), str(SECONDS)]
    count, cpu = subprocess.check_output(command, text=True, timeout=60).split()
    return float(cpu) / int(count)


def ours(generator: Generator, port: int, folder: Path) -> float:
    """The same by the generator."""
    phase = Phase(url=f"http://127.0.0.1:{port}/", rate=RATE, duration_seconds=SECONDS)
    for _ in generator.run(phase, folder / "samples.json"):
        pass
    samples, facts = read_samples(folder / "samples.json")
    assert all(sample.outcome == "ok" for sample in samples)
    return facts.sending_cpu_seconds / len(samples)


def main() -> int:
    """Measure pairs and keep them; 1 if the generator costs too much."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=30)
    pairs = parser.parse_args().pairs
    command = [sys.executable, "-m", "loadtests.load.responder"]
    found = []
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as responder,
        Generator() as generator,
    ):
        assert responder.stdin is not None
        assert responder.stdout is not None
        port = int(responder.stdout.readline())
        ours(generator, port, Path(folder))  # the first one imports
        for pair in range(pairs):
            if pair % 2:
                mine, least = ours(generator, port, Path(folder)), minimal(port)
            else:
                least, mine = minimal(port), ours(generator, port, Path(folder))
            found.append((mine, least))
            print(f"{mine * 1e6:.0f} us, least {least * 1e6:.0f} us", file=sys.stderr, flush=True)
        responder.stdin.close()
    ratio = geometric([mine / least for mine, least in found], 0.05)
    figures = {
        "connections per second": RATE,
        "pairs": pairs,
        "generator us": [round(mine * 1e6) for mine, _ in found],
        "minimal client us": [round(least * 1e6) for _, least in found],
        "ratio": str(ratio),
        "at most": MOST_RATIO,
    }
    keep("generator", "make generator", figures)
    return 1 if ratio.value > MOST_RATIO else 0


if __name__ == "__main__":
    sys.exit(main())
