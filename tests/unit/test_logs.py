"""What goes out of the log: no more than is worth reading, and nothing that must be read is missing."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
import structlog
from structlog.contextvars import bound_contextvars

from service.log import setup as logs
from tests.conftest import Logged

log = structlog.get_logger("offloop.test")
library = logging.getLogger("a.library")


@pytest.fixture
def no_refill(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the test takes, a burst is all that goes out."""
    for name, allowance in {"SERIOUS": logs.SERIOUS, "PLAIN": logs.PLAIN}.items():
        monkeypatch.setattr(logs, name, allowance._replace(per_second=0.0))


def say(times: int) -> None:
    for number in range(times):
        log.error("work failed", number=number)


def complain(times: int) -> None:
    for number in range(times):
        library.error(f"Error handling {number}")  # a text of its own each time


@pytest.mark.usefixtures("no_refill")
@pytest.mark.parametrize("flood", [say, complain])
def test_a_flood_is_bounded_and_told(
    logged: Logged, monkeypatch: pytest.MonkeyPatch, flood: Callable[[int], None]
) -> None:
    flood(1000)
    assert len(logged()) == logs.SERIOUS.burst
    monkeypatch.setattr(logs, "SERIOUS", logs.SERIOUS._replace(per_second=1e9))
    flood(1)
    last = logged()[-1]
    assert last["suppressed"] == 1000 - logs.SERIOUS.burst
    assert [line for line in logged() if "suppressed" in line] == [last]


@pytest.mark.usefixtures("no_refill")
def test_what_merely_tells_has_more_room(logged: Logged) -> None:
    for _ in range(2000):
        log.info("request")
    assert len(logged()) == logs.PLAIN.burst


def test_the_journal_of_systemd_takes_all_of_one_flood() -> None:
    assert logs.PLAIN.burst + 30 * logs.PLAIN.per_second < 10_000  # its default for 30 s


@pytest.mark.usefixtures("no_refill")
def test_no_flood_can_hide_the_life_of_the_service(logged: Logged) -> None:
    log.info("ready")
    say(2000)
    complain(2000)
    for _ in range(2000):
        log.info("request")
    log.info("draining")
    say(100)
    log.info("stopped")
    said = [line["event"] for line in logged()]
    assert [event for event in said if event in ("ready", "draining", "stopped")] == [
        "ready",
        "draining",
        "stopped",
    ]


def test_the_ids_of_the_context_are_in_ours_and_in_the_libraries_lines(logged: Logged) -> None:
    with bound_contextvars(request_id="r", connection="c"):
        say(1)
        complain(1)
    say(1)
    inside, theirs, outside = logged()
    assert (inside["request_id"], inside["connection"]) == ("r", "c")
    assert (theirs["request_id"], theirs["connection"]) == ("r", "c")
    assert not {"request_id", "connection"} & outside.keys()


def test_a_traceback_is_one_field_of_one_line(logged: Logged) -> None:
    try:
        raise ZeroDivisionError("why")
    except ZeroDivisionError:
        log.exception("ours")
        library.exception("theirs")
    for line in logged():
        assert line["exception"].startswith("Traceback")
        assert line["exception"].endswith("ZeroDivisionError: why")
        assert line["timestamp"].endswith("Z")


def test_text_is_for_people(logged: Logged, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure_logging("text")
    structlog.configure(cache_logger_on_first_use=False)
    with bound_contextvars(request_id="r"):
        say(1)
    line = capsys.readouterr().err
    assert "work failed" in line
    assert "request_id=r" in line
    assert not line.startswith("{")
    assert logged() == []
