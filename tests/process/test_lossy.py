"""The short form of `make lossy`: a stop costs no request on a link that delays and loses packets."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.proofs.lossy import NAMESPACE, in_namespace
from tests.support.tools import need


@pytest.mark.alone
def test_who_is_connected_is_answered_whatever_the_link_loses() -> None:
    need("unshare", "util-linux")
    need("ip", "iproute2")
    need("nsenter", "util-linux")
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        pytest.skip("only root may make a TUN device here")
    if subprocess.run([*NAMESPACE, "true"], check=False, capture_output=True, timeout=10).returncode:
        pytest.skip("this machine lets nobody make a network namespace")
    found = in_namespace(times=2, seconds=2)
    assert found["SIGTERM"]["times"] == 2
    assert found["a listener handed over"]["restarts"] >= 1
