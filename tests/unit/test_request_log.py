"""Which requests are logged: the share that was asked for, and the same ones everywhere."""

from __future__ import annotations

import random

import pytest

from service.web.identity import request_id
from service.web.request_log import is_logged

DICE = random.Random(1)
TRACES = [f"00-{DICE.getrandbits(128):032x}-{DICE.getrandbits(64):016x}-00" for _ in range(4000)]


def logged(share: float) -> set[str]:
    return {trace for trace in TRACES if is_logged(share, "any", trace)}


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_as_many_as_the_share_says(share: float) -> None:
    assert len(logged(share)) == pytest.approx(share * 4000, rel=0.2)


@pytest.mark.parametrize("name", ["req-{}", "{:08d}", "{0:x}-{0:x}"])
def test_ids_of_a_client_that_counts_are_chosen_as_evenly(name: str) -> None:
    chosen = sum(is_logged(0.1, name.format(number), None) for number in range(4000))
    assert chosen == pytest.approx(400, rel=0.2)


def test_ids_of_our_own_are_chosen_as_evenly() -> None:
    chosen = sum(is_logged(0.5, request_id(None), None) for _ in range(4000))
    assert 1600 < chosen < 2400  # twelve standard deviations either way


def test_services_with_the_same_share_log_the_same_requests() -> None:
    for trace in TRACES:
        hops = {
            is_logged(0.3, request_id(None), trace[:36] + f"{DICE.getrandbits(64):016x}-01") for _ in "ab"
        }
        assert hops == {is_logged(0.3, "any", trace)}
    assert is_logged(0.5, "one", None) == is_logged(0.5, "one", None)


def test_a_larger_share_holds_all_that_a_smaller_one_does() -> None:
    assert logged(0.1) < logged(0.2) < logged(0.9)


def test_the_clients_own_sampled_flag_does_not_count() -> None:
    assert not is_logged(0.5, "any", f"00-{'1' * 32}-{'2' * 16}-01")
    assert is_logged(0.5, "any", f"00-{'f' * 32}-{'2' * 16}-00")
