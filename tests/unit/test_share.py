"""How several IO processes divide what the service may have."""

from __future__ import annotations

import pytest

from service.config.settings import Settings
from service.multi.shares import graceful_timeout, processes, share


@pytest.mark.parametrize(
    ("workers", "count"), [(1, 1), (2, 2), (8, 2), (20, 2), (21, 3), (64, 7)], ids=lambda value: str(value)
)
def test_there_are_two_io_processes_or_one_for_ten_cores(workers: int, count: int) -> None:
    assert processes(workers) == count


@pytest.mark.parametrize(
    ("workers", "connections", "count", "each"),
    [
        (4, 1000, 1, (4, 1000)),
        (4, 1000, 2, (2, 500)),
        (5, 1001, 2, (2, 500)),
        (3, 2, 3, (1, 1)),  # a process that may hold no connection would be none
        (8, None, 2, (4, None)),  # each derives its own from its own open files
    ],
)
def test_workers_and_connections_are_those_of_the_whole_service(
    workers: int, connections: int | None, count: int, each: tuple[int, int | None]
) -> None:
    whole = Settings(workers=workers, max_connections=connections)
    one = share(whole, count, 60)
    assert (one.workers, one.max_connections) == each
    assert one.workers * count <= workers
    assert one.max_queue_bytes == whole.max_queue_bytes // count
    assert one.accept_batch == whole.accept_batch


@pytest.mark.parametrize("count", [0, 3])
def test_a_process_without_a_worker_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"{count} IO processes .* --workers is 2"):
        share(Settings(workers=2), count, 60)


@pytest.mark.parametrize(("notice", "drain"), [(0.0, 0.0), (0.0, 10.0), (5.0, 10.0), (30.0, 0.5)])
def test_the_arbiter_waits_for_notice_and_drain(notice: float, drain: float) -> None:
    settings = Settings(drain_notice=notice, drain_timeout=drain)
    seconds = graceful_timeout(settings)
    assert share(settings, 1, seconds).drain_timeout == drain
    assert seconds >= notice + drain + 1


def test_an_impatient_arbiter_shortens_the_drain_but_not_the_notice() -> None:
    settings = Settings(drain_notice=5, drain_timeout=10)
    assert share(settings, 1, 10).drain_timeout == pytest.approx(4.5)
    with pytest.raises(ValueError, match="5 s leaves no time to drain after --drain-notice 5"):
        share(settings, 1, 5)
