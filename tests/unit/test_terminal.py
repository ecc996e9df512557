"""When a SIGHUP is the end of a terminal, and when it is an order to reload."""

from __future__ import annotations

import errno

import pytest

from service.lifecycle.terminal import Terminal

THERE, GONE, FULL = 0, errno.ENXIO, errno.EMFILE


@pytest.mark.parametrize(
    ("at_start", "looks", "at_the_signal", "has_hung_up"),
    [
        (THERE, [THERE], GONE, True),
        (THERE, [THERE, GONE], GONE, True),
        (THERE, [THERE], THERE, False),
        (THERE, [THERE], FULL, False),
        (THERE, [THERE, FULL, FULL], GONE, True),
        (THERE, [GONE, GONE], GONE, False),
        (THERE, [GONE, GONE, THERE, THERE], GONE, False),
        (GONE, [], GONE, False),
        (GONE, [THERE], GONE, False),
    ],
)
def test_it_has_hung_up_if_it_was_there_a_moment_ago(
    at_start: int, looks: list[int], at_the_signal: int, *, has_hung_up: bool
) -> None:
    answers = iter([at_start])
    terminal = Terminal(is_heeded=True, ask=lambda: next(answers))
    for look in looks:
        answers = iter([look])
        terminal.look(True, "serving")
    answers = iter([at_the_signal])
    assert terminal.has_hung_up() is has_hung_up


def test_under_nohup_it_never_hangs_up() -> None:
    answers = iter([THERE, GONE])
    assert not Terminal(is_heeded=False, ask=lambda: next(answers)).has_hung_up()
