"""What all drawings share."""

from __future__ import annotations

import pytest
from matplotlib.figure import Figure

from loadtests.pages.drawing import label_logarithmic


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (60, 250, ["60", "70", "80", "90", "100", "200"]),
        (15, 200, ["20", "50", "100", "200"]),
        (0.5, 5000, ["1", "10", "100", "1000"]),
    ],
)
def test_a_logarithmic_axis_has_a_few_plain_numbers(low: float, high: float, labels: list[str]) -> None:
    figure = Figure()
    axes = figure.subplots()
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    label_logarithmic(axes.yaxis)
    figure.draw_without_rendering()
    shown = [
        label.get_text()
        for place, label in zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)
        if low <= place <= high
    ]
    assert shown == labels
