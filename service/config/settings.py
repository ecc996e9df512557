"""What can be set: one frozen, validated object.

Knows names, units, defaults, bounds and the words that stand for values. Reads neither argv nor the
environment nor a file: sources.py does, so a test or an embedding program builds the same object directly.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
Positive = Annotated[int, Field(ge=1, le=2**31 - 1)]


@dataclass(frozen=True)
class Word:
    """What is typed, and shown, for a value that no number says."""

    text: str
    value: float | None


NONE = Word("none", None)
SecondsOrOff = Annotated[float, Word("off", math.inf), Field(gt=0)]
"""A bound in seconds; "off" is infinity: there is none."""


def cores() -> int:
    """Cores this process may run on (an affinity mask or cpuset counts, a quota does not)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


CORES = cores()

HOST = r"^[^\s/]+$"  # whatever a resolver may know, but no URL
FUNCTION = r"^[\w.]+:\w+$"
SHAPES = {HOST: "a name or an address", FUNCTION: "package.module:function"}
"""What a pattern says, in words."""


class Settings(BaseModel):
    """Everything that can be set. Each description is the help text of its flag."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field("127.0.0.1", pattern=HOST, description="address to serve on; IPv6 too")
    port: Port = Field(8080, description="port to serve on; 0 picks a free one")
    fd: Annotated[int, Field(ge=3)] | None = Field(
        None,
        description="descriptor of a listening socket that was handed over, instead of --host and --port; "
        "systemd's LISTEN_FDS does the same",
    )
    admin_host: str = Field(
        "127.0.0.1", pattern=HOST, description="address of /metrics, /healthz and /readyz"
    )
    admin_port: Port = Field(8081, description="port of the admin endpoint; 0 picks a free one")
    offload: Literal["inline", "thread", "process", "executor"] = Field(
        "process",
        description="where the work runs: on the loop, in threads, in processes that we keep, in a "
        "ProcessPoolExecutor as it comes",
    )
    workers: int = Field(CORES, ge=1, le=1024, description="tasks that may run at the same time")
    worker_nice: int = Field(
        10, ge=0, le=19, description="added to the niceness of worker processes, so that IO stays responsive"
    )
    work: str = Field(
        "service.work:data",
        pattern=FUNCTION,
        description="package.module:function for /data; its arguments come from the query, but for units; it "
        "returns JSON as bytes or str, or what can be JSON",
    )
    app: str | None = Field(
        None,
        pattern=FUNCTION,
        description="package.module:factory that takes the offload and returns an aiohttp Application; it is "
        "served instead of /data",
    )
    work_ms: float = Field(
        4.0, gt=0, le=60_000, description="milliseconds of CPU per request; the units are calibrated at start"
    )
    work_units: Annotated[Positive | None, Word("calibrated", None)] = Field(
        None, description="units of work per request; overrides --work-ms and skips the calibration"
    )
    queue_wait: SecondsOrOff = Field(
        0.2,
        description="seconds that a request may be expected to wait for a worker; longer is answered 503 "
        "with Retry-After. off: the queue has no bound",
    )
    deadline: SecondsOrOff = Field(
        10.0,
        description="seconds in which a request must be answered, else 504 and its worker is replaced; a "
        "request's own Request-Timeout may be shorter. off: none. An executor's worker stays until its task "
        "ends",
    )
    task_attempts: int = Field(
        2,
        ge=1,
        le=10,
        description="times a task is tried if its worker dies; 1 for work that must not run twice",
    )
    worker_max_tasks: Positive | None = Field(
        None, description="tasks after which a worker is replaced by a fresh one; not for an executor"
    )
    worker_max_memory: Positive | None = Field(
        None,
        description="MiB; a worker that has ever used more is replaced after its task; not for an executor",
    )
    backlog: Positive = Field(1024, description="connections the kernel may queue before they are accepted")
    accept_batch: Positive = Field(64, description="most connections accepted in one turn of the event loop")
    max_connections: Annotated[Positive | None, Word("derived", None)] = Field(
        None,
        description="connections held at the same time; more wait in the kernel's queue. derived: what the "
        "limit on open files allows, at most 10000",
    )
    header_timeout: Seconds = Field(
        10.0,
        description="seconds from accept (with TLS: from the handshake), or from a request's first byte, to "
        "complete headers; then 408",
    )
    body_timeout: Seconds = Field(
        20.0,
        description="seconds in which a body that a handler waits for must advance by 500 bytes each; else "
        "408",
    )
    write_timeout: Seconds = Field(
        20.0, description="seconds in which a client must read 500 bytes each of an answer; else it is reset"
    )
    idle_timeout: Seconds = Field(
        75.0, description="seconds between two requests; longer than a balancer's 60, so that it closes first"
    )
    tls_cert: Path | None = Field(None, description="certificate and its chain, PEM; makes this https")
    tls_key: Path | None = Field(None, validate_default=True, description="private key of --tls-cert, PEM")
    tls_client_ca: Path | None = Field(
        None, description="CA certificates, PEM; clients must then show a certificate one of them has signed"
    )
    tls_handshake_timeout: Seconds = Field(
        10.0, description="seconds from accept to the end of the handshake"
    )
    drain_notice: float = Field(
        0.0,
        ge=0,
        le=86_400,
        allow_inf_nan=False,
        description="seconds after SIGTERM in which it serves on but is not ready, so that balancers look "
        "elsewhere before it stops accepting",
    )
    drain_timeout: float = Field(
        10.0,
        ge=0,
        allow_inf_nan=False,
        description="seconds that running requests may take to finish once it has stopped accepting",
    )
    loop_stall: Seconds = Field(
        5.0,
        description="seconds without a turn of the event loop after which the admin port's /healthz is 503",
    )
    request_log: float = Field(
        0.0, ge=0, le=1, description="share of the requests that are logged: 0 none, 1 all"
    )
    loop: Literal["uvloop", "asyncio"] = Field("uvloop", description="event loop")
    log_format: Literal["auto", "text", "json"] = Field(
        "auto", description="auto is text on a terminal and JSON elsewhere"
    )

    @field_validator("*", mode="before")
    @classmethod
    def _as_typed(cls, value: Any, about: ValidationInfo) -> Any:
        if value == "":
            raise ValueError("must not be empty")
        if isinstance(value, bool):  # TOML has them, and pydantic would read 1 and 0
            raise ValueError(f"must not be {str(value).lower()}: no setting is a switch")  # noqa: TRY004  # pydantic takes no TypeError
        word = word_of(str(about.field_name))
        return word.value if word is not None and value == word.text else value

    # Rules over several settings belong to the one that comes last, so that they are told together with
    # whatever else is wrong. One that came before and is itself wrong is not in `data`: it was given.

    @field_validator("worker_max_tasks", "worker_max_memory")
    @classmethod
    def _can_be_recycled(cls, most: int | None, about: ValidationInfo) -> int | None:
        # What workers of an executor have served cannot be told apart, and none can be replaced alone.
        if most is not None and about.data.get("offload") == "executor":
            raise ValueError(
                "cannot be had with --offload executor, whose workers are not replaced one by one"
            )
        return most

    @field_validator("tls_key")
    @classmethod
    def _comes_with_its_certificate(cls, key: Path | None, about: ValidationInfo) -> Path | None:
        if (key is None) != (about.data.get("tls_cert", True) is None):
            raise ValueError("must be given together with --tls-cert")
        return key

    @field_validator("tls_client_ca")
    @classmethod
    def _needs_tls(cls, client_ca: Path | None, about: ValidationInfo) -> Path | None:
        if client_ca is not None and about.data.get("tls_cert", True) is None:
            raise ValueError("needs --tls-cert and --tls-key")
        return client_ca


def word_of(name: str) -> Word | None:
    """The word that may be typed for a setting, if there is one."""
    field = Settings.model_fields[name]
    own = (item for item in field.metadata if isinstance(item, Word))
    return next(own, NONE if field.default is None else None)


def shown(name: str, value: Any) -> str:
    """A value as it is typed."""
    word = word_of(name)
    if word is not None and value == word.value:
        return word.text
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)


def shown_default(name: str) -> str:
    """What happens if a setting is not given."""
    return "the cores" if name == "workers" else shown(name, Settings.model_fields[name].default)
