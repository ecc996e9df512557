"""The books of a busy process, read from outside while it writes and after its death."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from metrics.slots import look
from tests.support import ROOT

WRITER = """
import sys
from pathlib import Path
from metrics.shared import KeptConnections
from metrics.slots import Slot

connections = KeptConnections(Slot(Path(sys.argv[1])))
print("begun", flush=True)
while True:
    records = [object() for _ in range(7)]
    for record in records:
        connections.opened(record)
    for record in records:
        connections.ended(record, "closed")
"""


def test_the_books_close_in_every_look_at_a_busy_process_and_after_its_kill(tmp_path: Path) -> None:
    writer = subprocess.Popen([sys.executable, "-c", WRITER, tmp_path], cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert writer.stdout is not None
        with writer.stdout as said:
            said.readline()
        last = 0
        for _ in range(2000):
            (seen,) = look(tmp_path)
            assert seen.alive
            assert seen.book.accepted == sum(seen.book.completed.values()) + seen.book.active
            assert seen.book.peak >= seen.book.active
            assert seen.book.accepted >= last
            last = seen.book.accepted
    finally:
        writer.send_signal(signal.SIGKILL)
        writer.wait(10)
    (seen,) = look(tmp_path)
    assert not seen.alive
    assert seen.book.active == 0
    assert seen.book.accepted == sum(seen.book.completed.values()) >= last > 0
