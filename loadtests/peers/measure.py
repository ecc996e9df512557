"""Measures one block: the load on `/data`, a few requests for the trivial route, then quiet.

Touches the designs through HTTP, two generators, /proc and a folder for samples.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from loadtests.load.facts import GeneratorFacts
from loadtests.load.generator import Generator, read_samples
from loadtests.load.phase import Phase
from loadtests.load.sample import LOCAL_ERRORS, Sample
from loadtests.peers import block
from loadtests.peers.block import Block, Conditions, Counted
from loadtests.peers.contenders import Contenders
from loadtests.peers.plan import GIVE_UP_SECONDS, Load, Plan
from loadtests.peers.trees import Usage

PROBES_PER_SECOND: Final = 20.0


@dataclasses.dataclass(frozen=True, slots=True)
class Sent:
    """What the clients of one block saw."""

    samples: Sequence[Sample]
    facts: GeneratorFacts
    probes: Sequence[Sample]


class Sender:
    """Two load generators for all blocks: one for the load, one for the trivial route."""

    def __init__(self, generator: Generator, prober: Generator, folder: Path) -> None:
        self._generator, self._prober = generator, prober
        self._samples, self._probes = folder / "samples.json", folder / "probes.json"

    def send(self, data: Phase, trivial: Phase) -> Sent:
        """Send both loads, until the last client has its answer or gives up.

        Raises:
            GeneratorError: a generator could not start or broke.
        """
        probing = self._prober.run(trivial, self._probes)
        sending = self._generator.run(data, self._samples)
        with contextlib.closing(probing), contextlib.closing(sending):
            next(probing)  # now it sends; its progress lines fit into the pipe until they are read
            for progress in (sending, probing):
                for _ in progress:
                    pass
        samples, facts = read_samples(self._samples)
        probes, _ = read_samples(self._probes)
        return Sent(samples, facts, probes)


class Bench:
    """Measures block after block; all `contenders` run, and are quiet before each block."""

    def __init__(self, plan: Plan, contenders: Contenders, sender: Sender) -> None:
        self._plan, self._contenders, self._sender = plan, contenders, sender

    def measure(self, load: Load, design: str, cycle: int) -> Block:
        """Measure one block, which may be void, and wait until all designs are quiet again."""
        contender = self._contenders[design]
        data = self._phase(f"{contender.url}/data", load.rate_per_second)
        trivial = self._phase(f"{contender.url}/healthz", PROBES_PER_SECOND)
        cpu, before = contender.cpu_seconds, Usage.now()
        sent = self._sender.send(data, trivial)
        after = Usage.now()
        settled = self._contenders.settle()
        stolen, foreign = after.shares_since(before, self._plan.cores)
        counted = self._count(sent)
        return Block(
            work_ms=load.work_ms,
            times=load.times,
            cycle=cycle,
            design=design,
            answers=counted.answers,
            goodput_per_second=counted.goodput_per_second,
            cpu_seconds=settled.cpu_seconds[design] - cpu,
            answers_p99_seconds=counted.answers_p99_seconds,
            trivial_p99_seconds=block.p99(_lasted(sent.probes)),
            quiet_after_seconds=settled.seconds,
            started_anew=design in settled.started_anew,
            conditions=Conditions(
                stolen_share=stolen,
                foreign_share=foreign,
                generator_share=sent.facts.sending_cpu_seconds / sent.facts.sending_seconds,
                late_seconds=block.p99(_late(sent.samples)) or 0.0,
                failed_here=sum(sample.reason in LOCAL_ERRORS for sample in sent.samples),
            ),
        )

    def _count(self, sent: Sent) -> Counted:
        plan, began = self._plan, sent.facts.started_monotonic
        return block.count(sent.samples, began, plan.warm_seconds, plan.measured_seconds, GIVE_UP_SECONDS)

    def _phase(self, url: str, rate_per_second: float) -> Phase:
        return Phase(
            url=url,
            rate=rate_per_second,
            duration_seconds=self._plan.warm_seconds + self._plan.measured_seconds,
            timeout_seconds=GIVE_UP_SECONDS,
        )


def _lasted(samples: Sequence[Sample]) -> list[float]:
    return [s.finished - s.intended for s in samples if s.finished is not None]


def _late(samples: Sequence[Sample]) -> list[float]:
    return [s.started - s.intended for s in samples if s.started is not None]
