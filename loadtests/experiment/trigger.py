"""Measures one case: base load, trigger and base load again, in one open loop.

Touches a service, the load generator and the workers' cores. What clients try again in one part of the load
goes on into the next, as it does in the field: this is what a trigger leaves behind.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path

from loadtests.experiment.blocks import NO_SPEED, Block
from loadtests.experiment.child import ServiceChild
from loadtests.experiment.counters import listen_overflows, read, settled
from loadtests.experiment.ledger import HalfOpen, Ledger, reconcile
from loadtests.experiment.plan import Case, Plan, Trigger
from loadtests.experiment.recovery import Measured, Recovery, recovery
from loadtests.experiment.speed import Speed
from loadtests.load.generator import Generator, read_samples
from loadtests.load.phase import Phase, Target
from loadtests.load.port_state import half_open_ports
from loadtests.load.sample import Sample
from loadtests.neighbours import Neighbours

Tell = Callable[[float], None]
"""Told the seconds since the first request, a few times a second."""


class TriggerBench:
    """Measures case after case. `path`: a file for samples, which are summed up and not kept."""

    def __init__(self, plan: Plan, generator: Generator, neighbours: Neighbours, path: Path) -> None:
        self._plan = plan
        self._generator = generator
        self._neighbours = neighbours
        self._path = path

    def measure(
        self, case: Case, service: ServiceChild, workers: Sequence[int], just_before: Block, tell: Tell
    ) -> Recovery:
        """One case against a service that runs; `workers`: the processes that do its work.

        Raises:
            ServiceError: our admin port does not answer; GeneratorError: the generator broke.
        """
        trigger = self._plan.trigger
        assert trigger is not None
        phase = self._phase(case, trigger, service, just_before)
        self._neighbours.refresh()
        books = Books(service, self._neighbours) if service.admin_url else None
        before = self._neighbours.read()
        pieces = self._send(trigger, phase, workers, tell)
        after = self._neighbours.read()
        samples, facts = read_samples(self._path)
        self._path.unlink()
        measured = Measured(
            just_before=just_before,
            phase=phase,
            samples=samples,
            facts=facts,
            before=before,
            after=after,
            piece_seconds=[piece.seconds for piece in pieces],
            ledger=books.close(samples) if books is not None else None,
            spoilt=[NO_SPEED] if any(piece.lost for piece in pieces) else [],
            alive=service.is_running(),
        )
        return recovery(self._plan, trigger, case, measured)

    def _phase(self, case: Case, trigger: Trigger, service: ServiceChild, just_before: Block) -> Phase:
        return Phase(
            url=f"{service.url}/data",
            segments=trigger.segments(just_before.workers / just_before.demand_seconds),
            duration_seconds=trigger.all_seconds,
            timeout_seconds=self._plan.factors.timeout_seconds,
            retries=trigger.retries,
            retry=case.retry,
        )

    def _send(self, trigger: Trigger, phase: Phase, workers: Sequence[int], tell: Tell) -> list[Speed]:
        """Send it all; the speed of the workers' cores before, in and after the trigger."""
        gone = trigger.before_seconds + trigger.seconds
        pieces = []
        with contextlib.closing(self._generator.run(phase, self._path)) as sending:
            for end in (trigger.before_seconds, gone, trigger.all_seconds):
                with Speed(workers) as speed:
                    for progress in sending:
                        tell(progress.elapsed_seconds)
                        if progress.elapsed_seconds >= end:
                            break
                pieces.append(speed)
            for _ in sending:  # until the last client has its answer, or gives up
                pass
        return pieces


class Books:
    """Our own counters from now on, to be reconciled with the clients' samples."""

    def __init__(self, service: ServiceChild, neighbours: Neighbours) -> None:
        self._service, self._neighbours = service, neighbours
        self._port = Target.parse(service.url).port
        self._half_open, self._dropped = half_open_ports(self._port), listen_overflows()
        self._first = read(service.admin_url, neighbours)

    def close(self, samples: Sequence[Sample]) -> Ledger:
        """The ledger, once the service has settled."""
        connected = sum(sample.connected is not None for sample in samples)
        last = settled(
            lambda: read(self._service.admin_url, self._neighbours), self._first.accepted, connected
        )
        half_open = HalfOpen(
            before=self._half_open,
            after=half_open_ports(self._port),
            overflows=listen_overflows() - self._dropped,
        )
        return reconcile(samples, self._first, last, half_open)
