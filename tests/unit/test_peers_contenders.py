"""Quiet before each block: waited for, or started anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtests.experiment.child import ServiceError
from loadtests.peers import contenders
from loadtests.peers.contenders import Contender, Contenders


class Scripted(Contender):
    """One whose CPU seconds are told in advance; it stays at the last of them."""

    def __init__(self, name: str, spends: list[float], restless: bool = False) -> None:
        super().__init__(name, 1, 1, Path("/nonexistent"))
        self._told, self._last = iter(spends), 0.0
        self._restless = restless
        self.did: list[str] = []

    @property
    def cpu_seconds(self) -> float:
        self._last = self._last + 1 if self._restless else next(self._told, self._last)
        return self._last

    def start(self) -> None:
        self.did.append("start")
        self._told = iter([0.0])

    def stop(self, patience_seconds: float = 2.0) -> None:
        self.did.append(f"stop {patience_seconds:g}")


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks that take no time: a CPU second is then far above any share."""
    monkeypatch.setattr(contenders, "LOOK_SECONDS", 0.001)


def test_a_design_that_rests_is_left_alone_and_its_price_is_known() -> None:
    one, two = Scripted("offloop", [1.0, 1.0]), Scripted("pool", [5.0, 5.0])
    settled = Contenders([one, two]).settle()
    assert settled.cpu_seconds == {"offloop": 1.0, "pool": 5.0}
    assert not settled.started_anew
    assert one.did == two.did == []


def test_a_design_that_works_on_is_waited_for_and_that_work_is_its_price() -> None:
    pool = Scripted("pool", [5.0, 6.0, 7.0, 7.0])
    settled = Contenders([Scripted("offloop", [1.0]), pool]).settle(patience_seconds=60)
    assert settled.cpu_seconds["pool"] == 7.0
    assert pool.did == []


def test_a_design_that_works_on_for_too_long_is_started_anew_at_the_price_so_far() -> None:
    pool, ours = Scripted("pool", [5.0, 6.0]), Scripted("offloop", [1.0])
    settled = Contenders([ours, pool]).settle(patience_seconds=0)
    assert settled.started_anew == {"pool"}
    assert settled.cpu_seconds == {"offloop": 1.0, "pool": 6.0}
    assert (pool.did, ours.did) == (["stop 0", "start"], [])


def test_a_design_that_is_never_quiet_ends_the_run_by_name() -> None:
    pool = Scripted("pool", [], restless=True)
    with pytest.raises(ServiceError, match="pool are never quiet"):
        Contenders([pool]).settle(patience_seconds=0)


def test_all_are_ended_even_if_one_cannot_be_started() -> None:
    class Broken(Scripted):
        def start(self) -> None:
            raise ServiceError("it did not start")

    first, second = Scripted("offloop", []), Broken("pool", [])
    with pytest.raises(ServiceError), Contenders([first, second]):
        pass
    assert first.did == ["start", "stop 2"]
    assert second.did == ["stop 2"]
