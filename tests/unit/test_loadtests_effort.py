"""How hard the generator works, by readings of two clocks."""

import pytest

from loadtests.load.effort import Effort


def test_the_busiest_second_stands_out_of_the_mean() -> None:
    effort = Effort(100.0, 5.0)
    cpu = 5.0
    for tick in range(1, 51):
        cpu += 0.19 if 20 < tick <= 25 else 0.02  # readings every 0.2 s: one second at 95 % of a core
        effort.note(100 + tick / 5, cpu)
    assert effort.seconds == pytest.approx(10)
    assert effort.cpu_seconds == pytest.approx(5 * 0.19 + 45 * 0.02)
    assert effort.busiest_share == pytest.approx(0.95)


def test_a_phase_shorter_than_a_second_has_no_busier_part_than_itself() -> None:
    effort = Effort(0.0, 0.0)
    effort.note(0.2, 0.1)
    effort.note(0.4, 0.1)
    assert effort.busiest_share == pytest.approx(0.25)


def test_an_effort_without_a_reading_is_none() -> None:
    assert Effort(0.0, 0.0).busiest_share == 0.0
