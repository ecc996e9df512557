"""Flags, environment, file and defaults: who wins, what is wrong, and what the operator is told."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest

from service.command import run
from service.config.settings import Settings
from service.config.sources import flag, listing, read, read_settings, variable
from service.lifecycle.control import Control

NOT_AN_EXECUTORS = "cannot be had with --offload executor, whose workers are not replaced one by one"
FUNCTION = "must be package.module:function, not 'no_colon'"

# For each setting a value that it cannot have, and the whole of what is said. New settings need a line here.
WRONG = {
    "host": ("http://[::]", "must be a name or an address, not 'http://[::]'"),
    "port": ("65536", "must be at most 65535, not '65536'"),
    "fd": ("2", "must be at least 3 or none, not '2'"),
    "admin_host": ("127.0.0.1/8", "must be a name or an address, not '127.0.0.1/8'"),
    "admin_port": ("http", "must be a whole number, not 'http'"),
    "offload": ("magic", "must be 'inline', 'thread', 'process' or 'executor', not 'magic'"),
    "executor": ("no_colon", "must be package.module:function or none, not 'no_colon'"),
    "workers": ("0", "must be at least 1, not '0'"),
    "worker_nice": ("20", "must be at most 19, not '20'"),
    "work": ("no_colon", FUNCTION),
    "app": ("no_colon", "must be package.module:function or none, not 'no_colon'"),
    "work_ms": ("four", "must be a number, not 'four'"),
    "work_units": ("0.5", "must be a whole number or calibrated, not '0.5'"),
    "queue_wait": ("0", "must be greater than 0 or off, not '0'"),
    "deadline": ("never", "must be a number or off, not 'never'"),
    "trusted_peers": (
        "10.0.0.0/8,10.0.0.1/8",
        "must be networks with commas between them or none: 10.0.0.1/8 has host bits set",
    ),
    "route_urgency": ("/data=8", "must be ROUTE=URGENCY, /data=0 to /data=7, or none, not '/data=8'"),
    "trust_priority": (
        "everybody",
        "must be networks with commas between them or none: 'everybody' does not appear to be an IPv4 or "
        "IPv6 network",
    ),
    "client_share": ("1.5", "must be at most 1, not '1.5'"),
    "task_attempts": ("11", "must be at most 10, not '11'"),
    "worker_max_tasks": ("null", "must be a whole number or none, not 'null'"),
    "worker_max_memory": ("1 GiB", "must be a whole number or none, not '1 GiB'"),
    "max_result": ("16M", "must be a whole number, not '16M'"),
    "max_queue_bytes": ("0", "must be at least 1, not '0'"),
    "backlog": ("-1", "must be at least 1, not '-1'"),
    "accept_batch": ("2147483648", "must be at most 2147483647, not '2147483648'"),
    "max_connections": ("none", "must be a whole number or derived, not 'none'"),
    "max_connections_per_client": ("0", "must be at least 1 or derived or off, not '0'"),
    "header_timeout": ("inf", "must be a finite number, not 'inf'"),
    "body_timeout": ("0", "must be greater than 0, not '0'"),
    "receive_timeout": ("off", "must be a number, not 'off'"),
    "write_timeout": ("nan", "must be a finite number, not 'nan'"),
    "idle_timeout": ("off", "must be a number, not 'off'"),
    "tls_cert": ("cert.pem", "must be given together with --tls-cert"),  # said of the key, which is missing
    "tls_key": ("key.pem", "must be given together with --tls-cert"),
    "tls_client_ca": ("ca.pem", "needs --tls-cert and --tls-key"),
    "tls_handshake_timeout": ("86401", "must be at most 86400, not '86401'"),
    "drain_notice": ("-1", "must be at least 0, not '-1'"),
    "drain_timeout": ("off", "must be a number, not 'off'"),
    "loop_stall": ("5s", "must be a number, not '5s'"),
    "request_log": ("100", "must be at most 1, not '100'"),
    "loop": ("trio", "must be 'uvloop' or 'asyncio', not 'trio'"),
    "log_format": ("xml", "must be 'auto', 'text' or 'json', not 'xml'"),
}

# No value is wrong in itself where any path will do: here it is wrong without the others.
SAID_OF = {"tls_cert": "tls_key"}


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().startswith("SERVICE_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "service.toml"


def told(*argv: str) -> list[str]:
    """What is wrong, sentence by sentence."""
    with pytest.raises(ValueError, match=r".") as caught:
        read(argv)
    return str(caught.value).splitlines()


def sentence(name: str, where: str = "") -> str:
    said_of = SAID_OF.get(name, name)
    return f"{flag(said_of)} ({variable(said_of)}){where if said_of == name else ''}: {WRONG[name][1]}"


def test_a_flag_beats_a_variable_beats_the_file_beats_the_default(
    monkeypatch: pytest.MonkeyPatch, config: Path
) -> None:
    assert read_settings([]).accept_batch == 64
    config.write_text("accept_batch = 2")
    argv = ["--config", str(config)]
    assert read_settings(argv).accept_batch == 2
    monkeypatch.setenv("SERVICE_ACCEPT_BATCH", "3")
    assert read_settings(argv).accept_batch == 3
    assert read_settings([*argv, "--accept-batch", "5"]).accept_batch == 5


def test_the_file_is_named_by_flag_or_variable_and_read_anew_each_time(
    monkeypatch: pytest.MonkeyPatch, config: Path
) -> None:
    monkeypatch.setenv("SERVICE_CONFIG", str(config))
    for port in (1, 2):
        config.write_text(f"port = {port}")
        assert read_settings([]).port == port
    other = config.with_name("other.toml")
    other.write_text("port = 3")
    assert read_settings([f"--config={other}"]).port == 3


def test_every_setting_has_a_wrong_value_in_the_table() -> None:
    assert list(WRONG) == list(Settings.model_fields)


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_value_is_told_in_one_sentence_wherever_it_is_from(
    name: str, monkeypatch: pytest.MonkeyPatch, config: Path
) -> None:
    value = WRONG[name][0]
    assert told(f"{flag(name)}={value}") == [sentence(name)]
    config.write_text(f"{name} = '{value}'")
    assert told("--config", str(config)) == [sentence(name, f" in {config}")]
    monkeypatch.setenv(variable(name), value)
    assert told() == [sentence(name)]


def test_all_that_is_wrong_is_told_at_once(monkeypatch: pytest.MonkeyPatch, config: Path) -> None:
    wrong = [name for name in WRONG if name != "tls_cert"]  # with it, the other two would be right
    for name in wrong[0::3]:
        monkeypatch.setenv(variable(name), WRONG[name][0])
    in_file = "".join(f"{name} = '{WRONG[name][0]}'\n" for name in wrong[1::3])
    config.write_text(in_file + "prot = 1\n")
    flags = [f"{flag(name)}={WRONG[name][0]}" for name in wrong[2::3]]
    expected = [sentence(name, f" in {config}" if name in wrong[1::3] else "") for name in wrong]
    assert told("--no-such-flag", "x", "--config", str(config), *flags) == [
        "--no-such-flag is not a setting",
        f"{config}: prot is not a setting; did you mean port?",
        *expected,
    ]


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--port="], ["--port (SERVICE_PORT): must not be empty"]),
        (["--host", ""], ["--host (SERVICE_HOST): must not be empty"]),
        (["--port"], ["--port: expected one argument"]),
        (["--port", "--backlog", "5"], ["--port: expected one argument"]),
        (["--show-settings=yes"], ["--show-settings: ignored explicit argument 'yes'"]),
        (["--accept-bach", "1"], ["--accept-bach is not a setting; did you mean --accept-batch?"]),
        (["--admin-p=1"], ["--admin-p is not a setting; did you mean --admin-port?"]),  # no abbreviations
        (["-p", "1"], ["-p is not a setting"]),
        (["8080"], ["8080 is not a setting"]),
        (
            ["--config", "/no/such"],
            ["--config (SERVICE_CONFIG): '/no/such' cannot be read: No such file or directory"],
        ),
        (["--config", "/"], ["--config (SERVICE_CONFIG): '/' cannot be read: Is a directory"]),
        (["--config="], ["--config (SERVICE_CONFIG): '' cannot be read: Is a directory"]),
        (["--fd", "\udce9"], [r"--fd (SERVICE_FD): must be UTF-8 or none, not '\udce9'"]),
        (
            ["--tls-cert=", "--tls-client-ca", "ca.pem"],  # a wrong one was given all the same
            [
                "--tls-cert (SERVICE_TLS_CERT): must not be empty",
                "--tls-key (SERVICE_TLS_KEY): must be given together with --tls-cert",
            ],
        ),
        (
            ["--tls-key", "key.pem", "--tls-client-ca", "ca.pem"],
            [
                "--tls-key (SERVICE_TLS_KEY): must be given together with --tls-cert",
                "--tls-client-ca (SERVICE_TLS_CLIENT_CA): needs --tls-cert and --tls-key",
            ],
        ),
        (
            ["--executor=package.module:factory"],
            ["--executor (SERVICE_EXECUTOR): needs --offload executor"],
        ),
        (
            ["--offload=magic", "--executor=package.module:factory"],
            ["--offload (SERVICE_OFFLOAD): must be 'inline', 'thread', 'process' or 'executor', not 'magic'"],
        ),
        (
            ["--offload=executor", "--worker-max-tasks=9", "--worker-max-memory=9", "--port=x"],
            [
                "--port (SERVICE_PORT): must be a whole number, not 'x'",
                f"--worker-max-tasks (SERVICE_WORKER_MAX_TASKS): {NOT_AN_EXECUTORS}",
                f"--worker-max-memory (SERVICE_WORKER_MAX_MEMORY): {NOT_AN_EXECUTORS}",
            ],
        ),
    ],
    ids=lambda value: " ".join(value) if value[0].startswith("-") else "",
)
def test_what_cannot_be_understood_is_told_and_never_guessed(argv: list[str], says: list[str]) -> None:
    assert told(*argv) == says


def test_the_length_of_what_was_typed_does_not_drown_what_is_wrong() -> None:
    (line,) = told("--port", "1" * 5000)
    assert len(line) < 160


def test_the_last_of_a_repeated_flag_counts() -> None:
    assert read_settings(["--port", "wrong", "--port", "1"]).port == 1


@pytest.mark.parametrize(
    ("written", "read_as"),
    [
        ("'none'", []),
        ("[]", []),
        ("'10.0.0.0/8, ::1'", ["10.0.0.0/8", "::1/128"]),
        ("['10.0.0.0/8', '::1']", ["10.0.0.0/8", "::1/128"]),
    ],
)
def test_networks_are_typed_with_commas_or_listed_in_the_file(
    written: str, read_as: list[str], config: Path
) -> None:
    config.write_text(f"trusted_peers = {written}")
    assert [str(one) for one in read_settings(["--config", str(config)]).trusted_peers] == read_as


@pytest.mark.parametrize(
    ("written", "read_as"),
    [
        ("'none'", {}),
        ("[]", {}),
        ("'/data=0, /users/{id}=7'", {"/data": 0, "/users/{id}": 7}),
        ("['/a=b=1']", {"/a=b": 1}),
    ],
)
def test_urgencies_are_typed_with_commas_or_listed_in_the_file(
    written: str, read_as: dict[str, int], config: Path
) -> None:
    config.write_text(f"route_urgency = {written}")
    found = read_settings(["--config", str(config)]).route_urgency
    assert {one.route: one.urgency for one in found} == read_as


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("data=1", "not 'data=1'"),
        ("/data", "not '/data'"),
        ("/data=", "not '/data='"),
        ("/data=-1", "not '/data=-1'"),
        ("/data=1,", "not ''"),
        ("/data=1 /b=2", "not '/data=1 /b=2'"),
        ("/a=1,/b=2,/a=1", "must name a route once, not twice: /a"),
    ],
)
def test_what_is_no_urgency_of_a_route_is_told(typed: str, said: str) -> None:
    (line,) = told("--route-urgency", typed)
    assert line.endswith(said)


@pytest.mark.parametrize("written", ["[1]", "1", "[[]]", "['10.0.0.0/33']"])
def test_what_is_no_network_is_none_of_the_trusted(written: str, config: Path) -> None:
    config.write_text(f"trusted_peers = {written}")
    (line,) = told("--config", str(config))
    assert "must be networks with commas between them or none: '" in line


def test_an_empty_variable_is_an_unset_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PORT", "TLS_CERT", "CONFIG", "NO_SUCH_THING"):
        monkeypatch.setenv(f"SERVICE_{name}", "")
    assert read([]).settings == Settings()
    assert not read([]).sources
    assert not read([]).unknown_variables


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("port = true", "--port (SERVICE_PORT) in {}: must not be true: no setting is a switch"),
        ("workers = 2.5", "--workers (SERVICE_WORKERS) in {}: must be a whole number, not 2.5"),
        ("port = [1]", "--port (SERVICE_PORT) in {}: must be a whole number, not [1]"),
        ("work_ms = {}", "--work-ms (SERVICE_WORK_MS) in {}: must be a number, not {{}}"),
        ("host = 1", "--host (SERVICE_HOST) in {}: must be text, not 1"),
        ("tls_client_ca = 1", "--tls-client-ca (SERVICE_TLS_CLIENT_CA) in {}: must be a path or none, not 1"),
        ("accept-batch = 1", "{}: accept-batch is not a setting; did you mean accept_batch?"),
        ("[service]", "{}: service is not a setting"),
        ("config = 'x'", "{}: config is not a setting"),
        (
            "port = 1\nport 2",
            "--config (SERVICE_CONFIG): '{}' is not TOML: "
            "Expected '=' after a key in a key/value pair (at line 2, column 6)",
        ),
        (
            "host = '\udce9'",
            "--config (SERVICE_CONFIG): '{}' is not TOML: "
            "'utf-8' codec can't decode byte 0xe9 in position 8: invalid continuation byte",
        ),
    ],
)
def test_what_is_wrong_with_the_file_is_told_with_its_name(text: str, says: str, config: Path) -> None:
    config.write_bytes(text.encode(errors="surrogateescape"))
    assert told("--config", str(config)) == [says.format(config)]


def test_the_variable_that_kubernetes_sets_for_a_service_is_explained(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SERVICE_PORT", "tcp://10.0.0.1:80")
    (line,) = told()
    assert line.startswith(
        "--port (SERVICE_PORT): must be a whole number, not 'tcp://10.0.0.1:80'; Kubernetes "
    )
    assert "Kubernetes" not in told("--port", "tcp://10.0.0.1:80")[0]
    assert read_settings(["--port", "1"]).port == 1


def test_a_variable_that_is_no_setting_is_told_and_does_not_stop_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("DEADLNE", "SERVICE_HOST", "SHOW_SETTINGS"):
        monkeypatch.setenv(f"SERVICE_{name}", "1")
    reading = read([])
    assert reading.settings == Settings()
    assert not reading.show
    assert sorted(reading.unknown_variables) == [
        "SERVICE_DEADLNE is not a setting; did you mean SERVICE_DEADLINE?",
        "SERVICE_SERVICE_HOST is not a setting",
        "SERVICE_SHOW_SETTINGS is not a setting",
    ]


def test_each_setting_is_listed_with_its_value_and_where_it_is_from(
    monkeypatch: pytest.MonkeyPatch, config: Path
) -> None:
    config.write_text("port = 1\ndeadline = 2.5\nbacklog = 3")
    monkeypatch.setenv("SERVICE_CONFIG", str(config))
    monkeypatch.setenv("SERVICE_DEADLINE", "off")
    monkeypatch.setenv("SERVICE_BACKLOG", "4")
    lines = listing(read(["--backlog", "5"]), colors=False).splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in lines}
    assert list(rows) == [flag(name) for name in Settings.model_fields]
    assert rows["--port"] == ["1", str(config)]
    assert rows["--deadline"] == ["off", "SERVICE_DEADLINE"]
    assert rows["--backlog"] == ["5", "flag"]
    assert rows["--idle-timeout"] == ["75", "default"]
    assert rows["--max-connections"] == ["derived", "default"]
    assert rows["--app"] == ["none", "default"]


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["--queue-wait", "off", "--deadline", "inf", "--work-ms", "1e-5", "--max-connections", "7"],
        ["--tls-cert", "/my own/cert.pem", "--tls-key", "/a/path/that/is/longer/than/its/column/key.pem"],
        ["--trusted-peers", "10.0.0.0/8,fd00::/8, 192.0.2.1"],
        ["--route-urgency", "/data=1, /users/{id}=7", "--trust-priority", "::1", "--client-share", "0.25"],
        ["--app", "a:b", "--work-units", "5", "--fd", "3", "--workers", "9", "--request-log", "0.25"],
    ],
    ids=["defaults", "words", "paths", "networks", "urgencies", "numbers"],
)
def test_what_is_listed_can_be_typed(argv: list[str]) -> None:
    reading = read(argv)
    typed = [word for line in listing(reading, colors=False).splitlines() for word in shlex.split(line)[:2]]
    assert read_settings(typed) == reading.settings


def test_a_listed_line_fits_90_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in Settings():
        monkeypatch.setenv(variable(name), str("none" if value in (None, ()) else value))
    monkeypatch.setenv("SERVICE_WORK_UNITS", "calibrated")
    monkeypatch.setenv("SERVICE_MAX_CONNECTIONS", "derived")
    monkeypatch.setenv("SERVICE_MAX_CONNECTIONS_PER_CLIENT", "derived")
    monkeypatch.setenv("SERVICE_APP", "package.module:function9")
    text = listing(read([]), colors=False)
    assert len(text.splitlines()) == text.count("  SERVICE_")
    assert max(map(len, text.splitlines())) == 90


def test_a_path_that_is_no_utf_8_is_listed_all_the_same() -> None:
    reading = read(["--tls-cert", "caf\udce9", "--tls-key", "key.pem"])
    assert r"caf\udce9" in listing(reading, colors=False)


def command(argv: list[str]) -> int:
    return run(argv, os.environ, Control(force=lambda: None))


@pytest.mark.parametrize(
    ("terminal", "no_color", "dim"), [(True, "", True), (True, "1", False), (False, "", False)]
)
def test_only_a_terminal_gets_colors_unless_told_not_to(
    terminal: bool,
    no_color: str,
    dim: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal)
    assert command(["--show-settings", "--port", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.startswith("\033[2m") for line in lines if line.endswith(("default", "default\033[0m"))} == {
        dim
    }
    assert "\033" not in next(line for line in lines if line.startswith("--port"))


def test_show_settings_tells_what_is_wrong_and_what_is_no_setting(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SERVICE_PROT", "1")
    assert command(["--show-settings"]) == 0
    assert capsys.readouterr().err == "offloop: SERVICE_PROT is not a setting; did you mean SERVICE_PORT?\n"
    assert command(["--port", "x", "--show-settings"]) == 2
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "offloop: --port (SERVICE_PORT): must be a whole number, not 'x'\n")


def test_help_fits_80_columns_and_says_every_default(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as ended:
        read(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    for name in ("config", "show_settings", *Settings.model_fields):
        assert f"\n  {flag(name)} " in text
    flowing = " ".join(text.split())
    assert flowing.count("(default: ") == len(Settings.model_fields) + 1
    for word in ("the cores", "calibrated", "derived", "none", "0.2"):
        assert f"(default: {word})" in flowing
    assert "--max-connections int|derived\n" in text


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().port = 1  # type: ignore[misc]  # that this fails is the point
