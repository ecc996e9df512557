"""What the loop counts while it sends: how attempts and requests ended, and which local ports they took.

Touches nothing. Decides nothing, but whether to go on when nothing listens.
"""

from collections import Counter
from typing import Final

from loadtests.load.attempt import Attempt
from loadtests.load.facts import Progress
from loadtests.load.sample import CONNECT_ERROR, LOCAL_ERRORS, Sample, outcome_label

PROGRESS_OUTCOMES: Final = 40  # labels per line of progress, which must fit into PIPE_BUF (pipe(7))

# If nothing listens, stop at once instead of counting thousands of refusals. A probe before the load would
# find out as well, but the server would count one connection more than the ledger. Twenty errors in a row, or
# nothing but errors for a second, are no hiccup of a server that is up; and once a single connection was
# established, refusals are a finding, and the run goes on. Retries do not count: they are made because of the
# first error, and say little more than it did.
HOPELESS_ERRORS: Final = 20
HOPELESS_SECONDS: Final = 1.0


class Tally:
    """Samples of attempts, and counts. `late_port_parity`: of the ports that the kernel assigns last."""

    def __init__(self, late_port_parity: int | None) -> None:
        self.samples: list[Sample] = []
        self.connected = 0
        self.failed_connects = 0
        self._failed_firsts = 0  # of those, first attempts
        self._fired = self._retried = self._reused = 0
        self._outcomes: Counter[tuple[str, int | None, str | None]] = Counter()
        self._ports: set[int] = set()
        self._half_ports_after: int | None = None
        self._late_port_parity = late_port_parity

    def sent(self, attempt: Attempt, number: int) -> None:
        """Count an attempt that was started, the `number`-th of its request."""
        if number == 1:
            self._fired += 1
        else:
            self._retried += 1
        if attempt.reused:
            self._reused += 1
        elif (port := attempt.local_port) is not None:
            self._ports.add(port)
            if self._half_ports_after is None and port & 1 == self._late_port_parity:
                self._half_ports_after = self._fired + self._retried - self._reused

    def not_connected(self, sample: Sample) -> None:
        """Count an attempt that ended without a connection, whether or not another one follows."""
        if sample.outcome == CONNECT_ERROR and sample.reason not in LOCAL_ERRORS:
            self.failed_connects += 1
            self._failed_firsts += sample.attempt == 1

    def keep(self, sample: Sample) -> None:
        """Keep an attempt; the last one of a request is its outcome."""
        self.samples.append(sample)
        if sample.last:
            self._outcomes[sample.outcome, sample.status, sample.reason] += 1

    def hopeless(self, since_start: float) -> bool:
        """Whether nothing seems to listen, so many seconds after the start."""
        enough = 1 if since_start >= HOPELESS_SECONDS else HOPELESS_ERRORS
        return not self.connected and self._failed_firsts >= enough

    def progress(self, elapsed: float, duration_seconds: float, planned: int, in_flight: int) -> Progress:
        """All of it, as the generator tells it while it sends."""
        return Progress(
            elapsed_seconds=round(elapsed, 3),
            duration_seconds=duration_seconds,
            planned=planned,
            fired=self._fired,
            connected=self.connected,
            in_flight=in_flight,
            outcomes={outcome_label(*key): n for key, n in self._outcomes.most_common(PROGRESS_OUTCOMES)},
            ports=len(self._ports),
            half_ports_after=self._half_ports_after,
            retried=self._retried,
        )
