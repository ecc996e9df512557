"""The whole comparison: measures S, makes the plan, then measures block after block in its order.

Touches child processes through contenders.py and measure.py, and a temporary folder.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from loadtests import machine
from loadtests.exits import UsageError
from loadtests.experiment.child import ServiceChild
from loadtests.load.generator import Generator
from loadtests.neighbours import effective_cores
from loadtests.peers import cargo
from loadtests.peers.block import Block
from loadtests.peers.contenders import Contender, Contenders
from loadtests.peers.measure import Bench, Sender
from loadtests.peers.plan import FEWEST_PAIRS, IN_RUST, TITLES, Load, Plan, Work
from loadtests.peers.results import Results

WARM_SECONDS: Final = 1.5
"""Time until an overload shows. At f times the limit a queue without a bound still answers its first requests
in time, within the second that clients wait, until f / (f - 1) seconds after the start."""

MOST_TRIES: Final = 3
"""Of one block, until it is not void; a short run, which has no intervals, has one try."""

NEEDED: Final = {
    "loky": ("loky",),
    "anyio": ("anyio",),
    "anyio-bounded": ("anyio",),
    "fastapi": ("fastapi", "uvicorn"),
    "gunicorn": ("gunicorn",),
}
"""Packages that some designs need and offloop does not; installed by the extra `peers`."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What to compare. `times`: multiples of the limit; `works_ms`: CPU times of a request."""

    designs: tuple[str, ...]
    works_ms: tuple[float, ...]
    times: tuple[float, ...]
    cycles: int
    measured_seconds: float
    seed: int
    cache: Path  # where a program stays that is built for this


def race(order: Order, console: Console) -> Results:
    """Measure all designs, except those that cannot be built here.

    Raises:
        UsageError: a design needs a package that is not installed.
        ServiceError: a design could not be started, or is never quiet.
    """
    check_installed(order.designs)
    skipped = not_built(order.designs, order.cache, console)
    with tempfile.TemporaryDirectory(prefix="offloop-peers-") as name:
        folder = Path(name)
        plan = Plan(
            cores=max(1, int(effective_cores())),
            designs=tuple(design for design in order.designs if design not in skipped),
            works=tuple(calibrated(work_ms, folder) for work_ms in order.works_ms),
            times=order.times,
            cycles=order.cycles,
            warm_seconds=WARM_SECONDS,
            measured_seconds=order.measured_seconds,
            seed=order.seed,
        )
        environment = dataclasses.asdict(machine.environment())
        blocks = _measured(plan, folder, cargo.program(order.cache), console)
        return Results(environment, plan, tuple(blocks), skipped)


def check_installed(designs: Sequence[str]) -> None:
    """Check that every package is installed, before anything is measured.

    Raises:
        UsageError: one is not; the message names the extra that installs it.
    """
    for design in designs:
        for package in NEEDED.get(design, ()):
            if importlib.util.find_spec(package) is None:
                raise UsageError(
                    f"the design {TITLES[design]!r} needs {package}: pip install '.[loadtests,peers]', or "
                    "leave it out with --designs"
                )


def not_built(designs: Sequence[str], cache: Path, console: Console) -> dict[str, str]:
    """Build what is written in Rust; the designs that cannot be built, each with the reason."""
    in_rust = [design for design in designs if design in IN_RUST]
    if not in_rust:
        return {}
    if not cargo.program(cache).exists():
        console.print("building hyper with cargo, once ...")
    try:
        cargo.build(cache)
    except cargo.NotBuiltError as reason:
        return dict.fromkeys(in_rust, str(reason))
    return {}


def calibrated(work_ms: float, folder: Path) -> Work:
    """Units of work for `work_ms`, and their true CPU time, as the service itself calibrates them."""
    flags = ["--port", "0", "--admin-port", "0", "--log-format", "json", "--offload", "inline"]
    with ServiceChild(
        [*flags, "--work-ms", str(work_ms)], folder / f"calibration-{work_ms:g}.log"
    ) as service:
        units, cpu_ms = service.work["units"], service.work["cpu_ms"]
    return Work(work_ms=work_ms, work_units=units, s_seconds=cpu_ms / 1e3)


def _measured(plan: Plan, folder: Path, program: Path, console: Console) -> list[Block]:
    """All blocks, void ones too, in the order in which they ran."""
    found: list[Block] = []
    most_tries = MOST_TRIES if plan.cycles >= FEWEST_PAIRS else 1
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    # On a terminal a bar below the lines; elsewhere just the lines.
    shown = Progress(*columns, console=console, disable=not console.is_terminal, transient=True)
    with shown as progress, Generator() as generator, Generator() as prober:
        sender = Sender(generator, prober, folder)
        bar = progress.add_task("peers", total=plan.block_count)
        for work in plan.works:
            with Contenders(_designs(plan, work, folder, program)) as contenders:
                contenders.settle()
                bench = Bench(plan, contenders, sender)
                for load in plan.loads(work):
                    console.print(_heading(work, load), highlight=False)
                    for cycle, order in enumerate(plan.orders(load), 1):
                        for design in order:
                            tries = _until_valid(bench, load, design, cycle, most_tries)
                            for block in tries:
                                console.print(_line(block), highlight=False)
                            found += tries
                            progress.advance(bar)
    return found


def _designs(plan: Plan, work: Work, folder: Path, program: Path) -> list[Contender]:
    return [Contender(name, work.work_units, plan.cores, folder, program) for name in plan.designs]


def _until_valid(bench: Bench, load: Load, design: str, cycle: int, most_tries: int) -> list[Block]:
    """One block, repeated while it is void."""
    tries = [bench.measure(load, design, cycle)]
    while tries[-1].conditions.void_because and len(tries) < most_tries:
        tries.append(bench.measure(load, design, cycle))
    return tries


def _heading(work: Work, load: Load) -> str:
    return (
        f"{load.work_ms:g} ms (S {work.s_seconds * 1e3:.2f} ms) at {load.times:.3g}x the limit: "
        f"{load.rate_per_second:.0f} requests a second"
    )


def _line(block: Block) -> str:
    """The result of a block, in one line of at most 80 columns."""
    void = block.conditions.void_because
    return (
        f"  {block.cycle:>2}  {TITLES[block.design]:<21}{block.goodput_per_second:>6.0f}/s"
        f"{block.answers_per_cpu_second:>7.1f}/CPU s"
        + ("  anew" if block.started_anew else "")
        + (f"  void: {void}" if void else "")
    )
