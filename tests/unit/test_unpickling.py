"""Large results become objects again, and other threads get their turns meanwhile."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from service.offload import unpickling
from service.offload.unpickling import LARGE, unpickled

FRAME = 64 * 1024  # PEP 3154

RESULTS = {
    "bytes": bytes(range(256)) * (LARGE // 200),
    "a bytearray": bytearray(LARGE),
    "text": "grün" * LARGE,
    "numbers": list(range(10**9, 10**9 + LARGE // 2)),
    "records": [{"a": number, "b": str(number)} for number in range(LARGE // 10)],
    "few": {"a": [1, 2.5, None]},
}


@pytest.mark.parametrize("protocol", [0, 2, pickle.HIGHEST_PROTOCOL])
@pytest.mark.parametrize("name", RESULTS)
def test_what_was_pickled_comes_back(name: str, protocol: int) -> None:
    assert unpickled(pickle.dumps(RESULTS[name], protocol)) == RESULTS[name]


@pytest.mark.parametrize("name", ["numbers", "records"])
def test_the_interpreter_gets_its_turn_in_each_frame(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[int] = []

    class Counting(unpickling._Pieces):
        def read(self, size: int) -> bytes:
            reads.append(size)
            return super().read(size)

        def readinto(self, buffer: Any) -> int:
            reads.append(len(buffer))
            return super().readinto(buffer)

    monkeypatch.setattr(unpickling, "_Pieces", Counting)
    packed = pickle.dumps(RESULTS[name], pickle.HIGHEST_PROTOCOL)
    unpickled(packed)
    assert len(packed) > LARGE
    assert len(reads) >= len(packed) / (2 * FRAME)
    assert max(reads) <= 2 * FRAME


@pytest.mark.parametrize("cut", [1, LARGE, 2 * LARGE])
def test_what_is_not_whole_is_an_error(cut: int) -> None:
    with pytest.raises((EOFError, pickle.UnpicklingError)):
        unpickled(pickle.dumps(RESULTS["numbers"])[:-cut])
