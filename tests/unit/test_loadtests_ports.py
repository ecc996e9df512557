"""The budget of local ports: rules, forecasts, remedies, and what a run did to them."""

from __future__ import annotations

import ipaddress
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from loadtests.load.doctor import Examination, examine, lines, state_lines
from loadtests.load.endpoint import make_endpoint
from loadtests.load.phase import Phase
from loadtests.load.port_state import held_in, port_rules, time_waits
from loadtests.load.ports import (
    Demand,
    HeldPort,
    PortRules,
    PortUse,
    first_without,
    forecast,
    ports_used,
)
from loadtests.load.remedies import remedies, with_flag

ADDRESS = ("127.0.0.1", 80)
RULES = PortRules(low=40_000, high=40_199, tw_reuse=0)
COMMAND = (
    "python",
    "-m",
    "loadtests",
    "run",
    "http://127.0.0.1:1/",
    "--rate",
    "100",
    "--who-closes",
    "client",
)


def demand(count: int, rate: float = 100.0, **changes: object) -> Demand:
    asked = Demand(
        offsets=[number / rate for number in range(count)],
        sources=("127.0.0.1",),
        client_closes=True,
        loopback=True,
    )
    return replace(asked, **changes)  # type: ignore[arg-type]  # a table of fields


@pytest.mark.parametrize(
    ("rules", "client_closes", "loopback", "seconds"),
    [
        (PortRules(low=1, high=9), False, True, 0.0),
        (PortRules(low=1, high=9), True, True, 1.0),
        (PortRules(low=1, high=9), True, False, 60.0),
        (PortRules(low=1, high=9, tw_reuse=1), True, False, 1.0),
        (PortRules(low=1, high=9, tw_reuse=0), True, True, 60.0),
        (PortRules(low=1, high=9, tw_reuse=1, reuse_delay_seconds=0.1), True, False, 0.1),
        (PortRules(low=1, high=9, tw_reuse=1, timestamps=False), True, True, 60.0),
    ],
)
def test_how_long_a_port_is_out_of_use(
    rules: PortRules, client_closes: bool, loopback: bool, seconds: float
) -> None:
    assert rules.quarantine_seconds(client_closes=client_closes, loopback=loopback) == seconds


def test_a_bound_outside_the_range_of_the_machine_has_no_effect() -> None:
    assert RULES.within((40_100, 40_119)).ports == 20
    assert RULES.within((39_000, 40_119)).ports == 120
    assert RULES.within((40_100, 50_000)).ports == 100
    assert replace(RULES, reserved=50).ports == 150


@pytest.mark.parametrize(
    ("count", "rate", "ports", "quarantine", "returns", "first"),
    [
        (100, 100.0, 200, 60.0, [[]], None),
        (201, 100.0, 200, 60.0, [[]], 201),
        (201, 100.0, 200, 0.0, [[]], None),
        (201, 100.0, 200, 0.0, [[math.inf] * 200], 1),
        (201, 100.0, 200, 60.0, [[math.inf] * 150], 51),
        (201, 100.0, 200, 60.0, [[0.4] * 150], 201),  # they are back before the others are gone
        (1000, 100.0, 101, 1.0, [[]], None),  # as many as a second takes come back in it
        (1000, 100.0, 99, 1.0, [[]], 100),
        (401, 100.0, 200, 60.0, [[], []], 401),  # two addresses take turns
        (401, 100.0, 200, 60.0, [[math.inf] * 200, []], 1),
        (401, 100.0, 200, 60.0, [[], [math.inf] * 200], 2),
    ],
)
def test_the_first_request_without_a_port(
    count: int, rate: float, ports: int, quarantine: float, returns: list[list[float]], first: int | None
) -> None:
    offsets = [number / rate for number in range(count)]
    assert first_without(offsets, returns, ports, quarantine) == first


