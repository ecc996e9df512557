"""Run inside a network namespace with 200 local ports: falls into the trap and follows the doctor out of it.

Usage: python -m tests.support.port_trap FOLDER, which gets found.json.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import threading
from pathlib import Path

from tests.support.servers import ScriptedServer, answer_and_await_the_end

LOADTESTS = [sys.executable, "-m", "loadtests"]


def run(folder: Path, *words: str) -> tuple[int, dict[str, object]]:
    """One run of the command; its exit code and summary."""
    file = folder / "summary.json"
    done = subprocess.run([*words, "--json", str(file)], capture_output=True, timeout=60, check=False)
    return done.returncode, json.loads(file.read_text())


def doctor(flags: list[str]) -> str:
    """What `ports` says."""
    return subprocess.run(
        [*LOADTESTS, "ports", *flags], capture_output=True, text=True, timeout=60, check=False
    ).stdout


def main() -> None:
    """Two runs, a forecast before the second, and each of its remedies."""
    folder = Path(sys.argv[1])
    with ScriptedServer(answer_and_await_the_end) as server:
        flags = [server.url, "--rate", "300", "--duration", "0.5", "--who-closes", "client"]
        code, first = run(folder, *LOADTESTS, "run", *flags)
        predicted = re.search(r"Request (\d+) of", doctor(flags))
        second_code, second = run(folder, *LOADTESTS, "run", *flags)
        told = doctor(flags)  # now no port is left
        commands = [line.strip() for line in told.splitlines() if re.match(r"  \S", line)]
        cured = {}
        for command in commands:
            words = shlex.split(command)
            if words[0] == "sysctl":
                before = subprocess.check_output(["sysctl", words[2].split("=")[0]], text=True)
                subprocess.run(["sysctl", "-qw", words[2]], check=True, timeout=10)
                cured[command] = run(folder, *LOADTESTS, "run", *flags)[1]["outcomes"]
                subprocess.run(["sysctl", "-qw", before.strip().replace(" = ", "=")], check=True, timeout=10)
            else:
                cured[command] = run(folder, *words)[1]["outcomes"]
    ports = second["ports"]
    assert isinstance(ports, dict)
    found = {
        "first": {"exit": code, "outcomes": first["outcomes"]},
        "told": told,
        "predicted": int(predicted[1]) if predicted else None,
        "failed_first": ports["first_without"],
        "second_exit": second_code,
        "second_invalid_because": str(second["invalid_because"]),
        "cured": cured,
    }
    (folder / "found.json").write_text(json.dumps(found, indent=1))
    assert threading.active_count() == 1


if __name__ == "__main__":
    main()
