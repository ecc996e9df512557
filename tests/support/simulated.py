"""A made-up machine under a made-up service, read and judged by the product's own path.

What is made up stands below the counters: the machine's slowness runs on continuously, through blocks and the
gaps between them, each request spends CPU time at the slowness of its own moment, and so does each of the
fixed pieces of work that tell how fast the core is. Two `Reading`s are taken as the testbed takes them, with
whole tasks and the kernel's ticks of 10 ms. From there on everything is
the product: `block()`, void blocks and second tries, `Summary`, the looks, `judge`.

What is not made up comes from a real run (`Noise.of`): how blocks scatter, what IO process and generator
spend beside the work, how long a block lasts, and what others used meanwhile.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from loadtests.experiment.blocks import Block, Inputs, Stretch, block
from loadtests.experiment.counters import Reading
from loadtests.experiment.folder import RunFolder
from loadtests.experiment.plan import Plan, Variant
from loadtests.experiment.results import Status, Summary
from loadtests.experiment.run import TRIES
from loadtests.experiment.speed import INTERVAL_SECONDS
from loadtests.experiment.verdict import undecided
from loadtests.load.facts import GeneratorFacts
from tests.support import ROOT
from tests.support.synthetic import ENVIRONMENT, FACTS, READING

RUN: Final = ROOT / "docs/runs/quick"
"""The real run from which the noise is taken."""

STEP_SECONDS: Final = 0.01
TICK_SECONDS: Final = 0.01  # of /proc: 1 / sysconf(_SC_CLK_TCK)
SPREAD: Final = 0.2  # standard deviation of the logarithm of the slowness, in every scenario that has one
WALK_SECONDS: Final = 25.0
JUMP: Final = 1.6

NO_COUNTS: Final = dataclasses.asdict(READING)
AT_REST: Final = dataclasses.asdict(FACTS)

Floats = NDArray[np.floating[Any]]
Scenario = Callable[[np.random.Generator, float, float], Floats]
"""The logarithm of the slowness in steps of `STEP_SECONDS`, from a source of randomness, the length of the
run and the length of a cycle, both in seconds."""


def random_walk(random: np.random.Generator, seconds: float, _: float) -> Floats:
    """Frequency and neighbours come and go: Ornstein and Uhlenbeck's walk, which forgets within 25 s."""
    times = np.arange(math.ceil(seconds / STEP_SECONDS)) * STEP_SECONDS
    pushes = random.normal(0.0, SPREAD * math.sqrt(2 * STEP_SECONDS / WALK_SECONDS), times.size)
    pushes[0] = random.normal(0.0, SPREAD)
    walk: Floats = np.exp(-times / WALK_SECONDS) * np.cumsum(np.exp(times / WALK_SECONDS) * pushes)
    return walk


def jump(random: np.random.Generator, seconds: float, _: float) -> Floats:
    """From one moment on, perhaps within a block, everything takes 1.6 times as long."""
    times = np.arange(math.ceil(seconds / STEP_SECONDS)) * STEP_SECONDS
    return np.where(times < random.uniform(0.0, 0.7 * seconds), 0.0, math.log(JUMP))


def sawtooth(_: np.random.Generator, seconds: float, cycle_seconds: float) -> Floats:
    """Slower and slower through each cycle, then at once as fast as at its beginning: the worst for an order
    that is always the same. From end to end it is a factor of 2."""
    times = np.arange(math.ceil(seconds / STEP_SECONDS)) * STEP_SECONDS
    return SPREAD * math.sqrt(12) * (times / cycle_seconds % 1.0 - 0.5)


SCENARIOS: Final[Mapping[str, Scenario]] = {
    "random walk": random_walk,
    "step of 1.6": jump,
    "sawtooth": sawtooth,
}


