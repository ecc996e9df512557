"""Who is late, in which order, and by whose clock."""

from __future__ import annotations

import math

from service.web.deadlines import Deadlines, Stage

SECONDS = {Stage.HEAD: 10.0, Stage.BODY: 20.0, Stage.WRITE: 5.0, Stage.IDLE: 75.0, Stage.LEAVE: 2.0}


class Client:
    def __init__(self) -> None:
        self.stage: Stage | None = None


def test_each_stage_lasts_as_long_as_it_may_and_no_longer() -> None:
    deadlines: Deadlines[Client] = Deadlines(SECONDS)
    for stage, seconds in SECONDS.items():
        client = Client()
        deadlines.enter(client, stage)
        assert deadlines.advance(seconds) == []
        assert deadlines.advance(0.1) == [client]
        deadlines.enter(client, None)
        assert deadlines.advance(1000) == []


def test_the_soonest_is_the_next_of_all_stages() -> None:
    deadlines: Deadlines[Client] = Deadlines(SECONDS)
    assert deadlines.soonest() == math.inf
    reading, idle = Client(), Client()
    deadlines.enter(idle, Stage.IDLE)
    deadlines.advance(70)
    deadlines.enter(reading, Stage.HEAD)
    assert deadlines.soonest() == 5
    deadlines.enter(idle, None)
    assert deadlines.soonest() == 10


def test_entering_anew_begins_anew() -> None:
    deadlines: Deadlines[Client] = Deadlines(SECONDS)
    client = Client()
    deadlines.enter(client, Stage.HEAD)
    deadlines.advance(9)
    deadlines.enter(client, Stage.HEAD)
    assert deadlines.advance(9) == []
    assert deadlines.advance(1.1) == [client]


def test_the_late_are_told_in_order_and_only_they() -> None:
    deadlines: Deadlines[Client] = Deadlines(SECONDS)
    first, second, idle, gone = Client(), Client(), Client(), Client()
    for client in (first, gone):
        deadlines.enter(client, Stage.HEAD)
    deadlines.advance(1)
    deadlines.enter(second, Stage.HEAD)
    deadlines.enter(idle, Stage.IDLE)
    deadlines.enter(gone, None)
    assert deadlines.advance(9.5) == [first]
    assert deadlines.advance(1) == [first, second], "they stay until somebody acts"


def test_the_longest_idle_come_first_and_nobody_who_has_just_begun() -> None:
    deadlines: Deadlines[Client] = Deadlines(SECONDS)
    clients = [Client() for _ in range(4)]
    for client in clients:
        deadlines.enter(client, Stage.IDLE)
    deadlines.advance(1.0)
    deadlines.enter(clients[0], Stage.HEAD)
    deadlines.enter(clients[0], Stage.IDLE)
    assert deadlines.longest(Stage.IDLE, 2, at_least=0.5) == clients[1:3]
    assert deadlines.longest(Stage.IDLE, 9, at_least=0.5) == clients[1:]
    assert deadlines.longest(Stage.IDLE, 9, at_least=0.0) == [*clients[1:], clients[0]]
    assert deadlines.longest(Stage.HEAD, 9, at_least=0.0) == []
