"""A stop costs no request on a link that delays and loses packets, long form: `make lossy` (as root).

Service and clients are in two network namespaces (tests/support/lossy_link.py). Loopback hides what a drain
must wait for: a handshake whose last ACK is lost looks finished to the client and unfinished to the kernel of
the service, and a request may be a second on its way.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.proofs.record import keep
from tests.proofs.restarts import BUSY, TOO_LATE
from tests.support import ROOT
from tests.support.child import service
from tests.support.load import Load, accepted
from tests.support.lossy_link import THERE, LossyLink
from tests.support.processes import gone

Figures = dict[str, Any]
DELAY_SECONDS, LOSS = 0.02, 0.02
RATE = 100.0
FLAGS = ("--host", THERE, "--admin-host", THERE, "--work-units", "100")
NAMESPACE = ("unshare", "--user", "--map-root-user", "--net", "--")


def terminated(folder: Path, times: int, seconds: float) -> Figures:
    """SIGTERM under load: who was connected is answered, however often a packet of his was lost."""
    outcomes: Counter[str] = Counter()
    with LossyLink(DELAY_SECONDS, LOSS) as link:
        for number in range(times):
            with service(folder / f"log{number}", *FLAGS, before=link.prefix) as child:
                address, _ = child.ready()
                under = Load(address, seconds, RATE, folder / f"load{number}")
                child.wait_until(lambda child=child: accepted(child) > 0.5 * seconds * RATE)
                assert child.end() == 0
                assert gone(child.process.pid)
                outcomes.update(under.outcomes())
    figures = {**_link(link), "times": times, "outcomes": dict(outcomes)}
    assert set(outcomes) <= {"ok", TOO_LATE, BUSY}, figures
    assert outcomes["ok"] > 0.4 * seconds * RATE * times, figures
    return figures


def handed_over(folder: Path, seconds: float) -> Figures:
    """Stop, then start on the listener that a supervisor holds meanwhile: no request is refused or reset."""
    restarts = 0
    with LossyLink(DELAY_SECONDS, LOSS) as link, link.listener() as listener:
        address = "http://{}:{}".format(*listener.getsockname())
        flags = (*FLAGS, "--queue-wait", "off")
        under: Load | None = None
        while under is None or under.is_running():
            log = folder / f"log{restarts}"
            with service(log, *flags, listener=listener, before=link.prefix) as child:
                child.ready()
                under = under or Load(address, seconds, RATE, folder / "load")
                running = under.is_running
                child.wait_until(lambda child=child, on=running: accepted(child) > RATE or not on())
                assert child.end() == 0
            restarts += 1
        outcomes = under.outcomes()
    figures = {**_link(link), "restarts": restarts - 1, "outcomes": outcomes}
    assert set(outcomes) == {"ok"}, figures
    return figures


def _link(link: LossyLink) -> Figures:
    assert link.lost > 0, "the link lost nothing"
    return {
        "delay_ms_each_way": DELAY_SECONDS * 1e3,
        "loss_each_way": LOSS,
        "packets_carried": link.carried,
        "packets_lost": link.lost,
    }


def in_namespace(times: int, seconds: float) -> Figures:
    """Both proofs in a namespace of their own; a failure there is one here."""
    command = [*NAMESPACE, sys.executable, "-m", "tests.proofs.lossy"]
    command += ["--inside", "--times", str(times), "--seconds", str(seconds)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    found: Figures = json.loads(done.stdout)
    return found


def main() -> int:
    """The long form."""
    parser = argparse.ArgumentParser(prog="python -m tests.proofs.lossy", description=__doc__)
    parser.add_argument("--times", type=int, default=20, metavar="N", help="SIGTERMs (default: 20)")
    parser.add_argument("--seconds", type=float, default=4, metavar="S", help="of load each (default: 4)")
    parser.add_argument("--inside", action="store_true", help="this is the namespace")
    arguments = parser.parse_args()
    times, seconds = arguments.times, arguments.seconds
    if not arguments.inside:
        keep("lossy", "make lossy", in_namespace(times, seconds))
        return os.EX_OK
    proofs: dict[str, Callable[[Path], Figures]] = {
        "SIGTERM": lambda folder: terminated(folder, times, seconds),
        "a listener handed over": lambda folder: handed_over(folder, 2 * seconds),
    }
    found = {}
    for name, proof in proofs.items():
        with tempfile.TemporaryDirectory() as folder:
            found[name] = proof(Path(folder))
    print(json.dumps(found))
    return os.EX_OK


if __name__ == "__main__":
    sys.exit(main())
