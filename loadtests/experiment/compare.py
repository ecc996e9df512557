"""Compares two run folders: each figure's difference with an interval, and one of three sentences. Pure.

Knows how far chance alone can move a figure, and what moves U besides the service. It measures the variation
*within* the two runs; differences between them it can only name.

U is judged and throughput is not: X = U / S, and the service demand S depends on the machine. On the same
machine it has been 3.4 ms and 7.9 ms within minutes.
"""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Final

from loadtests.experiment.comparable import Figure, Run
from loadtests.experiment.folder import FolderError
from loadtests.experiment.statistics import geometric_ratio

BETTER: Final = "better"
WORSE: Final = "worse"
SAME: Final = "no difference beyond noise"

CONFIDENCE: Final = 0.95
"""Of all intervals of a comparison together: with k figures each has 1 - 0.05/k (Bonferroni). Otherwise, of
twelve figures, one would differ by chance in every second comparison of a service with itself."""

MOST_WORK: Final = 1.25
"""Most ratio of the work of a request in two runs. Beyond it they are two experiments: with half the work a
worker of 0.8 ms waits for its IO process, which no formula predicts from the other run."""

WIDTH: Final = 78


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One figure in both runs. `change`, `low` and `high` are shares: 0.1 is B ten per cent above A.

    `a`, `b`: medians of the values. `explained`: the change, as a share, that follows from a different amount
    of work per request in B. `verdict`: empty for a figure that is not judged.
    """

    name: str
    unit: str
    a: float
    b: float
    change: float
    low: float
    high: float
    explained: float
    verdict: str


@dataclasses.dataclass(frozen=True, slots=True)
class Comparison:
    """All differences, and what a reader should know before believing them."""

    differences: tuple[Difference, ...]
    cautions: tuple[str, ...]

    @property
    def is_worse(self) -> bool:
        """Whether any figure got worse beyond noise."""
        return any(difference.verdict == WORSE for difference in self.differences)


def load(path: Path) -> Run:
    """Read the folder of an `experiment` or of one `run`.

    Raises:
        FolderError: it holds neither, or its samples were not kept.
    """
    return Run.load(path)


def compare(a: Run, b: Run) -> Comparison:
    """Every figure that both runs have, B against A.

    Raises:
        FolderError: the runs share no figure, or asked different things of the service.
    """
    for run in (a, b):
        if not run.figures:
            raise FolderError(f"{run.path} has no figure to compare: {_reasons(run.unusable)[0]}")
    for name in dict.fromkeys((*a.same, *b.same)):
        was, now = (run.same.get(name, "nothing") for run in (a, b))
        if was != now:
            raise FolderError(f"the two runs did not ask the same: {name} is {was} in A and {now} in B")
    unusable = {**a.unusable, **b.unusable}
    shared = []
    for name in (name for name in a.figures if name in b.figures):
        if (why := _other_thing(a.figures[name], b.figures[name])) is None:
            shared.append(name)
        elif not a.figures[name].beside:
            unusable[name] = why
    differences = []
    for name in shared:
        found = difference(name, a.figures[name], b.figures[name], (1 - CONFIDENCE) / len(shared))
        if found is None:
            unusable[name] = "too few blocks for an interval of them all together"
        else:
            differences.append(found)
    if not differences:
        why = next(iter(_reasons(unusable)), "they measured different variants")
        raise FolderError(f"the two runs share no figure to compare: {why}")
    return Comparison(tuple(differences), tuple(_cautions(a, b, differences, unusable)))


def _other_thing(a: Figure, b: Figure) -> str | None:
    """Why two figures of the same name measure different things; None if they do not."""
    if a.of != b.of:
        return f"of {a.of} in A and of {b.of} in B"
    if max(a.work_units, b.work_units) > MOST_WORK * min(a.work_units, b.work_units):
        return (
            f"a request was {a.work_units} units of work in A and is {b.work_units} in B; "
            "give both runs the same --work-units"
        )
    return None


def difference(name: str, a: Figure, b: Figure, alpha: float) -> Difference | None:
    """The change from `a` to `b` with its interval, which misses the truth with probability `alpha`; None if
    there are too few values for an interval.

    A figure that depends on the work of a request differs only if its interval excludes everything between no
    change and the change that the amount of work explains.
    """
    ratio = geometric_ratio(a.values, b.values, alpha)
    if not ratio.finite:
        return None
    explained = _explained(a, b)
    verdict = "" if a.beside else SAME
    if verdict and (ratio.low > max(1.0, explained) or ratio.high < min(1.0, explained)):
        verdict = BETTER if (ratio.low > 1) == a.more_is_better else WORSE
    return Difference(
        name=name,
        unit=a.unit,
        a=median(a.values),
        b=median(b.values),
        change=ratio.value - 1,
        low=ratio.low - 1,
        high=ratio.high - 1,
        explained=explained - 1,
        verdict=verdict,
    )


def _explained(a: Figure, b: Figure) -> float:
    """How many times as large U is in `b` if only the amount of work differs.

    By default each run calibrates for itself, on a machine whose speed drifts. The time of a request besides
    its work stays: 1 / U - 1 (of one worker) times the work in A.
    """
    if not a.workers or a.work_units == b.work_units:
        return 1.0
    share = median(a.values) / a.workers
    beside = max(1 / share - 1, 0.0) * a.work_units / b.work_units
    return 1 / (1 + beside) / min(share, 1.0)


def as_text(a: Run, b: Run, comparison: Comparison) -> str:
    """The comparison as plain text."""
    lines = [
        f"A  {a.path}",
        f"B  {b.path}",
        f"B against A, with a {CONFIDENCE:.0%} interval for all rows together",
    ]
    for row in comparison.differences:
        if row.verdict:
            lines += ["", f"{row.name}: {row.verdict}"]
        change = f"{row.change:+.1%} ({row.low:+.1%} to {row.high:+.1%})"
        label = "" if row.verdict else row.name.rpartition(", ")[2]
        lines.append(f"  {label:<2}{_value(row.a, row.unit):>12} to {_value(row.b, row.unit):>12}   {change}")
    lines.append("")
    for caution in comparison.cautions:
        lines += textwrap.wrap(caution, WIDTH)
    return "\n".join(lines).rstrip() + "\n"


def _cautions(
    a: Run, b: Run, differences: Sequence[Difference], unusable: Mapping[str, str]
) -> Iterator[str]:
    """Other differences of the runs, and what could not be compared."""
    for label, run in (("A", a), ("B", b)):
        if run.cut_short:
            yield f"{label} was cut short: {run.cut_short}."
    for name in dict.fromkeys((*a.told, *b.told)):
        was, now = a.told.get(name), b.told.get(name)
        if was != now:
            yield f"The runs differ: {name} was {was} in A and is {now} in B."
    for row in differences:
        was, now = a.figures[row.name], b.figures[row.name]
        if row.verdict and was.work_units != now.work_units:
            yield (
                f"{row.name}: a request was {was.work_units} units of work in A and is {now.work_units} in "
                f"B, which explains {row.explained:+.1%}."
            )
        if was.in_a_row and (was.alike or now.alike):
            yield (
                f"{row.name}: neighbouring slices resemble each other, so the interval is too narrow; "
                "make both runs longer."
            )
    for reason in _reasons(unusable):
        yield f"Not compared: {reason}."
    yield (
        "The interval covers what varied within the two runs. To see what varies between runs, first compare "
        "a run with another one of the same kind."
    )


def _reasons(unusable: Mapping[str, str]) -> list[str]:
    return [f"{name}: {why}" for name, why in unusable.items()]


def _value(value: float, unit: str) -> str:
    if unit == "/s":
        return f"{value:.4g}/s"
    return f"{value * 1e3:.3g} ms" if unit == "s" else f"{value:.3f} {unit}"
