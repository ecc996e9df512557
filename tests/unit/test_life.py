"""States, orders and what probes are told: tables without a service."""

from __future__ import annotations

import asyncio
import errno
import socket
import sys
import threading

import pytest

from metrics.instruments import Metrics
from service.command import systemd_listener
from service.config.settings import Settings
from service.config.sources import Reading
from service.lifecycle import process
from service.lifecycle.control import ONE_STOP_SECONDS, Control
from service.lifecycle.loop_monitor import INTERVAL_SECONDS, LoopMonitor
from service.lifecycle.process import prepare_process
from service.lifecycle.states import STATES, TRANSITIONS, Event, Life, State
from service.net.addresses import url, why_not_bound
from tests.conftest import Logged
from tests.support.waiting import eventually


def test_every_state_is_described_and_can_be_reached_and_left() -> None:
    assert set(STATES) == set(State)
    assert {to for _, to in TRANSITIONS.items()} | {State.STARTING} == set(State)
    assert {state for state, _ in TRANSITIONS} | {State.STOPPED} == set(State)
    assert {event for _, event in TRANSITIONS} == set(Event)


def test_only_a_serving_service_is_ready_and_only_there_a_stalled_loop_is_deadly() -> None:
    assert [state for state, row in STATES.items() if row.ready] == [State.SERVING]
    assert [state for state, row in STATES.items() if row.watched] == [State.SERVING]


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", Event)
def test_a_step_that_is_not_in_the_table_is_refused(state: State, event: Event) -> None:
    life = Life()
    life.state = state
    if (state, event) in TRANSITIONS:
        life.move(event)
        assert life.state is TRANSITIONS[state, event]
    else:
        with pytest.raises(KeyError):
            life.move(event)
        assert life.state is state


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def test_an_order_given_before_anybody_listens_is_heard() -> None:
    control = Control(force=lambda: None)
    control.reload()
    control.stop(Event.INTERRUPT)
    assert await control.stop_ordered() is Event.INTERRUPT
    await control.reload_ordered()


async def test_an_order_wakes_whoever_waits_and_the_first_stop_says_why() -> None:
    control = Control(force=lambda: None)
    waiting = [asyncio.create_task(control.stop_ordered()), asyncio.create_task(control.reload_ordered())]
    await asyncio.sleep(0)
    control.reload()
    control.stop(Event.TERMINATE)
    control.stop(Event.INTERRUPT)
    assert await asyncio.gather(*waiting) == [Event.TERMINATE, None]


async def test_each_order_to_reload_is_heard_once() -> None:
    control = Control(force=lambda: None)
    control.reload()
    await control.reload_ordered()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(control.reload_ordered(), 0.01)


@pytest.mark.parametrize("second", [Event.TERMINATE, Event.INTERRUPT])
def test_a_second_stop_forces_but_an_echo_of_the_first_does_not(second: Event) -> None:
    clock, forced = Clock(), []
    control = Control(lambda: forced.append(True), clock)
    control.stop(Event.TERMINATE)
    clock.now += ONE_STOP_SECONDS / 2
    control.stop(second)
    assert not forced
    clock.now += ONE_STOP_SECONDS
    control.stop(second)
    assert forced


async def test_a_hang_up_stops_it_and_however_often_it_comes_it_forces_nothing() -> None:
    clock, forced = Clock(), []
    control = Control(lambda: forced.append(True), clock)
    for _ in range(3):
        control.hang_up()
        clock.now += 1.0
    assert await control.stop_ordered() is Event.INTERRUPT
    assert not forced
    control.stop(Event.TERMINATE)
    assert forced


@pytest.mark.parametrize(
    ("environ", "fd"),
    [
        ({}, None),
        ({"LISTEN_PID": "7", "LISTEN_FDS": "1"}, 3),
        ({"LISTEN_PID": "8", "LISTEN_FDS": "1"}, None),  # meant for our parent
        ({"LISTEN_FDS": "1"}, None),
        ({"LISTEN_PID": "7", "LISTEN_FDS": "0"}, None),
        ({"LISTEN_PID": "7"}, None),
    ],
)
def test_a_socket_is_taken_if_it_was_handed_to_this_process(environ: dict[str, str], fd: int | None) -> None:
    assert systemd_listener(environ, 7) == fd


@pytest.mark.parametrize("count", ["2", "", "x"])
def test_any_other_number_of_sockets_is_refused(count: str) -> None:
    with pytest.raises(ValueError, match="LISTEN_FDS: one socket"):
        systemd_listener({"LISTEN_PID": "7", "LISTEN_FDS": count}, 7)


@pytest.mark.parametrize(
    ("environ", "warnings"),
    [({}, "ignore:resource_tracker"), ({"PYTHONWARNINGS": "error"}, "error")],
    ids=["ours", "the operator's"],
)
def test_both_entrances_prepare_their_process_in_the_same_way(
    environ: dict[str, str], warnings: str, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[object] = []
    monkeypatch.setattr(sys, "setswitchinterval", done.append)
    monkeypatch.setattr(process, "raise_open_files", lambda: done.append("open files"))
    monkeypatch.setattr(process, "catch", lambda: done.append("stderr"))
    monkeypatch.setattr(process, "configure_logging", done.append)
    reading = Reading(Settings(log_format="json"), {}, ("SERVICE_PROT is not a setting",), show=False)
    prepare_process(reading, environ)
    assert environ == {"PYTHONWARNINGS": warnings}
    assert done == [0.001, "open files", "stderr", "json"]
    (line,) = logged()
    assert (line["event"], line["ignored"]) == ("unknown variables", ["SERVICE_PROT is not a setting"])


@pytest.mark.parametrize(
    ("host", "shown"), [("127.0.0.1", "http://127.0.0.1:80"), ("::1", "http://[::1]:80")]
)
def test_an_address_is_shown_as_a_url(host: str, shown: str) -> None:
    assert url(host, 80) == shown


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (OSError(errno.EADDRINUSE, "any text"), "EADDRINUSE (Address already in use)"),
        (socket.gaierror(-2, "unknown"), "gaierror ([Errno -2] unknown)"),
        (UnicodeError("label too long"), "UnicodeError (label too long)"),
    ],
    ids=["the kernel's", "the resolver's", "a host that is no name"],
)
def test_why_an_address_cannot_be_bound_is_told(error: OSError | UnicodeError, why: str) -> None:
    assert why_not_bound(error) == why


async def test_a_loop_that_does_not_turn_is_stalled_until_it_turns_again() -> None:
    monitor = LoopMonitor(2 * INTERVAL_SECONDS, Metrics())
    try:
        found: list[float | None] = [monitor.stalled()]
        asking = threading.Timer(3 * INTERVAL_SECONDS, lambda: found.append(monitor.stalled()))
        asking.start()
        asking.join()  # blocking the loop is what is tried
        assert found[0] is None
        assert (found[1] or 0) > 2 * INTERVAL_SECONDS
        assert monitor.stalled() is None  # who asks here has the loop turning
        await eventually(lambda: asyncio.to_thread(lambda: monitor.stalled() is None), "it turns again")
    finally:
        monitor.close()
