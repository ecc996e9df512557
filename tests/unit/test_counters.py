"""Reading counters: which ports are half-open, and when a service is done."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest

from loadtests.experiment.counters import QUIET_SECONDS, SETTLE_SECONDS, Reading, settled
from loadtests.load.port_state import unfinished
from tests.support.synthetic import reading

# proc(5): addresses and ports in hexadecimal, 03 is SYN_RECV, 01 established, 0A listening.
TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 100 1 0000 100
   1: 0100007F:1F90 0100007F:C001 03 00000000:00000000 01:00000014 00000000     0        0 0 1 0000
   2: 0100007F:1F90 0100007F:C002 03 00000000:00000000 01:00000014 00000003     0        0 0 1 0000
   3: 0100007F:1F90 0100007F:C003 01 00000000:00000000 00:00000000 00000000     0        0 101 1 0000
   4: 0100007F:1F91 0100007F:C004 03 00000000:00000000 01:00000014 00000000     0        0 0 1 0000
   5: 0100007F:C001 0100007F:1F90 01 00000000:00000000 00:00000000 00000000     0        0 102 1 0000
"""


def test_half_open_are_those_that_the_service_has_not_finished_by_the_clients_port() -> None:
    assert unfinished(TABLE, 0x1F90) == {0xC001, 0xC002}
    assert unfinished(TABLE, 0x1F91) == {0xC004}
    assert unfinished(TABLE, 0x1F92) == set()


def test_addresses_of_version_6_are_read_alike() -> None:
    local, remote = f"{'0' * 24}0100007F:1F90", f"{'0' * 24}0100007F:C005"
    assert unfinished(f"heads\n   0: {local} {remote} 03 0:0 0:0 0 0 0 0\n", 0x1F90) == {0xC005}


def ten_a_second(rows: Iterable[Reading]) -> Callable[[], Reading]:
    """A service that says these things, one after the other, and the last one for ever."""
    said, clock, last = iter(rows), 100.0, None

    def once() -> Reading:
        nonlocal clock, last
        clock += 0.1
        last = next(said, last)
        assert last is not None
        return replace(last, seconds=clock)

    return once


def waited(*rows: Reading, accepted: int = 0, connected: int = 10) -> tuple[Reading, float]:
    row = settled(ten_a_second(rows), accepted, connected, pause=lambda _: None)
    return row, row.seconds - 100.1


DONE = reading(accepted=10, completed=10)


def test_a_service_that_has_accepted_all_and_holds_none_is_done_at_once() -> None:
    assert waited(DONE) == (replace(DONE, seconds=100.1), 0.0)


@pytest.mark.parametrize("busy", [reading(accepted=10, completed=8, active=2), replace(DONE, kernel_queue=1)])
def test_one_that_still_holds_some_is_waited_for(busy: Reading) -> None:
    row, seconds = waited(busy, busy, busy, DONE)
    assert row.active == row.kernel_queue == 0
    assert seconds == pytest.approx(0.3)


def test_only_what_was_accepted_since_counts() -> None:
    late = reading(accepted=19, completed=19)
    row, _ = waited(late, late, reading(accepted=20, completed=20), accepted=10)
    assert row.accepted == 20


def test_connections_that_never_come_are_given_a_quiet_second() -> None:
    row, seconds = waited(reading(accepted=7, completed=7))
    assert row.accepted == 7
    assert QUIET_SECONDS < seconds < QUIET_SECONDS + 0.25


def test_each_one_that_does_come_starts_the_quiet_second_anew() -> None:
    one_every_half_second = [reading(accepted=n, completed=n) for n in range(8) for _ in range(5)]
    row, seconds = waited(*one_every_half_second)
    assert row.accepted == 7
    assert seconds == pytest.approx(3.5 + QUIET_SECONDS, abs=0.25)


def test_a_service_that_never_lets_go_is_not_waited_for_for_ever() -> None:
    row, seconds = waited(reading(accepted=10, completed=9, active=1))
    assert row.active == 1
    assert seconds == pytest.approx(SETTLE_SECONDS, abs=0.25)
