"""`python -m loadtests run` as people start it: exit codes, files, signals."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from tests.support.servers import OK_ANSWER, KeepingServer, ScriptedServer, answer_with
from tests.support.waiting import until

# What others take of the CPU is no fault of these runs, but for the test that plants it.
COMMAND = [sys.executable, "-m", "loadtests", "run", "--shared-machine"]


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer(answer_with(OK_ANSWER)) as running:
        yield running


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=60, check=False)


LATE = ("1 % of the requests were sent more than ", "1 % of the answers may have waited ")
"""What a run of fewer than a hundred requests is INVALID for if the machine stands still once for 10 ms."""


def punctual(
    server: ScriptedServer | KeepingServer, kept: Path, *arguments: str, keeps: str = "--json"
) -> tuple[subprocess.CompletedProcess[str], Path]:
    """The first run whose generator was not late, or the last of twenty; and its file, or its folder.

    Args:
        kept: where they are, the name of each begins with this one's.
        keeps: the flag to keep it with, `--json` or `--out`.
    """
    for number in range(20):
        server.requests.clear()
        where = kept.with_name(f"{kept.name}-{number}")
        done = run(server.url, *arguments, keeps, where)
        file = where if keeps == "--json" else where / "summary.json"
        assert file.exists(), done.stderr
        reasons = json.loads(file.read_text())["invalid_because"]
        if done.returncode != 3 or not all(reason.startswith(LATE) for reason in reasons):
            break
    return done, where


@pytest.mark.alone  # a busy machine would make it INVALID
def test_a_run_that_reaches_its_thresholds_exits_0_and_keeps_its_folder(
    server: ScriptedServer, tmp_path: Path
) -> None:
    flags = ("--rate", "100", "--duration", "0.5", "--threshold", "errors<10%")
    done, folder = punctual(server, tmp_path / "runs" / "first", *flags, keeps="--out")
    assert done.returncode == 0, done.stderr
    assert "latency (from due time)" in done.stdout
    assert "fired" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert {path.name for path in folder.iterdir()} == {
        *("plan.json", "samples.json", "summary.json"),
        *("latency.hlog", "latency.hgrm", "seconds.ndjson", "surroundings.json", "report.html"),
    }
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["outcomes"] == {"ok": 50}
    assert summary["ledger"]["connected"] == len(server.requests) == 50
    assert json.loads((folder / "plan.json").read_text())["phase"]["rate"] == 100


@pytest.mark.alone  # a busy machine would make it INVALID
def test_several_rates_are_a_run_each_and_a_folder_each(server: ScriptedServer, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    done = run(
        *(server.url, "--rate", "40,40", "--duration", "0.3", "--threshold", "errors<10%", "--out", folder),
        *("--json", tmp_path / "steps.json", "--junit", tmp_path / "junit.xml"),
    )
    assert done.returncode == 3, done.stderr  # twelve requests cannot show that less than a tenth fails
    assert [line for line in done.stderr.splitlines() if line.startswith("step")] == [
        f"step {number} of 2: 40/s constant for 0.3 s" for number in (1, 2)
    ]
    assert "INVALID  2 steps" in done.stdout
    assert {path.name for path in folder.iterdir()} == {"steps.json", "report.html", "40", "40-2"}
    content = json.loads((tmp_path / "steps.json").read_text())
    assert content["state"] == "invalid"
    assert [step["name"] for step in content["steps"]] == ["40", "40-2"]
    for step in content["steps"]:
        assert step["summary"]["outcomes"] == {"ok": 12}
        kept = {path.name for path in (folder / step["name"]).iterdir()}
        assert kept >= {"plan.json", "samples.json", "summary.json", "latency.hlog", "report.html"}
        assert json.loads((folder / step["name"] / "summary.json").read_text()) == step["summary"]
    assert "step 40-2: errors&lt;10%" in (tmp_path / "junit.xml").read_text()


@pytest.mark.alone  # a busy machine would make it INVALID
def test_clients_in_a_closed_loop_are_summed_up_without_an_offered_rate(tmp_path: Path) -> None:
    def work(connection: socket.socket) -> None:
        time.sleep(0.02)  # a server that costs nothing would be found slower than the generator: INVALID
        connection.sendall(OK_ANSWER)

    with ScriptedServer(work) as server:
        done, file = punctual(server, tmp_path / "summary", "--clients", "2", "--duration", "0.5")
    assert done.returncode == 0, done.stderr
    assert "closed loop, 2 clients" in done.stdout
    assert "late sending" not in done.stdout
    summary = json.loads(file.read_text())
    assert summary["clients"] == 2
    assert summary["offered_per_second"] is None
    assert summary["outcomes"] == {"ok": len(server.requests)}


@pytest.mark.alone  # a busy machine would make it INVALID
def test_a_run_that_keeps_its_connections_says_how_many_there_were(tmp_path: Path) -> None:
    def answer(connection: socket.socket, _number: int) -> bool:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        return True

    with KeepingServer(answer) as server:
        flags = ("--keep-alive", "--rate", "100", "--duration", "0.5")
        done, file = punctual(server, tmp_path / "summary", *flags)
    assert done.returncode == 0, done.stderr
    assert f"the ledger counts requests; connections {len(server.requests)}" in done.stdout
    summary = json.loads(file.read_text())
    assert summary["keep_alive"] is True
    assert summary["ledger"]["answered"] == sum(map(len, server.requests)) == 50
    assert summary["ledger"]["connections"] == summary["ports"]["connections"] == len(server.requests)


@pytest.mark.alone  # a busy machine would make it INVALID
def test_a_missed_threshold_exits_1(server: ScriptedServer, tmp_path: Path) -> None:
    flags = ("--rate", "50", "--duration", "0.2", "--slo", "100ms", "--threshold", "goodput>=100000")
    done, _ = punctual(server, tmp_path / "summary", *flags)
    assert done.returncode == 1
    assert "MISSED" in done.stdout


@pytest.mark.alone  # a busy machine would make it INVALID
def test_a_run_with_too_few_samples_for_its_threshold_exits_3(server: ScriptedServer) -> None:
    done = run(server.url, "--rate", "100", "--duration", "0.2", "--threshold", "p99<10s")
    assert done.returncode == 3
    assert "p99<10s too few samples (20 of 368)" in done.stdout
    assert "INVALID" in done.stdout
    assert "passed" not in done.stdout


@pytest.mark.alone  # a busy machine would make it INVALID
def test_what_counts_as_success_is_told_by_its_status(tmp_path: Path) -> None:
    with ScriptedServer(answer_with(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")) as server:
        flags = ("--rate", "50", "--duration", "0.2", "--expect", "2xx", "--method", "POST", "--slo", "1s")
        done, file = punctual(server, tmp_path / "summary", *flags)
    assert done.returncode == 0, done.stderr
    summary = json.loads(file.read_text())
    assert summary["outcomes"] == {"ok_201": 10}
    assert summary["error_share"] == 0
    assert summary["goodput_per_second"] == summary["achieved_per_second"] > 0


@pytest.mark.alone  # a busy machine would make it INVALID
def test_json_on_stdout_is_nothing_but_json(server: ScriptedServer) -> None:
    done = run(
        server.url, "--rate", "50", "--duration", "0.2", "--json", "-", "-H", "X-One: 1", "-H", "X-Two: 2"
    )
    assert json.loads(done.stdout)["outcomes"] == {"ok": 10}
    assert b"\r\nX-One: 1\r\nX-Two: 2\r\n" in server.requests[0]


@pytest.mark.alone  # a busy machine would make it INVALID
def test_json_in_a_file_is_the_summary(server: ScriptedServer, tmp_path: Path) -> None:
    done, file = punctual(server, tmp_path / "summary", "--rate", "50", "--duration", "0.2")
    assert done.returncode == 0
    assert json.loads(file.read_text())["state"] == "ok"


@pytest.mark.parametrize(
    ("flags", "policy", "attempts"),
    [
        ((), "none", 5),
        (("--retries", "2"), "backoff", 15),
        (("--retries", "2", "--retry", "none"), "none", 5),
    ],
)
def test_clients_retry_as_the_flags_say_and_all_attempts_are_told(
    flags: tuple[str, ...], policy: str, attempts: int, tmp_path: Path
) -> None:
    refusal = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
    with ScriptedServer(answer_with(refusal)) as server:
        done = run(server.url, "--rate", "50", "--duration", "0.1", *flags, "--out", tmp_path / "run")
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert (summary["retry"], summary["outcomes"]) == (policy, {"status_503": 5})
    assert summary["ledger"]["attempts"] == len(server.requests) == attempts
    assert summary["attempt_outcomes"] == {"status_503": attempts}
    assert summary["amplification"] == attempts / 5
    assert ("amplification" in done.stdout) is bool(flags)
    samples = json.loads((tmp_path / "run/samples.json").read_text())
    last = samples["columns"].index("last")
    assert [row[last] for row in samples["rows"]].count(True) == 5
    assert json.loads((tmp_path / "run/plan.json").read_text())["phase"]["seed"] == 1


def test_clients_in_a_closed_loop_may_have_a_seed_for_the_waits_before_their_retries(tmp_path: Path) -> None:
    refusal = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
    with ScriptedServer(answer_with(refusal)) as server:
        flags = ("--clients", "2", "--duration", "0.1", "--retries", "1", "--seed", "7")
        run(server.url, *flags, "--out", tmp_path / "run")
    phase = json.loads((tmp_path / "run/plan.json").read_text())["phase"]
    assert (phase["clients"], phase["retry"], phase["seed"]) == (2, "backoff", 7)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--rat", "5"], "--rat"),
        (["--rate", "many"], "--rate"),
        (["--rate", "0"], "rate must be a positive number"),
        (["--clients", "0"], "--clients"),
        (["--rate", "100,"], "'100,' is not a rate, nor several with commas"),
        (["--rate", "100,0"], "rate must be a positive number"),
        (["--clients", "4", "--rate", "5"], "--clients excludes --rate"),
        (["--clients", "4", "--rate", "5,6"], "--clients excludes --rate"),
        (["--clients", "4", "--arrivals", "poisson", "--seed", "1"], "excludes --arrivals and --seed"),
        (["--clients", "4", "--seed", "1"], "--clients excludes --seed"),
        (["--clients", "4", "--seed", "1", "--retries", "3", "--rate", "5"], "--clients excludes --rate:"),
        (["--arrivals", "bursts"], "--arrivals"),
        (["--threshold", "p98<1s"], "unknown metric 'p98'"),
        (["--threshold", "goodput>=5"], "threshold 'goodput>=5' needs --slo"),
        (["--slo", "100"], "'100' is not a duration such as 100ms"),
        (["--expect", "ok"], "expect 'ok' is not statuses such as 200, 2xx"),
        (["--header", "novalue"], "is not 'NAME: VALUE'"),
        (["--retries", "-1"], "retries must be between 0 and 100, not -1"),
        (["--retry", "often", "--retries", "1"], "--retry"),
        (["--retry", "budget"], "retry 'budget' needs retries"),
        (["--source", "192.0.2.1"], "192.0.2.1: Cannot assign requested address"),
        (["--json", "/nowhere/summary.json"], "cannot write to /nowhere/summary.json"),
        (["--out", "/dev/null/run"], "cannot write to the folder /dev/null/run: Not a directory"),
    ],
)
def test_a_command_that_makes_no_sense_exits_2_with_one_sentence_and_sends_nothing(
    server: ScriptedServer, arguments: list[str], words: str
) -> None:
    done = run(server.url, *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""
    assert server.requests == []


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "http://", "http://host.invalid/"])
def test_a_url_that_leads_nowhere_exits_2_and_leaves_no_folder(url: str, tmp_path: Path) -> None:
    done = run(url, "--out", tmp_path / "run")
    assert done.returncode == 2
    assert url in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_a_run_is_not_overwritten(server: ScriptedServer, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text("precious")
    done = run(server.url, "--out", tmp_path)
    assert done.returncode == 2
    assert "already holds a run" in done.stderr
    assert (tmp_path / "plan.json").read_text() == "precious"


@pytest.mark.parametrize("taken", ["steps.json", "100/plan.json"])
def test_steps_overwrite_nothing_either(server: ScriptedServer, tmp_path: Path, taken: str) -> None:
    (tmp_path / taken).parent.mkdir(exist_ok=True)
    (tmp_path / taken).write_text("precious")
    done = run(server.url, "--rate", "50,100", "--out", tmp_path)
    assert done.returncode == 2
    assert "choose another folder" in done.stderr
    assert (tmp_path / taken).read_text() == "precious"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / taken]
    assert server.requests == []


def test_a_port_without_a_listener_exits_2_at_once_and_names_address_and_errno() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        done = run(f"http://{address}/", "--rate", "100", "--duration", "600")
    assert done.returncode == 2
    assert f"{address}: ECONNREFUSED, nothing listens" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.alone  # a busy machine would make it INVALID
def test_a_generator_without_descriptors_makes_the_run_invalid_and_exits_3() -> None:
    with ScriptedServer(lambda connection: silent.hold(connection)) as silent:
        command = ["/bin/sh", "-c", 'ulimit -n 40; exec "$0" "$@"', *COMMAND, silent.url]
        done = subprocess.run(
            [*command, "--rate", "200", "--duration", "0.5", "--timeout", "1"],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert "INVALID" in done.stdout
    assert "EMFILE" in done.stdout


def start(url: str, folder: Path, *flags: str) -> subprocess.Popen[str]:
    """Start a long run in a process group of its own, as a shell does."""
    flags = flags or ("--rate", "100", "--duration", "600")
    command = [*COMMAND, url, *flags, "--out", str(folder)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def await_answers(progress: IO[str]) -> None:
    for line in progress:
        if " ok " in line:
            return
    pytest.fail("the run ended before its first answer")


def test_ctrl_c_leaves_a_readable_run_marked_as_interrupted_and_no_child(
    server: ScriptedServer, tmp_path: Path
) -> None:
    with start(server.url, tmp_path) as command:
        assert command.stderr is not None
        await_answers(command.stderr)
        os.killpg(command.pid, signal.SIGINT)
        stdout, stderr = command.communicate(timeout=60)
        assert command.returncode == 130
        assert "(interrupted)" in stdout
        assert "Traceback" not in stderr
        with pytest.raises(ProcessLookupError):
            os.killpg(command.pid, 0)  # nobody is left in the group
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["interrupted"] is True
    assert summary["outcomes"]["ok"] > 0
    assert summary["outcomes"]["not_sent"] > 0
    assert sum(summary["outcomes"].values()) == summary["ledger"]["planned"] == 60_000


def test_ctrl_c_keeps_the_steps_that_were_finished_and_the_part_of_the_one_under_way(
    server: ScriptedServer, tmp_path: Path
) -> None:
    with start(server.url, tmp_path, "--rate", "1,1000,2", "--duration", "1") as command:
        assert command.stderr is not None
        await_answers(command.stderr)
        # One of the first step, a thousand of the second.
        until(lambda: len(server.requests) > 50)
        os.killpg(command.pid, signal.SIGINT)
        stdout, stderr = command.communicate(timeout=60)
        assert command.returncode == 130
        assert "Traceback" not in stderr
    assert "(interrupted)  2 of 3 steps" in stdout
    assert json.loads((tmp_path / "1/summary.json").read_text())["interrupted"] is False
    assert json.loads((tmp_path / "1000/summary.json").read_text())["outcomes"]["ok"] > 0
    assert not (tmp_path / "2").exists()
    assert (tmp_path / "report.html").exists()


@pytest.mark.alone  # a busy machine would make it INVALID
def test_a_server_that_goes_away_ends_the_steps_and_what_was_measured_is_told() -> None:
    def answer(connection: socket.socket) -> None:
        connection.sendall(OK_ANSWER)
        if len(leaving.requests) == 5:  # of ten in the first step
            leaving.stop()

    with ScriptedServer(answer) as leaving:
        done = run(leaving.url, "--rate", "20,30,40", "--duration", "0.5", "--json", "-")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("python -m loadtests: step 30: no connection to")
    assert "step 3" not in done.stderr.replace("step 30:", "")
    content = json.loads(done.stdout)
    assert [step["name"] for step in content["steps"]] == ["20"]
    assert content["interrupted"] is True


def test_a_killed_command_takes_its_generator_with_it_and_the_samples_stay(
    server: ScriptedServer, tmp_path: Path
) -> None:
    with start(server.url, tmp_path) as command:
        assert command.stderr is not None
        await_answers(command.stderr)
        command.kill()
        command.stderr.read()  # ends when the last process that holds it has ended
    facts = json.loads((tmp_path / "samples.json").read_text())["generator"]
    assert facts["interrupted"] is True


def first_cause(done: subprocess.CompletedProcess[str], file: Path) -> str:
    """But for what the hypervisor takes, which is named before all others and no doing of the test."""
    assert done.returncode == 3, done.stdout + done.stderr
    reasons: list[str] = json.loads(file.read_text())["invalid_because"]
    return next(reason for reason in reasons if not reason.startswith("the hypervisor took"))


@pytest.mark.alone  # a busy machine would make it INVALID
def test_somebody_else_at_the_server_makes_the_run_invalid(server: ScriptedServer, tmp_path: Path) -> None:
    file = tmp_path / "summary.json"
    with socket.create_connection(("127.0.0.1", server.port)) as stranger:
        command = subprocess.Popen(
            [*COMMAND, server.url, "--rate", "20", "--duration", "1.5", "--json", file],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert command.stderr is not None
        command.stderr.readline()  # the first line of progress: it has looked
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
        stranger.recv(1000)
        out, err = command.communicate(timeout=60)
    done = subprocess.CompletedProcess(command.args, command.returncode, out, err)
    assert first_cause(done, file).startswith("other clients used the server: 1 of its connections")


@pytest.fixture
def spinner() -> Iterator[int]:
    """The pid of a process that never rests; no child of ours, for those would pass for the server's."""
    spin = "import os\nif os.fork(): os._exit(0)\nprint(os.getpid(), flush=True)\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", spin], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        try:
            yield pid
        finally:
            os.kill(pid, signal.SIGKILL)


@pytest.mark.alone  # a busy machine would make it INVALID
def test_a_spinner_on_the_generators_core_is_named_first(
    server: ScriptedServer, spinner: int, tmp_path: Path
) -> None:
    file = tmp_path / "summary.json"
    core = str(min(os.sched_getaffinity(0)))
    os.sched_setaffinity(spinner, {int(core)})
    flags = [server.url, "--rate", "50", "--duration", "1.5", "--json", str(file)]
    command = [word for word in COMMAND if word != "--shared-machine"]
    done = subprocess.run(
        ["taskset", "-c", core, *command, *flags],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert first_cause(done, file).startswith("other processes of this machine used")
