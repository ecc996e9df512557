"""What becomes of a call on a thread of its own."""

from __future__ import annotations

import sys

import pytest

from service.background import in_background


async def test_what_it_returns_and_raises_comes_back() -> None:
    assert await in_background("double", lambda one: 2 * one, 3) == 6
    with pytest.raises(ZeroDivisionError):
        await in_background("divide", lambda: 1 / 0)


async def test_what_would_end_a_program_is_an_error_like_any_other() -> None:
    with pytest.raises(RuntimeError, match=r"SystemExit\('enough'\)"):
        await in_background("exit", sys.exit, "enough")
