"""The trap of the ephemeral ports, in a network namespace of its own, and the way out of it."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.support.tools import need

# Everything happens inside: the namespace, its server and its settings are gone when the script ends.
SCRIPT = """
set -eu
ip link set lo up
sysctl -qw net.ipv4.ip_local_port_range='40000 40199' net.ipv4.tcp_tw_reuse=0
exec {python} -m tests.support.port_trap {folder}
"""


def test_the_doctor_names_the_request_that_finds_no_port_and_its_remedy_cures(tmp_path: Path) -> None:
    unshare, _ = need("unshare", "util-linux"), need("ip", "iproute2")
    namespace = [unshare, "--user", "--map-root-user", "--net", "--"]
    if subprocess.run([*namespace, "true"], check=False, capture_output=True, timeout=10).returncode:
        pytest.skip("this machine lets nobody make a network namespace")
    script = SCRIPT.format(python=shlex.quote(sys.executable), folder=shlex.quote(str(tmp_path)))
    done = subprocess.run(
        [*namespace, "sh", "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["first"]["outcomes"] == {"ok": 150}
    assert found["predicted"] == pytest.approx(51, rel=0.05)
    assert found["failed_first"] == pytest.approx(found["predicted"], rel=0.05)
    assert found["second_exit"] == 3, "INVALID"
    assert "EADDRNOTAVAIL" in found["second_invalid_because"]
    assert found["cured"]
    assert all(outcomes == {"ok": 150} for outcomes in found["cured"].values()), found["cured"]
