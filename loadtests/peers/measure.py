"""Measures one block: the load on `/data`, a few requests for the trivial route beside it, then rest.

Touches the designs by way of HTTP, two generators, /proc and a folder for samples.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Final

from loadtests.load.generator import read_samples, run_phase
from loadtests.load.phase import Phase
from loadtests.load.sample import Sample
from loadtests.peers import block
from loadtests.peers.block import Block, Conditions
from loadtests.peers.contenders import Contenders
from loadtests.peers.plan import GIVE_UP_SECONDS, Load, Plan
from loadtests.peers.trees import Usage

PROBES_PER_SECOND: Final = 20.0


class Bench:
    """What measures, block after block; `contenders` are up, and at rest before each block."""

    def __init__(self, plan: Plan, contenders: Contenders, folder: Path) -> None:
        self._plan = plan
        self._contenders = contenders
        self._samples, self._probes = folder / "samples.json", folder / "probes.json"

    def measure(self, load: Load, design: str, cycle: int) -> Block:
        """Run one block and wait until all is quiet again; it may be void."""
        contender = self._contenders[design]
        cpu, before = contender.cpu_seconds, Usage.now()
        self._send(contender.url, load.rate_per_second)
        after = Usage.now()
        settled = self._contenders.settle()
        samples, facts = read_samples(self._samples)
        probes, _ = read_samples(self._probes)
        stolen, foreign = after.shares_since(before, self._plan.cores)
        counted = block.count(
            samples,
            facts["started_monotonic"],
            self._plan.warm_seconds,
            self._plan.measured_seconds,
            GIVE_UP_SECONDS,
        )
        return Block(
            work_ms=load.work_ms,
            times=load.times,
            cycle=cycle,
            design=design,
            answers=counted.answers,
            goodput_per_second=counted.goodput_per_second,
            cpu_seconds=settled.cpu_seconds[design] - cpu,
            answers_p99_seconds=counted.answers_p99_seconds,
            trivial_p99_seconds=block.p99(_lasted(probes)),
            quiet_after_seconds=settled.seconds,
            started_anew=design in settled.started_anew,
            conditions=Conditions(
                stolen_share=stolen,
                foreign_share=foreign,
                generator_cores=facts["cpu_seconds"] / facts["wall_seconds"],
                late_seconds=block.p99(_late(samples)) or 0.0,
            ),
        )

    def _send(self, url: str, rate_per_second: float) -> None:
        """Send both loads until the last client has its answer or has left."""
        probes = run_phase(self._phase(f"{url}/healthz", PROBES_PER_SECOND), self._probes)
        data = run_phase(self._phase(f"{url}/data", rate_per_second), self._samples)
        with contextlib.closing(probes) as probing, contextlib.closing(data) as sending:
            next(probing)  # now it sends; what it says meanwhile is short enough to wait in its pipe
            for sent in (sending, probing):
                for _ in sent:
                    pass

    def _phase(self, url: str, rate_per_second: float) -> Phase:
        return Phase(
            url=url,
            rate=rate_per_second,
            duration_seconds=self._plan.warm_seconds + self._plan.measured_seconds,
            timeout_seconds=GIVE_UP_SECONDS,
        )


def _lasted(samples: list[Sample]) -> list[float]:
    return [s.finished - s.intended for s in samples if s.finished is not None]


def _late(samples: list[Sample]) -> list[float]:
    return [s.started - s.intended for s in samples if s.started is not None]
