"""The generator tells the truth about a server whose behaviour is known exactly."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtests.load.generator import Generator, read_samples
from loadtests.load.phase import Phase
from loadtests.load.sample import elapsed
from tests.proofs import known_answers
from tests.support.recording_server import RecordingServer, Script

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the server waits by epoll(7) and eventfd(2)")


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Generator]:
    """One child for all cases."""
    with Generator() as generator:
        with RecordingServer(lambda _: Script()) as server:
            phase = Phase(url=server.url, rate=10, duration_seconds=0.1)
            list(generator.run(phase, tmp_path_factory.mktemp("first") / "samples.json"))
        yield generator


@pytest.mark.parametrize("case", known_answers.cases(known_answers.SHORT))
def test_what_the_server_does_is_what_the_generator_says(case: str, generator: Generator) -> None:
    known_answers.prove(case, known_answers.SHORT, generator)


def test_a_closed_loop_hides_the_stall_that_an_open_load_shows(generator: Generator, tmp_path: Path) -> None:
    stall = 0.2

    def saw_half_of_it(**load: float) -> int:
        with RecordingServer(lambda number: Script(stall_seconds=stall if number == 50 else 0.0)) as server:
            phase = Phase(url=server.url, duration_seconds=0.5, **load)  # type: ignore[arg-type]
            list(generator.run(phase, tmp_path / "samples.json"))
        samples, _ = read_samples(tmp_path / "samples.json")
        return sum(elapsed(sample.intended, sample.finished) >= stall / 2 for sample in samples)

    assert saw_half_of_it(clients=1) < 4  # the one that was under way, and what else the machine did
    assert saw_half_of_it(rate=400) >= 40