class Machine:
    """Turns moments into progress and back.

    `progress`: what one core has done by then, in seconds of a machine of slowness 1.
    """

    def __init__(self, log_slowness: Floats) -> None:
        self._moments = np.arange(log_slowness.size + 1) * STEP_SECONDS
        self._log_slowness = log_slowness
        self._progress = np.concatenate(([0.0], np.cumsum(STEP_SECONDS * np.exp(-log_slowness))))

    def progress(self, moments: Floats) -> Floats:
        """By each moment."""
        done: Floats = np.interp(moments, self._moments, self._progress)
        return done

    def slowness(self, moments: Floats) -> Floats:
        """At each moment."""
        return np.exp(self._log_slowness[(moments / STEP_SECONDS).astype(np.intp)])

    def moments(self, progress: Floats) -> Floats:
        """At which so much is done."""
        found: Floats = np.interp(progress, self._progress, self._moments)
        return found


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """What one block of the real run says about blocks in general.

    The first three are residuals, in the logarithm: how far the block lay from what its variant does
    typically. `figure`: in the figure that is simulated (U; with several workers, the share of the cores left
    over). `slowness`: in the CPU time of the fixed piece of work. `demand`: in S at equal speed. `io` and
    `generator`: their CPU seconds per CPU second of work.
    """

    figure: float
    slowness: float
    demand: float
    io: float
    generator: float
    seconds: float
    inputs: Inputs


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """What blocks have apart from the truth, by variant. `common`: residuals of which one strikes a whole
    cycle."""

    demand_seconds: float  # S of inline
    piece_seconds: float | None  # CPU of the fixed piece of work; None where the real run had none
    pools: Mapping[str, Sequence[Draw]]
    common: Sequence[float] = (0.0,)

    @classmethod
    def of(cls, summary: Summary) -> Self:
        """The noise of a run that was really measured."""
        valid = [block for block in summary.blocks if block.part == "cycle" and not block.void_because]
        pools = {}
        for name in summary.plan.measured:
            own = {block.cycle: block for block in valid if block.variant == name}
            cores = summary.plan.cores
            shared = summary.plan.variant(name).workers > 1
            figures = _residuals(
                {c: b.share_of_left(cores) if shared else b.utilisation for c, b in own.items()}
            )
            demands = _residuals({cycle: found.steady_demand for cycle, found in own.items()})
            slowness = _residuals({cycle: found.piece_seconds or 1.0 for cycle, found in own.items()})
            pools[name] = [
                Draw(
                    figure=figures[cycle],
                    slowness=slowness[cycle],
                    demand=demands[cycle],
                    io=found.io_cpu_seconds / found.work_cpu_seconds,
                    generator=found.generator_cpu_seconds / found.work_cpu_seconds,
                    seconds=found.seconds,
                    inputs=found.inputs,
                )
                for cycle, found in own.items()
            ]
        inline = [block.demand_seconds for block in valid if block.variant == "inline"]
        pieces = [block.piece_seconds for block in valid if block.piece_seconds is not None]
        return cls(
            demand_seconds=median(inline), piece_seconds=median(pieces) if pieces else None, pools=pools
        )

    def pool(self, variant: str) -> Sequence[Draw]:
        """The blocks of that variant; of inline, where the real run did not have it."""
        return self.pools.get(variant, self.pools["inline"])

    def scaled(self, sd: float) -> Self:
        """The same shapes with so much noise per cycle, in a figure of one variant and in a ratio of two.

        Half of the variance strikes a whole cycle alike: then U has the variance `sd` ** 2, and a ratio, from
        which the common half cancels, has twice the other half.
        """
        half = sd / math.sqrt(2)
        common = _standardised(self.pools["inline"], half)
        pools = {}
        for name, pool in self.pools.items():
            own = _standardised(pool, half)
            sums = [one + other for one in common for other in own]
            middle = _middle(sums)  # of both together: skewed as they are, it moves
            pools[name] = [
                replace(draw, figure=figure - middle) for draw, figure in zip(pool, own, strict=True)
            ]
        return replace(self, pools=pools, common=common)


def _residuals(figures: Mapping[int, float]) -> dict[int, float]:
    """How far each block lies from the typical one, in the logarithm, without what drifts. By cycle.

    The simulation has drift of its own, so that of the real run must not come in as noise once more. Two
    blocks of a variant in a cycle and in its mirror are as near in time as the plan brings them, and half the
    variance of their difference is the noise without what drifts more slowly. The differences themselves
    would be symmetric by construction, and symmetry is what the interval relies on and the simulation is to
    doubt: so the shape is that of the residuals, skew and wild blocks and all, and only its width follows
    from the neighbours. What drifts from one neighbour to the next is still in: too much rather than too
    little.

    The middle is the pseudo-median, which is the quantity that the product estimates: so it is the truth.
    """
    logarithms = {cycle: math.log(figure) for cycle, figure in figures.items()}
    middle = _middle(list(logarithms.values()))
    pairs = [
        logarithms[cycle + 1] - logarithms[cycle]
        for cycle in logarithms
        if cycle % 2 and cycle + 1 in logarithms
    ]
    quick = math.sqrt(np.mean(np.square(pairs)) / 2)
    spread = float(np.std(list(logarithms.values()), ddof=1))
    width = min(1.0, quick / spread) if spread else 0.0
    return {cycle: width * (value - middle) for cycle, value in logarithms.items()}


def _middle(values: Sequence[float]) -> float:
    """The pseudo-median: of the means of all pairs."""
    one, other = np.triu_indices(len(values))
    found = np.asarray(values)
    return float(np.median((found[one] + found[other]) / 2))


