"""Runs several rates, one phase after another.

Knows the order in which they are sent and kept. Touches what run.py touches. Never changes a rate while
requests are under way: in a continuous ramp a queue that begins to grow is seen only later, at a higher rate,
which overestimates the capacity.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from rich.console import Console

from loadtests.exits import UsageError
from loadtests.files import write_json
from loadtests.load import exports, run
from loadtests.load.doctor import examined
from loadtests.load.folder import STEPS, summed_up
from loadtests.load.generator import Generator, GeneratorError
from loadtests.load.live import Display
from loadtests.load.order import Order
from loadtests.load.phase import Phase
from loadtests.load.render import render_steps
from loadtests.load.results import Step, StepsSummary


def run_steps(phases: Sequence[Phase], order: Order) -> StepsSummary:
    """Check the order, send one phase after another, sum up, show; returns the summary of all.

    Thresholds are judged in each step. If something cuts the steps short, the finished ones are kept and,
    after Ctrl-C, the part of the one under way. Raises as `run` does: before any load if something cannot be
    reached or written, and after the results if that happens in a later step.
    """
    examination = run.checked(phases, order)
    keep = order.keep
    console = Console(stderr=True)
    rates = [phase.rate or 0.0 for phase in phases]
    names = names_of(rates)
    steps: list[Step] = []
    end: BaseException | None = None
    with run.run_folder(keep.out) as folder, Generator() as generator:
        for name in names:
            if (folder / name).exists():
                raise UsageError(f"{folder / name} is there already: choose another folder")
        plan = {
            "steps": [{"name": name, "rate": rate} for name, rate in zip(names, rates, strict=True)],
            "ports": asdict(examination.forecast),
        }
        write_json(folder / STEPS, plan, indent=2)
        run.warn(examination, console)
        try:
            for name, rate, phase in zip(names, rates, phases, strict=True):
                title = f"step {len(steps) + 1} of {len(phases)}: "
                console.print(f"{title}{phase.workload} for {phase.duration_seconds:g} s", highlight=False)
                (folder / name).mkdir()
                summary = run.measure(
                    phase,
                    order,
                    examined([phase], order.command),  # the ports of the step before may be in TIME_WAIT
                    folder / name,
                    generator,
                    Display(phase, console, title),
                )
                if summary.unreachable and not summary.interrupted:
                    raise UsageError(f"step {name}: {summary.unreachable}")
                steps.append(Step(name=name, rate=rate, summary=summary))
                if summary.interrupted:
                    break
        except (KeyboardInterrupt, UsageError, GeneratorError) as error:
            if not steps:
                raise
            end = error
    found = summed_up(steps, len(phases))
    run.show(render_steps(found), found.to_json(), keep.json)
    if keep.junit is not None:
        run.write(keep.junit, exports.junit_of_steps(found))
    if keep.out is not None:
        run.draw(keep.out, console)
    if end is not None:
        raise end
    return found


def names_of(rates: Sequence[float]) -> list[str]:
    """A name for each step, fit for a folder: its rate, numbered if the rate occurs again."""
    return list(_named(rates))


def _named(rates: Sequence[float]) -> Iterator[str]:
    seen = Counter[str]()
    for rate in rates:
        name = f"{rate:.15g}"
        seen[name] += 1
        yield name if seen[name] == 1 else f"{name}-{seen[name]}"
