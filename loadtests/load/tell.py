"""The figures of a run in words, for terminal, page and JUnit alike. Pure. Computes none of them."""

from collections.abc import Iterator
from typing import Final

from loadtests.load.histogram import Quantiles
from loadtests.load.phase import NO_RETRY
from loadtests.load.results import TOO_FEW, RunSummary, ThresholdResult

COLUMNS: Final = (
    ("p50", "p50"),
    ("p90", "p90"),
    ("p95", "p95"),
    ("p99", "p99"),
    ("p99.9", "p99_9"),
    ("max", "max"),
)


def verdict_of(result: ThresholdResult) -> str:
    """The verdict of a threshold; capitals if it was missed."""
    if result.state == TOO_FEW:
        return f"{TOO_FEW} ({result.samples} of {result.samples_needed})"
    return "passed" if result.passed else "MISSED"


def observed(threshold: str, value: float | None) -> str:
    """The observed value of a threshold's metric, with its unit."""
    if value is None:
        return "never"
    if threshold.startswith("errors"):
        return f"{value:.2%}"
    return f"{value:.1f}/s" if threshold.startswith(("achieved", "goodput")) else seconds(value)


def seconds(value: float | None) -> str:
    """Return a duration with three digits and a fitting unit: `850 us`, `4.21 ms`, `1.20 s`."""
    if value is None:
        return "-"
    for factor, unit in ((1.0, "s"), (1e-3, "ms")):
        if value >= factor:
            number = value / factor
            return f"{number:.{max(0, 2 - len(str(int(number))) + 1)}f} {unit}"
    return f"{value * 1e6:.0f} us"


def told(summary: RunSummary) -> str:
    """What was offered and what was achieved, in one line."""
    slo = summary.slo_seconds
    goodput = f"  goodput {summary.goodput_per_second:.1f}/s within {seconds(slo)}" if slo else ""
    offered = summary.offered_per_second
    load = summary.workload if offered is None else f"offered {offered:.1f}/s"
    return (
        f"{load}  achieved {summary.achieved_per_second:.1f}/s "
        f"(answers {summary.expect}){goodput}  for {summary.window_seconds:.1f} s"
    )


def times(summary: RunSummary) -> Iterator[tuple[str, list[str]]]:
    """The rows of the table of times: a name, and a cell for each of `COLUMNS`."""
    failed = summary.infinitely_late > 0
    # An attempt may fail and the request succeed in the end: then one is never, and the other is not.
    attempt_failed = failed or summary.ledger.attempts > summary.ledger.sent
    rows: list[tuple[str, Quantiles, bool]] = [
        ("latency (from due time)", summary.latency_seconds, failed),
        ("  of what was answered", summary.answered_latency_seconds, False),
        ("service (from sending)", summary.service_seconds, attempt_failed),
        ("  connecting", summary.connect_seconds, False),
        ("  TLS handshake", summary.tls_seconds, False),
        ("  until the first byte", summary.first_byte_seconds, False),
        ("  until the last", summary.rest_seconds, False),
        ("late sending", summary.lateness_seconds, False),
        ("late receiving, at most", summary.receive_lateness_seconds, False),
    ]
    hidden = []
    if summary.clients is not None:  # in a closed loop due and sent are the same moment
        hidden += [summary.latency_seconds, summary.lateness_seconds]
    if not failed:
        hidden.append(summary.answered_latency_seconds)
    if summary.tls_seconds.max is None:
        hidden.append(summary.tls_seconds)
    rows = [row for row in rows if not any(row[1] is found for found in hidden)]
    for name, found, has_never in rows:
        cells = (getattr(found, column) for _, column in COLUMNS)
        yield name, ["never" if has_never and cell is None else seconds(cell) for cell in cells]


def books_of(summary: RunSummary) -> str:
    """The client's ledger: three lines that add up, and more for retries and for kept connections."""
    books = summary.ledger
    parts = {"connected": books.connected}
    for name in ("connect_failed", "connect_timeout", "connect_aborted"):
        if count := getattr(books, name):
            parts[name] = count
    sent = " + ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in parts.items())
    counted = "attempts" if summary.retries else "requests"
    kept = f"\nthe ledger counts {counted}; connections {books.connections:,}" if summary.keep_alive else ""
    retries = f"\nattempts {books.attempts:,} = sent + retries {books.attempts - books.sent:,}"
    return (
        f"planned {books.planned:,} = sent {books.sent:,} + not sent {books.not_sent:,}"
        f"{retries if summary.retries else ''}\n"
        f"{'attempts' if summary.retries else 'sent'} = {sent}\n"
        f"connected = answered {books.answered:,} + unanswered {books.unanswered:,}{kept}"
    )


def outcomes_of(counts: dict[str, int]) -> str:
    """Outcomes in one line, the most frequent first."""
    return "  ".join(f"{name} {count:,}" for name, count in counts.items())


def retries_of(summary: RunSummary) -> str | None:
    """What retries made of the load; None if clients do not retry."""
    if not summary.retries or summary.amplification is None:
        return None
    policy = summary.retry if summary.retry == NO_RETRY else f"{summary.retry}, at most {summary.retries}"
    return f"{policy}; amplification {summary.amplification:.2f} (attempts / requests)"