def _standardised(pool: Sequence[Draw], sd: float) -> list[float]:
    figures = np.array([draw.figure for draw in pool])
    return list(figures * (sd / np.std(figures)))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What one variant really does.

    `demand_seconds`: CPU of a unit of work on a machine of slowness 1. `figure`: U; with several workers, U
    as a share of the cores that generator and IO process leave over.
    """

    demand_seconds: float
    figure: float


def measured(
    variant: Variant,
    service: Service,
    draw: Draw,
    machine: Machine,
    random: np.random.Generator,
    *,
    cycle: int,
    cores: float,
    begin: float,
    piece_seconds: float | None = None,
    common: float = 0.0,
) -> Block:
    """One block between two readings of the machine, the first at `begin`.

    Each request ends so much progress after the one before as U demands, and has spent its CPU seconds by
    then: as many as it took the machine, at the slowness of just that time, to do a unit of work. The piece
    of work that tells the speed meets that slowness too, at its own moments.
    """
    utilisation = service.figure * math.exp(draw.figure + common)
    if variant.workers > 1:
        utilisation *= cores / (1 + utilisation * (draw.io + draw.generator))
    demand = service.demand_seconds * math.exp(draw.slowness + draw.demand)
    moments = np.arange(begin, begin + draw.seconds, INTERVAL_SECONDS)
    harmonic = 1 / float(np.mean(1 / machine.slowness(moments)))  # as speed.py has it
    gap = demand / utilisation
    first, last = machine.progress(np.array([begin, begin + draw.seconds]))
    ends = np.arange(first + random.uniform(0.0, gap), last, gap)
    work = float(np.sum(machine.moments(ends) - machine.moments(ends - demand)))
    io, generator = draw.io * work, draw.generator * work
    ours = work + io + generator
    grown = {
        "io_cpu_seconds": io + (work if variant.offload == "inline" else 0.0),
        "ours_seconds": ours,
        "busy_seconds": ours + draw.inputs.others * draw.seconds * cores,
        "stolen_seconds": draw.inputs.stolen * draw.seconds * cores,
        "idle_seconds": draw.inputs.idle_cores * draw.seconds,
    }
    phases = random.uniform(0.0, 1.0, len(grown))
    ticks = {
        name: math.floor(phase + value / TICK_SECONDS) * TICK_SECONDS
        for phase, (name, value) in zip(phases, grown.items(), strict=True)
    }
    share = generator / draw.seconds
    return block(
        variant,
        Stretch(
            before=Reading(**NO_COUNTS | {"seconds": begin}),
            after=Reading(
                **NO_COUNTS
                | {"seconds": begin + draw.seconds, "tasks": ends.size, "task_cpu_seconds": work}
                | ticks
            ),
            piece_seconds=piece_seconds and piece_seconds * math.exp(draw.slowness) * harmonic,
            facts=GeneratorFacts(**AT_REST | {"sending_seconds": 1.0, "sending_cpu_seconds": share}),
        ),
        part="cycle",
        cycle=cycle,
        cores=cores,
    )


def experiment(
    plan: Plan, services: Mapping[str, Service], noise: Noise, scenario: Scenario, random: np.random.Generator
) -> Summary:
    """The cycles of a whole run, as run.py measures them: until no claim is undecided, at most to the last
    look. Its budget of time is not simulated."""
    period, names = plan.block_seconds(), plan.measured
    tries = plan.looks[-1] * len(plan.measured) + TRIES  # a few blocks come out void, by a tick
    machine = Machine(scenario(random, tries * period, len(plan.measured) * period))
    blocks: list[Block] = []
    for cycle in range(1, plan.looks[-1] + 1):
        common = float(random.choice(noise.common))
        for name in plan.order(names, cycle):
            pool = noise.pool(name)
            for _ in range(TRIES):
                found = measured(
                    plan.variant(name),
                    services[name],
                    pool[int(random.integers(len(pool)))],
                    machine,
                    random,
                    cycle=cycle,
                    cores=plan.cores,
                    begin=len(blocks) * period + plan.factors.settle_seconds,
                    piece_seconds=noise.piece_seconds,
                    common=common,
                )
                blocks.append(found)
                if not found.void_because:
                    break
        if cycle in plan.looks:
            summary = Summary(
                status=Status(state="complete"),
                environment=ENVIRONMENT,
                plan=plan,
                blocks=tuple(blocks),
                phases=(),
                kills=(),
            )
            names = tuple(name for name in plan.measured if name in undecided(summary))
            if not names:
                break
    return summary


def real_noise() -> Noise:
    """The noise of the committed run."""
    return Noise.of(RunFolder(RUN).summary())
