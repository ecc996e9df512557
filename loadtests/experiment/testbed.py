"""What runs during an experiment: every variant of the service, one load generator, and the readings.

Knows how a block and a phase are measured. Touches child processes and the run folder. Never judges.

All variants run at the same time: starting one takes longer than measuring it, and a service without load
costs next to nothing, so the two blocks of a pair can be seconds apart.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from types import TracebackType
from typing import Final, Literal, Self

import psutil

from loadtests.experiment.blocks import ENDED_EARLY, NO_SPEED, Block, Stretch, block
from loadtests.experiment.child import DesignChild, ServiceChild
from loadtests.experiment.counters import Watch, listen_overflows, read, settled
from loadtests.experiment.folder import RunFolder
from loadtests.experiment.ledger import HalfOpen, reconcile
from loadtests.experiment.plan import Case, Plan, Variant
from loadtests.experiment.recovery import Recovery
from loadtests.experiment.results import Kill, PhaseResult, Raw, phase_result
from loadtests.experiment.speed import Speed
from loadtests.experiment.trigger import Tell, TriggerBench
from loadtests.load.generator import Generator, read_samples
from loadtests.load.histogram import Quantiles
from loadtests.load.phase import Phase, Target
from loadtests.load.port_state import half_open_ports
from loadtests.load.sample import OK, requests
from loadtests.neighbours import Neighbours

SPARE_SECONDS: Final = 0.1
"""The load of a block lasts this much longer than the measurement, in case a reading is late."""

WARM_SECONDS: Final = 0.2
KILL_AFTER_SECONDS: Final = 0.8
KILL_SECONDS: Final = 2.0
"""Long enough to replace a pool and to retry its tasks."""


class Testbed:
    """A context manager: starts all services on entry, stops all of them on exit, whatever happens."""

    __test__ = False  # keeps pytest from collecting it for its name

    def __init__(self, plan: Plan, folder: RunFolder) -> None:
        self.plan = plan
        self._folder = folder
        self._stack = contextlib.ExitStack()
        self._services: dict[str, ServiceChild] = {}
        self._workers: dict[str, list[int]] = {}
        self._half_open: dict[str, frozenset[int]] = {}
        self._phases = 0

    def __enter__(self) -> Self:
        """Start everything.

        Raises:
            ServiceError: a service did not start; GeneratorError: the generator did not.
        """
        with contextlib.ExitStack() as stack:
            children = {
                variant.name: ServiceChild(variant.flags(), self._folder.log_of(variant.name))
                for variant in self.plan.variants
            }
            for child in children.values():
                stack.push(child)  # stops it even if another one does not start
                child.launch()
            for child in children.values():
                child.wait_ready()
            self._services = children
            self._generator = stack.enter_context(Generator())
            for name, child in children.items():
                self._workers[name] = self._warm_up(self.plan.variant(name), child)
            self.neighbours = Neighbours()  # by now all of our processes have started
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop everything."""
        self._stack.__exit__(kind, error, trace)

    def _warm_up(self, variant: Variant, service: ServiceChild) -> list[int]:
        """Send a few requests that no block counts: the first ones import modules.

        Returns:
            The processes that did the work; the service itself if it has no others.
        """
        phase = Phase(url=f"{service.url}/data", clients=2 * variant.workers, duration_seconds=WARM_SECONDS)
        path = self._folder.path / "block.json"
        before = _used_below(service.pid)
        for _ in self._generator.run(phase, path):
            pass
        path.unlink()
        if variant.offload in ("inline", "thread"):
            return [service.pid]
        return _busiest(before, _used_below(service.pid))[: variant.workers]

    def block(self, variant: Variant, part: Literal["cycle", "beside"], cycle: int) -> Block:
        """Saturate one variant with clients in a closed loop and measure between two readings."""
        factors, service = self.plan.factors, self._services[variant.name]
        phase = Phase(
            url=f"{service.url}/data",
            clients=factors.clients * variant.workers,
            duration_seconds=factors.settle_seconds + factors.block_seconds + SPARE_SECONDS,
            timeout_seconds=factors.timeout_seconds,
        )
        first = read(service.admin_url, self.neighbours)
        path = self._folder.path / "block.json"
        with contextlib.closing(self._generator.run(phase, path)) as sending:
            begun = next(sending)
            start = time.monotonic() - begun.elapsed_seconds
            _sleep_until(start + factors.settle_seconds)
            before = read(service.admin_url, self.neighbours)
            with Speed(self._workers[variant.name]) as speed:
                _sleep_until(before.seconds + factors.block_seconds)
            after = read(service.admin_url, self.neighbours)
            for _ in sending:
                pass
        samples, facts = read_samples(path)
        path.unlink()
        connected = sum(sample.connected is not None for sample in samples)
        last = settled(lambda: read(service.admin_url, self.neighbours), first.accepted, connected)
        spoilt = []
        if facts.started_monotonic + phase.duration_seconds < after.seconds:
            spoilt.append(ENDED_EARLY)
        if speed.lost:
            spoilt.append(NO_SPEED)
            self._workers[variant.name] = self._warm_up(variant, service)
        outcomes: dict[str, int] = {}
        for sample in requests(samples):
            outcomes[sample.label] = outcomes.get(sample.label, 0) + 1
        stretch = Stretch(
            before=before,
            after=after,
            facts=facts,
            outcomes=outcomes,
            ledger=reconcile(samples, first, last, HalfOpen()),
            piece_seconds=speed.seconds,
            spoilt=spoilt,
        )
        return block(variant, stretch, part=part, cycle=cycle, cores=self.plan.cores)

    def phase(
        self, kind: Literal["overload", "ramp", "curve"], variant: Variant, rate: float, seconds: float
    ) -> PhaseResult:
        """Offer one rate to one variant, wait until it is done, and keep samples and readings."""
        service = self._services[variant.name]
        port = Target.parse(service.url).port
        phase = Phase(
            url=f"{service.url}/data",
            rate=round(rate, 1),
            duration_seconds=seconds,
            timeout_seconds=self.plan.factors.timeout_seconds,
        )
        self._phases += 1
        name = f"{self._phases:03d}-{kind}-{variant.name}-{phase.rate:g}"
        path = self._folder.samples_of(name)
        before, dropped = self._half_open.get(variant.name, frozenset()), listen_overflows()
        with Watch(service.admin_url, self.neighbours) as watch:
            try:
                with contextlib.closing(self._generator.run(phase, path)) as sending:
                    for _ in sending:
                        pass
            finally:
                # Also after Ctrl-C: the ledger of an interrupted phase closes as well.
                if path.exists():
                    samples, facts = read_samples(path)
                    watch.settle(sum(sample.connected is not None for sample in samples))
                    after = self._half_open[variant.name] = half_open_ports(port)
                    overflows = listen_overflows() - dropped
                    raw = Raw(
                        id=name,
                        kind=kind,
                        variant=variant.name,
                        phase=phase,
                        readings=tuple(watch.rows),
                        half_open=HalfOpen(before=before, after=after, overflows=overflows),
                    )
                    self._folder.write_raw(raw)
        return phase_result(self.plan, raw, samples, facts)

    def recovery(self, case: Case, just_before: Block, tell: Tell) -> Recovery:
        """Measure one case of the trigger, with rates by the block that was measured just before.

        A design of loadtests/peers is started for its case alone and killed after it: it would go on for
        minutes with work that nobody waits for any more.
        """
        bench = TriggerBench(self.plan, self._generator, self.neighbours, self._folder.path / "block.json")
        if case.design in self._services:
            service, workers = self._services[case.design], self._workers[case.design]
            return bench.measure(case, service, workers, just_before, tell)
        variant = self.plan.variant(just_before.variant)
        try:
            with DesignChild(case.design, variant, self._folder.log_of(case.name)) as design:
                return bench.measure(case, design, self._warm_up(variant, design), just_before, tell)
        finally:
            self.neighbours.refresh()  # its workers are gone, and so is the time that they had used

    def kill(self, variant: Variant) -> Kill:
        """Kill one worker of a saturated variant, and record what its clients see."""
        service = self._services[variant.name]
        phase = Phase(
            url=f"{service.url}/data",
            clients=self.plan.factors.clients * variant.workers,
            duration_seconds=KILL_AFTER_SECONDS + KILL_SECONDS,
            timeout_seconds=self.plan.factors.timeout_seconds,
        )
        path = self._folder.path / "block.json"
        with contextlib.closing(self._generator.run(phase, path)) as sending:
            next(sending)
            before = _used_below(service.pid)
            time.sleep(KILL_AFTER_SECONDS)
            killed = time.monotonic()
            os.kill(_busiest(before, _used_below(service.pid))[0], signal.SIGKILL)
            for _ in sending:
                pass
        samples, _ = read_samples(path)
        path.unlink()
        self.neighbours.refresh()  # the new worker is ours, too
        answered = [
            s for s in samples if s.outcome == OK and s.finished is not None and s.started is not None
        ]
        return Kill(
            variant=variant.name,
            answered=len(answered),
            failed=len(samples) - len(answered),
            longest_seconds=max((_seconds(s.started, s.finished) for s in answered), default=0.0),
            usual_p99_seconds=Quantiles.of(
                _seconds(s.started, s.finished) for s in answered if (s.finished or 0.0) < killed
            ).p99,
        )


def _seconds(begin: float | None, end: float | None) -> float:
    assert begin is not None
    assert end is not None
    return end - begin


def _sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.monotonic()))


def _used_below(pid: int) -> dict[int, float]:
    """CPU seconds of each process below `pid` so far."""
    return {child.pid: sum(child.cpu_times()[:2]) for child in psutil.Process(pid).children(recursive=True)}


def _busiest(before: dict[int, float], after: dict[int, float]) -> list[int]:
    """Processes by the CPU time that they used in between, most first: under load, the workers."""
    return sorted(after, key=lambda pid: after[pid] - before.get(pid, 0.0), reverse=True)