def test_what_an_earlier_run_left_in_time_wait_is_counted_by_its_age() -> None:
    left = [HeldPort(source="127.0.0.1", remaining_seconds=30.0)] * 150
    found = forecast(demand(100), RULES, left)
    assert (found.busy, found.first_without, found.at_seconds) == (150, 51, 0.5)
    # Where reuse is allowed, a port that has lain for 30 s is as good as new.
    assert forecast(demand(100), replace(RULES, tw_reuse=1), left).busy == 0
    # Also where the server closes first this time.
    assert forecast(demand(100, client_closes=False), RULES, left).busy == 150
    elsewhere = [HeldPort(source="127.0.0.9", remaining_seconds=30.0)] * 150
    assert forecast(demand(100), RULES, elsewhere).busy == 0


def test_a_connection_that_stands_keeps_its_port() -> None:
    standing = [HeldPort(source="127.0.0.1", remaining_seconds=None)] * 200
    assert forecast(demand(1, client_closes=False), RULES, standing).first_without == 1


def test_what_can_go_on_for_ever() -> None:
    assert forecast(demand(1), RULES, []).sustained_per_second == pytest.approx(200 / 60)
    assert forecast(demand(1, sources=("127.0.0.1", "127.0.0.2")), RULES, []).sustained_per_second == (
        pytest.approx(400 / 60)
    )
    assert forecast(demand(1, client_closes=False), RULES, []).sustained_per_second is None


def test_every_remedy_cures_and_none_that_would_not_is_named() -> None:
    asked = demand(500)
    found = remedies(asked, RULES, [], COMMAND)
    assert [remedy.command.split()[0] for remedy in found] == ["python", "python", "sysctl", "sysctl"]
    assert found[0].command.endswith("--rate 100 --who-closes server")
    assert found[1].command.endswith("--source 127.0.0.2-127.0.0.4")  # 500 requests, 200 ports each
    assert "tcp_tw_reuse=1" in found[2].command, "100 a second, 200 ports: a second is short enough"
    assert "1024 65535" in found[3].command
    assert [remedy.needs_root for remedy in found] == [False, False, True, True]


def test_reuse_is_a_remedy_where_a_second_is_enough() -> None:
    rules = replace(RULES, tw_reuse=2)
    away = demand(500, loopback=False)
    commands = [remedy.command for remedy in remedies(away, rules, [], COMMAND)]
    assert "sysctl -w net.ipv4.tcp_tw_reuse=1" in commands
    assert not any("--source" in command for command in commands), "only loopback has addresses to spare"
    too_fast = demand(500, rate=1000.0, loopback=False)
    assert "sysctl -w net.ipv4.tcp_tw_reuse=1" not in [
        remedy.command for remedy in remedies(too_fast, rules, [], COMMAND)
    ]


def test_only_ipv4_has_loopback_addresses_to_spare() -> None:
    commands = [remedy.command for remedy in remedies(demand(500, sources=("::1",)), RULES, [], COMMAND)]
    assert commands
    assert not any("--source" in command for command in commands)


def test_a_flag_is_set_once_however_it_was_typed() -> None:
    assert with_flag(["x", "--who-closes", "client", "-H", "A: b"], "--who-closes", "server") == (
        "x -H 'A: b' --who-closes server"
    )
    assert with_flag(["x", "--who-closes=client"], "--who-closes", "server") == "x --who-closes server"


def test_the_examination_is_told_with_figures_and_commands() -> None:
    asked = demand(500)
    found = Examination(ADDRESS, forecast(asked, RULES, []), tuple(remedies(asked, RULES, [], COMMAND)))
    text = " ".join(" ".join(lines(found)).split())
    assert "200 local ports. The client closes first" in text
    assert "Request 201 of 500, 2.0 s after the start, will find none (EADDRNOTAVAIL)." in text
    assert "--who-closes server" in text
    assert "(as root)" in text
    fine = Examination(ADDRESS, forecast(demand(10), RULES, []), ())
    assert "All of 10 requests will find one." in "\n".join(lines(fine))
    assert " 3/s sustained" in "\n".join(state_lines(RULES, Counter()))


TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0
   1: 0100007F:9C40 0100007F:1F90 06 00000000:00000000 03:00000BB8 00000000     0        0 0 3 0
   2: 0200007F:9C42 0100007F:1F90 01 00000000:00000000 00:00000000 00000000     0        0 2 1 0
   3: 0100007F:9C44 0100007F:1F91 06 00000000:00000000 03:00000BB8 00000000     0        0 0 3 0
   4: 0100007F:1F90 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 2 1 0
"""


def test_held_ports_are_those_towards_the_server() -> None:
    assert list(held_in(TABLE, ipaddress.ip_address("127.0.0.1"), 8080)) == [
        HeldPort(source="127.0.0.1", remaining_seconds=30.0),
        HeldPort(source="127.0.0.2", remaining_seconds=None),
    ]


def test_an_ipv4_address_inside_an_ipv6_one_is_that_address() -> None:
    mapped = "0000000000000000FFFF00000100007F"
    table = TABLE.splitlines()[0] + f"\n 0: {mapped}:9C40 {mapped}:1F90 06 0:0 03:00000064 0 0 0 0 3 0\n"
    assert list(held_in(table, ipaddress.ip_address("127.0.0.1"), 8080)) == [
        HeldPort(source="127.0.0.1", remaining_seconds=1.0)
    ]


def test_rules_are_read_from_the_kernel(tmp_path: Path) -> None:
    assert port_rules(tmp_path) == PortRules(low=32_768, high=60_999), "Linux's own, where nothing is said"
    for name, text in {
        "ip_local_port_range": "40000\t40199",
        "ip_local_reserved_ports": "8080,40000-40009,40199-50000",
        "tcp_tw_reuse": "0",
        "tcp_tw_reuse_delay": "100",
        "tcp_timestamps": "0",
    }.items():
        (tmp_path / name).write_text(text + "\n")
    assert port_rules(tmp_path) == PortRules(
        low=40_000, high=40_199, reserved=11, tw_reuse=0, reuse_delay_seconds=0.1, timestamps=False
    )


def test_time_waits_are_counted_by_the_kernel(tmp_path: Path) -> None:
    file = tmp_path / "sockstat"
    assert time_waits(file) == 0
    file.write_text("sockets: used 3\nTCP: inuse 5 orphan 0 tw 12 alloc 7 mem 1\nUDP: inuse 1 mem 0\n")
    assert time_waits(file) == 12


def test_the_first_port_of_the_other_parity_is_the_moment_when_half_are_gone() -> None:
    use = ports_used([40_000, None, 40_002, 40_001, 40_003, 40_000], [False] * 6, late_parity=1)
    assert use == PortUse(connections=5, distinct=4, half_gone_after=4, first_without=None)
    assert ports_used([40_001, None], [False, True], late_parity=None) == PortUse(
        connections=1, distinct=1, half_gone_after=None, first_without=2
    )


def test_retries_are_counted_in_the_worst_case_and_told() -> None:
    phase = Phase(url="http://127.0.0.1:1/", rate=100, duration_seconds=1, retries=3, retry="immediate")
    found = examine([phase], make_endpoint(phase), COMMAND)
    assert (found.forecast.planned, found.forecast.retries) == (400, 300)
    said = " ".join(lines(found))
    assert "All of 400 attempts will find one. That counts 300 retries, the most there can be" in said
    without = examine([replace(phase, retry="none")], make_endpoint(phase), COMMAND)
    assert (without.forecast.planned, without.forecast.retries) == (100, 0)
    assert "retries" not in " ".join(lines(without))


def test_the_attempt_that_finds_no_port_is_called_one() -> None:
    found = Examination(ADDRESS, forecast(demand(500, retries=300), RULES, []), ())
    assert "Attempt 201 of 500, 2.0 s after the start, will find none" in " ".join(lines(found))


def test_of_kept_connections_retries_can_only_raise_how_many_there_are_at_a_time() -> None:
    phase = Phase(
        url="http://127.0.0.1:1/", rate=100, duration_seconds=1, keep_alive=True, retries=3, retry="backoff"
    )
    found = examine([phase], make_endpoint(phase), COMMAND).forecast
    assert (found.planned, found.retries, found.most_at_once) == (0, 0, 400)
