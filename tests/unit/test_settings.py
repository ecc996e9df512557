"""Flags, environment and defaults."""

from __future__ import annotations

import pytest

from service.__main__ import read_settings
from service.settings import Settings


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"SERVICE_{name.upper()}", raising=False)


def test_flag_beats_environment_beats_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_settings([]).accept_batch == 64
    monkeypatch.setenv("SERVICE_ACCEPT_BATCH", "3")
    assert read_settings([]).accept_batch == 3
    assert read_settings(["--accept-batch", "5"]).accept_batch == 5


@pytest.mark.parametrize(
    ("argv", "flag"),
    [
        (["--port", "99999"], "--port (SERVICE_PORT)"),
        (["--port", "http"], "--port (SERVICE_PORT)"),
        (["--offload", "magic"], "--offload (SERVICE_OFFLOAD)"),
        (["--workers", "0"], "--workers (SERVICE_WORKERS)"),
        (["--worker-nice", "20"], "--worker-nice (SERVICE_WORKER_NICE)"),
        (["--work", "no_colon"], "--work (SERVICE_WORK)"),
        (["--work-ms", "0"], "--work-ms (SERVICE_WORK_MS)"),
        (["--work-units", "0"], "--work-units (SERVICE_WORK_UNITS)"),
        (["--backlog", "-1"], "--backlog (SERVICE_BACKLOG)"),
        (["--accept-batch", "0"], "--accept-batch (SERVICE_ACCEPT_BATCH)"),
        (["--drain-timeout", "-1"], "--drain-timeout (SERVICE_DRAIN_TIMEOUT)"),
        (["--loop", "trio"], "--loop (SERVICE_LOOP)"),
        (["--log-format", "xml"], "--log-format (SERVICE_LOG_FORMAT)"),
        (["--no-such-flag"], "--no-such-flag"),
    ],
)
def test_a_wrong_value_is_named_with_flag_and_variable(argv: list[str], flag: str) -> None:
    with pytest.raises(ValueError, match=r"not|unrecognized") as caught:
        read_settings(argv)
    (line,) = str(caught.value).splitlines()
    assert flag in line


def test_all_wrong_values_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVICE_WORKERS", "none")
    with pytest.raises(ValueError, match="SERVICE_WORKERS") as caught:
        read_settings(["--port", "-1"])
    assert len(str(caught.value).splitlines()) == 2


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().port = 1  # type: ignore[misc]  # that this fails is the point
