"""Runs one phase of load, from the checked order to the summary.

Knows the order in which a run folder is written. Touches that folder, the terminal and, through the
generator, the network. Never sends anything before everything is checked, and never draws while it sends.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType

from loadtests.exits import UsageError
from loadtests.files import dump, write_json, write_whole
from loadtests.load import doctor, exports
from loadtests.load.doctor import Examination, examined
from loadtests.load.folder import PLAN, SAMPLES, STEPS, SUMMARY, SURROUNDINGS
from loadtests.load.generator import Generator, read_samples
from loadtests.load.live import Display
from loadtests.load.order import Keep, Order
from loadtests.load.phase import Phase
from loadtests.load.port_state import time_waits
from loadtests.load.render import render
from loadtests.load.results import RunSummary
from loadtests.load.summary import summarise
from loadtests.load.thresholds import check_slo
from loadtests.load.witness import Witness


def run(phase: Phase, order: Order) -> RunSummary:
    """Check the rest of the order, send the load, sum up, show; returns the summary.

    Raises `UsageError` before any load if something cannot be reached or written; KeyboardInterrupt if
    Ctrl-C comes before the first request.
    """
    examination = checked([phase], order)
    keep = order.keep
    console = Console(stderr=True)
    with run_folder(keep.out) as folder, Generator() as generator:
        warn(examination, console)
        summary = measure(
            phase,
            order,
            examination,
            folder,
            generator,
            Display(phase, console),
        )
    if summary.unreachable and not summary.interrupted:
        raise UsageError(summary.unreachable)
    show(render(summary), summary.to_json(), keep.json)
    if keep.junit is not None:
        write(keep.junit, exports.junit(summary))
    if keep.out is not None:
        draw(keep.out, console)
    return summary


def checked(phases: Sequence[Phase], order: Order) -> Examination:
    """Check an order before anything is sent; raises `UsageError`."""
    try:
        check_slo(order.thresholds, order.slo_seconds)
    except ValueError as error:
        raise UsageError(str(error)) from None
    examination = examined(phases, order.command)
    for path in _files(order.keep):
        _check_file(path)
    return examination


def warn(examination: Examination, console: Console) -> None:
    """Say what helps if the ports do not suffice."""
    if not examination.suffices:
        for line in doctor.lines(examination):
            console.print(line, style="yellow", markup=False, highlight=False, soft_wrap=True)


def measure(
    phase: Phase,
    order: Order,
    examination: Examination,
    folder: Path,
    generator: Generator,
    display: Display,
) -> RunSummary:
    """Write the plan of one phase to its folder, send the load, sum it up there.

    Raises KeyboardInterrupt if Ctrl-C comes before the first request.
    """
    plan = {
        "phase": phase.to_json(),
        "slo_seconds": order.slo_seconds,
        "thresholds": [threshold.text for threshold in order.thresholds],
        "ports": asdict(examination.forecast),
    }
    write_json(folder / PLAN, plan, indent=2)
    with Witness(examination.address, order.machine.server_processes) as witness:
        _send(phase, folder / SAMPLES, generator, display, witness)
    samples, facts = read_samples(folder / SAMPLES)
    surroundings = witness.surroundings(
        (sample.local_port for sample in samples), shared_machine=order.machine.shared
    )
    write_json(folder / SURROUNDINGS, surroundings.to_json(), indent=2)
    summary = summarise(
        samples,
        facts,
        phase,
        slo_seconds=order.slo_seconds,
        thresholds=order.thresholds,
        surroundings=surroundings,
    )
    write_json(folder / SUMMARY, summary.to_json(), indent=2)
    if order.keep.out is not None:
        exports.write_exports(folder, samples, facts)
    return summary


def draw(folder: Path, console: Console) -> None:
    """Draw the page of a run folder."""
    from loadtests.load import page  # matplotlib takes a second to import

    console.print(f"Page: {page.draw(folder)}", markup=False, highlight=False, soft_wrap=True)


def _files(keep: Keep) -> Iterator[Path]:
    """The files that are written besides the run folder."""
    if keep.json not in (None, "-"):
        yield Path(str(keep.json))
    if keep.junit is not None:
        yield keep.junit


def _check_file(name: Path) -> None:
    path = name.absolute()
    if (
        path.is_dir()
        or not path.parent.is_dir()
        or not os.access(path if path.exists() else path.parent, os.W_OK)
    ):
        raise UsageError(f"cannot write to {name}")


@contextlib.contextmanager
def run_folder(out: Path | None) -> Iterator[Path]:
    """The folder to write to, for the time of a `with` block; an earlier run is never overwritten."""
    if out is None:
        with tempfile.TemporaryDirectory(prefix="offloop-run-") as temporary:
            yield Path(temporary)
        return
    try:
        out.mkdir(parents=True, exist_ok=True)
        if (out / PLAN).exists() or (out / STEPS).exists():
            raise UsageError(f"{out} already holds a run: choose another folder")
        tempfile.TemporaryFile(dir=out).close()
    except OSError as error:
        raise UsageError(f"cannot write to the folder {out}: {error.strerror}") from None
    yield out


def _send(phase: Phase, samples_path: Path, generator: Generator, display: Display, witness: Witness) -> None:
    """Run the phase and show its progress; Ctrl-C ends it early and keeps what was measured."""
    with (
        contextlib.suppress(KeyboardInterrupt),
        display,
        contextlib.closing(generator.run(phase, samples_path)) as run_of_phase,
    ):
        for progress in run_of_phase:
            witness.look(progress.elapsed_seconds)
            display.update(progress, time_waits())
    if not samples_path.exists():
        raise KeyboardInterrupt


def show(rendered: RenderableType, content: dict[str, Any], json_file: str | None) -> None:
    """Print a result, on stderr if stdout is for its JSON, and write that JSON."""
    Console(stderr=json_file == "-").print(rendered)
    if json_file == "-":
        print(dump(content, indent=2))
    elif json_file is not None:
        write(Path(json_file), dump(content, indent=2))


def write(path: Path, text: str) -> None:
    """Write a file as a whole."""
    if path.exists() and not path.is_file():  # a device or a pipe: write through it, do not replace it
        path.write_text(f"{text}\n", encoding="utf-8")
    else:
        write_whole(path, text)
