"""The front door against real tools: a shortage of descriptors, repeated load tests, slow clients.

Each has a long form in `make front-door` (tests/proofs/front_door.py); here the same functions run for less
time, and what they must show is asserted by them.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.proofs import front_door
from tests.support.tools import need

pytestmark = pytest.mark.alone


def test_a_service_out_of_descriptors_survives_wrk(tmp_path: Path) -> None:
    need("wrk", "wrk")
    need("curl", "curl")
    front_door.shortage(tmp_path, seconds=1, work="slow")


def test_with_the_default_limit_there_is_no_shortage(tmp_path: Path) -> None:
    need("wrk", "wrk")
    front_door.default_limit(tmp_path, seconds=2)


def test_a_service_answers_after_three_load_tests_in_a_row(tmp_path: Path) -> None:
    need("siege", "siege")
    front_door.three_sieges(tmp_path, "-r", "40")


def test_slow_clients_do_not_delay_the_others(tmp_path: Path) -> None:
    front_door.slow_clients(tmp_path, seconds=1, slow=100, deadline=0.5)


def test_openssl_and_curl_speak_tls_with_it(tmp_path: Path) -> None:
    need("openssl", "openssl")
    need("curl", "curl")
    front_door.tls(tmp_path)
