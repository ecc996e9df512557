"""What happened to one request, and how it is kept."""

import errno
import json
import ssl

import pytest

from loadtests.load.sample import (
    LOCAL_ERRORS,
    OUTCOMES,
    Sample,
    explain,
    from_columns,
    reason_of,
    requests,
    to_columns,
)

SAMPLES = [
    Sample(10.0, 10.0000011, 10.5, 11.0, 11.25, "ok", 200, None, 40_001, 0.000012),
    Sample(10.1, 10.1, None, None, 10.2, "connect_error", None, "ECONNREFUSED"),
    Sample(10.2, 10.2, 10.3, 10.4, 10.5, "status", 503, None),
    Sample(10.3, None, None, None, None, "not_sent", None, "stopped"),
    Sample(10.4, 10.4, 10.4, None, 10.5, "dropped", None, "FIN", 40_001, reused=True),
]


def test_samples_survive_the_file_to_the_microsecond() -> None:
    back = from_columns(json.loads(json.dumps(to_columns(SAMPLES))))
    assert back[0].started == 10.000001
    assert (back[0].local_port, back[0].receive_lateness_seconds) == (40_001, 0.000012)
    assert back[1:] == SAMPLES[1:]


def test_the_file_names_each_column_once() -> None:
    content = to_columns(SAMPLES)
    assert content["columns"] == list(Sample._fields)
    assert [len(row) for row in content["rows"]] == [len(Sample._fields)] * len(SAMPLES)


def test_a_reader_takes_columns_in_any_order_and_ignores_strangers() -> None:
    content = to_columns(SAMPLES)
    columns = [*reversed(content["columns"]), "colour"]
    rows = [[*reversed(row), "red"] for row in content["rows"]]
    assert from_columns({"columns": columns, "rows": rows})[1:] == SAMPLES[1:]


@pytest.mark.parametrize("column", ["finished", "reused"])
def test_a_reader_refuses_a_file_without_a_column(column: str) -> None:
    with pytest.raises(ValueError, match=f"not a file of samples: '{column}'"):
        from_columns({"columns": [c for c in Sample._fields if c != column], "rows": []})


def test_labels_tell_statuses_and_errnos_apart() -> None:
    assert [sample.label for sample in SAMPLES] == [
        "ok",
        "connect_ECONNREFUSED",
        "status_503",
        "not_sent",
        "dropped",
    ]


def test_outcomes_have_different_names() -> None:
    assert len(set(OUTCOMES)) == len(OUTCOMES)


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("EADDRNOTAVAIL", "TIME_WAIT"),
        ("EADDRINUSE", "--source"),
        ("EMFILE", "ulimit -n"),
        ("ENFILE", "fs.file-max"),
        ("ECONNREFUSED", "nothing listens"),
        ("ETIMEDOUT", "firewall"),
        ("ENETUNREACH", "routing table"),
        ("EHOSTUNREACH", "address"),
        ("timeout", "--timeout"),
        ("EPROTO", "errno"),
    ],
)
def test_each_error_is_explained_in_one_sentence_with_a_remedy(name: str, remedy: str) -> None:
    sentence = explain(name)
    assert remedy in sentence
    assert "\n" not in sentence


def test_local_errors_are_errnos() -> None:
    assert set(errno.errorcode.values()) >= LOCAL_ERRORS


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), "ECONNREFUSED"),
        (OSError("no number"), "OSError"),
        (ssl.SSLError(1, "[SSL: NO] words"), "EPERM"),
    ],
)
def test_a_reason_is_a_name_never_a_number(error: OSError, name: str) -> None:
    assert reason_of(error) == name


def test_a_run_that_was_kept_before_clients_could_retry_has_one_attempt_for_each_request() -> None:
    content = to_columns(SAMPLES)
    kept = len(content["columns"]) - 3
    assert content["columns"][kept:] == ["request", "attempt", "last"]
    old = {"columns": content["columns"][:kept], "rows": [row[:kept] for row in content["rows"]]}
    assert from_columns(old)[1:] == SAMPLES[1:]
    assert requests(from_columns(old)[1:]) == SAMPLES[1:]


def test_a_request_ended_as_its_last_attempt_did() -> None:
    first = SAMPLES[2]._replace(request=1, last=False)
    second = SAMPLES[0]._replace(request=1, attempt=2)
    assert requests([first, second, *SAMPLES]) == [second, *SAMPLES]
