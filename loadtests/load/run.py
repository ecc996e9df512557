"""The command `run`: one phase of load, from the checked order to the summary.

Knows what a run folder holds and in which order it is written. Touches that folder, the terminal
and, by way of the generator, the network. Never sends anything before everything was checked.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console

from loadtests.files import dump, write_json, write_whole
from loadtests.load import doctor, exports
from loadtests.load.doctor import Examination
from loadtests.load.endpoint import make_endpoint
from loadtests.load.generator import read_samples, run_phase
from loadtests.load.live import Display, render
from loadtests.load.phase import Phase
from loadtests.load.port_state import time_waits
from loadtests.load.results import RunSummary
from loadtests.load.summary import summarise
from loadtests.load.thresholds import Threshold, check_slo
from loadtests.load.witness import Witness


class UsageError(Exception):
    """The command cannot be run as typed; the message is one sentence for the user."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """Where results go.

    `out`: the run folder; None for one that is thrown away. `json`: a file for the summary, "-" for stdout.
    `junit`: a file for the thresholds.
    """

    out: Path | None = None
    json: str | None = None
    junit: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What the user says of this machine.

    `server_processes`: names of those that belong to the server, beside those that listen there. `shared`:
    others use it, and that shall be a caution instead of a reason for INVALID.
    """

    server_processes: Sequence[str] = ()
    shared: bool = False


def run(
    phase: Phase,
    thresholds: Sequence[Threshold],
    slo_seconds: float | None,
    keep: Keep,
    command: Sequence[str],
    machine: Machine = Machine(),
) -> RunSummary:
    """Check the rest of the order, send the load, sum up, show; returns the summary.

    `slo_seconds`: the latest an answer may come to count as goodput. `command`: how the run was typed, word
    by word, for whoever has to type it otherwise. Raises `UsageError` before any load when something cannot
    be reached or written; KeyboardInterrupt when Ctrl-C came before the first request.
    """
    try:
        check_slo(thresholds, slo_seconds)
    except ValueError as error:
        raise UsageError(str(error)) from None
    examination = examined(phase, command)
    for path in _files(keep):
        _check_file(path)
    with _run_folder(keep.out) as folder:
        texts = [threshold.text for threshold in thresholds]
        plan = {
            "phase": phase.to_json(),
            "slo_seconds": slo_seconds,
            "thresholds": texts,
            "ports": asdict(examination.forecast),
        }
        write_json(folder / "plan.json", plan, indent=2)
        console = Console(stderr=True)
        if not examination.suffices:
            for line in doctor.lines(examination):
                console.print(line, style="yellow", markup=False, highlight=False, soft_wrap=True)
        with Witness(examination.address, machine.server_processes) as witness:
            _send(phase, folder / "samples.json", console, witness)
        samples, facts = read_samples(folder / "samples.json")
        surroundings = witness.surroundings(
            (sample.local_port for sample in samples), shared_machine=machine.shared
        )
        write_json(folder / "surroundings.json", surroundings.to_json(), indent=2)
        summary = summarise(
            samples,
            facts,
            phase,
            slo_seconds=slo_seconds,
            thresholds=thresholds,
            surroundings=surroundings,
        )
        write_json(folder / "summary.json", summary.to_json(), indent=2)
        if keep.out is not None:
            exports.write_exports(folder, samples, facts)
    if summary.unreachable and not summary.interrupted:
        raise UsageError(summary.unreachable)
    _show(summary, keep.json)
    if keep.junit is not None:
        _write(keep.junit, exports.junit(summary))
    return summary


def examined(phase: Phase, command: Sequence[str]) -> Examination:
    """Try what the generator will do once more on its own, and whether there are ports for all of it.

    Raises `UsageError` where nothing can be sent.
    """
    try:
        return doctor.examine(phase, make_endpoint(phase), command)
    except (OSError, UnicodeError) as error:
        source = f" from {phase.source}" if phase.source else ""
        raise UsageError(
            f"cannot send to {phase.url}{source}: {getattr(error, 'strerror', None) or error}"
        ) from None


def _files(keep: Keep) -> Iterator[Path]:
    """Give the files that are written beside the run folder."""
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
def _run_folder(out: Path | None) -> Iterator[Path]:
    """Give the folder to write to; an earlier run is never overwritten."""
    if out is None:
        with tempfile.TemporaryDirectory(prefix="offloop-run-") as temporary:
            yield Path(temporary)
        return
    try:
        out.mkdir(parents=True, exist_ok=True)
        if (out / "plan.json").exists():
            raise UsageError(f"{out} already holds a run: choose another folder")
        tempfile.TemporaryFile(dir=out).close()
    except OSError as error:
        raise UsageError(f"cannot write to the folder {out}: {error.strerror}") from None
    yield out


def _send(phase: Phase, samples_path: Path, console: Console, witness: Witness) -> None:
    """Run the phase under the eyes of the user, whose Ctrl-C ends it early but keeps what was measured."""
    with (
        contextlib.suppress(KeyboardInterrupt),
        Display(phase, console) as display,
        contextlib.closing(run_phase(phase, samples_path)) as run_of_phase,
    ):
        for progress in run_of_phase:
            witness.look(progress.elapsed_seconds)
            display.update(progress, time_waits())
    if not samples_path.exists():
        raise KeyboardInterrupt


def _show(summary: RunSummary, json_file: str | None) -> None:
    Console(stderr=json_file == "-").print(render(summary))
    if json_file == "-":
        print(dump(summary.to_json(), indent=2))
    elif json_file is not None:
        _write(Path(json_file), dump(summary.to_json(), indent=2))


def _write(path: Path, text: str) -> None:
    if path.exists() and not path.is_file():  # a device or a pipe: write through it, do not replace it
        path.write_text(f"{text}\n", encoding="utf-8")
    else:
        write_whole(path, text)
