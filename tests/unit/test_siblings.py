"""When an IO process may leave its listener to the others, decided by their slots."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from metrics.slots import Slot, look
from service.multi.siblings import UNREADY_SECONDS, Siblings, Unready

STALL_SECONDS = 5.0


@pytest.fixture
def slots(tmp_path: Path) -> Iterator[list[Slot]]:
    """Three processes that are ready."""
    made = [Slot(tmp_path) for _ in range(3)]
    for slot in made:
        slot.say(True, "serving")
    yield made
    for slot in made:
        slot.close()


def test_only_what_lasts_is_too_long() -> None:
    now = 100.0
    unready = Unready(lambda: now)
    said = []
    for ready, seconds in [(True, 60.0), (False, UNREADY_SECONDS - 1), (False, 0.5), (True, 60.0)]:
        said.append(unready.too_long(ready))
        now += seconds
    assert said == [False] * 4
    assert not unready.too_long(False)
    now += UNREADY_SECONDS
    assert unready.too_long(False)
    assert not unready.too_long(True)


@pytest.mark.parametrize(
    ("wanted", "leave"), [(1, [True, True, False]), (2, [True, False, False]), (3, [False, False, False])]
)
def test_one_may_leave_if_enough_others_are_ready_and_then_it_is_none(
    slots: list[Slot], wanted: int, leave: list[bool]
) -> None:
    assert [Siblings(slot, STALL_SECONDS).let_go(wanted) for slot in slots] == leave
    assert [found.ready for found in look(slots[0].folder)] == [not left for left in leave]


def test_one_that_is_not_ready_or_has_stalled_or_ended_is_nobody_to_leave_it_to(
    slots: list[Slot], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other, third = slots
    third.close()
    slots.remove(third)
    other.say(False, "workers keep dying")
    assert not Siblings(one, STALL_SECONDS).let_go(1)
    other.say(True, "serving")
    now = time.monotonic() + STALL_SECONDS + 1
    monkeypatch.setattr(time, "monotonic", lambda: now)
    one.say(True, "serving")
    assert not Siblings(one, STALL_SECONDS).let_go(1)
    other.say(True, "serving")
    assert Siblings(one, STALL_SECONDS).let_go(1)


def test_two_do_not_decide_at_the_same_moment(slots: list[Slot]) -> None:
    with (slots[0].folder / "leaving").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert not Siblings(slots[0], STALL_SECONDS).let_go(1)
    assert Siblings(slots[0], STALL_SECONDS).let_go(1)
