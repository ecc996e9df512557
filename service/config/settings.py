"""What can be set: one frozen, validated object.

Knows names, units and defaults; the types are in types.py. Reads neither argv nor the environment nor a file:
sources.py does, so that a test or an embedding program can build the same object directly.
"""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from service.config.types import (
    CORES,
    FUNCTION,
    HOST,
    NONE,
    Keyword,
    Networks,
    PerClient,
    Port,
    Positive,
    RouteUrgencies,
    RouteUrgency,
    Seconds,
    SecondsOrOff,
)


class Settings(BaseModel):
    """Everything that can be set. Each description is the help text of its flag."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field(
        "127.0.0.1", pattern=HOST, description="Host name or address to serve on, IPv4 or IPv6."
    )
    port: Port = Field(8080, description="Port to serve on; 0 picks a free one.")
    fd: Annotated[int, Field(ge=3)] | None = Field(
        None,
        description="Serve the listening socket that this process has inherited as this file descriptor, "
        "instead of binding --host and --port. A socket from systemd (LISTEN_FDS) needs no flag.",
    )
    admin_host: str = Field(
        "127.0.0.1",
        pattern=HOST,
        description="Host name or address of the admin endpoint: /metrics, /healthz and /readyz.",
    )
    admin_port: Port = Field(8081, description="Port of the admin endpoint; 0 picks a free one.")
    offload: Literal["inline", "thread", "process", "executor"] = Field(
        "process",
        description="Where tasks run: on the event loop (inline), in threads, in processes of the service's "
        "own pool, or in an executor, Python's ProcessPoolExecutor or another (see --executor).",
    )
    executor: str | None = Field(
        None,
        pattern=FUNCTION,
        description="Function that makes the executor of --offload executor, as package.module:function. It "
        "takes no arguments, returns any concurrent.futures.Executor, and is called again when that breaks; "
        "--workers says how many tasks the executor runs at once.",
    )
    workers: int = Field(
        CORES, ge=1, le=1024, description="Number of workers; each runs one task at a time. inline has one."
    )
    worker_nice: int = Field(
        10,
        ge=0,
        le=19,
        description="Added to the niceness of worker processes, so that the event loop gets the CPU first. "
        "Those of --executor have their own.",
    )
    work: str = Field(
        "service.work:data",
        pattern=FUNCTION,
        description="Function that /data runs, as package.module:function. Its arguments come from the "
        "query, except units (see --work-units). It returns JSON as bytes or str, or a value to encode as "
        "JSON. If its worker dies it is called once more: see --task-attempts.",
    )
    app: str | None = Field(
        None,
        pattern=FUNCTION,
        description="Function that makes the application to serve instead of /data, as "
        "package.module:function. It takes the offload and returns an aiohttp Application.",
    )
    work_ms: float = Field(
        4.0,
        gt=0,
        le=60_000,
        description="CPU time per request in milliseconds. The service measures at start how many units of "
        "work take so long.",
    )
    work_units: Annotated[Positive | None, Keyword("calibrated", None)] = Field(
        None, description="Units of work per request. Overrides --work-ms and skips its measurement."
    )
    queue_wait: SecondsOrOff = Field(
        0.2,
        description="Seconds that a request may be expected to wait for a worker, with its wait in the "
        "kernel's accept queue. One with a longer expected wait gets 503 with Retry-After. While less "
        "urgent ones are served, it may be three times as long. off: only --deadline bounds the wait.",
    )
    deadline: SecondsOrOff = Field(
        10.0,
        description="Seconds in which a request's task must end, waiting included. After that it gets 504, "
        "and its worker is replaced (in an executor: kept until the task ends). Its Request-Timeout header, "
        "or Envoy's x-envoy-expected-rq-timeout-ms, may ask for an earlier 504; see --trusted-peers. off: no "
        "deadline.",
    )
    trusted_peers: Networks = Field(
        (),
        description="Networks of clients that are trusted, such as 10.0.0.0/8,::1. What counts is the "
        "address at the other end of the connection. Only their own deadlines (see --deadline) end a worker.",
    )
    route_urgency: RouteUrgencies = Field(
        (),
        description="Urgency of the requests of a route, such as /data=1,/report/{id}=5. 0 is served first, "
        "7 last; other routes have 3. Under overload the least urgent are refused first.",
    )
    trust_priority: Networks = Field(
        (),
        description="Networks of clients, such as 10.0.0.0/8,::1, whose Priority header (RFC 9218, u=0 to "
        "u=7) counts, before --route-urgency. As with --trusted-peers the address at the other end of the "
        "connection decides.",
    )
    client_share: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Most that one client (an IPv4 address, or an IPv6 /64) may have of the tasks that may "
        "wait, in each urgency; one at least. A further request gets 503. 1: no bound, for a service whose "
        "clients come through a balancer.",
    )
    task_attempts: int = Field(
        2,
        ge=1,
        le=10,
        description="How often a task is tried, at most, if its worker dies. 1 for work that must not run "
        "twice.",
    )
    worker_max_tasks: Positive | None = Field(
        None, description="Replace a worker after this many tasks. Not with --offload executor."
    )
    worker_max_memory: Positive | None = Field(
        None,
        description="Replace a worker process after its task if its memory has ever exceeded this many MiB. "
        "Only with --offload process.",
    )
    max_result: Positive = Field(
        16,
        description="Most MiB that a task's pickled result may have. For a larger one the request gets 500, "
        "and the worker stays. Only with worker processes.",
    )
    max_queue_bytes: Annotated[int, Field(ge=1)] = Field(
        256 * 2**20,
        description="Most bytes of arguments and results of requests that are not answered, pickled. A "
        "request above that gets 503. Only with worker processes.",
    )
    backlog: Positive = Field(
        1024, description="Connections that may wait in the kernel's accept queue until they are accepted."
    )
    accept_batch: Positive = Field(
        64, description="Most connections to accept in one turn of the event loop."
    )
    max_connections: Annotated[Positive | None, Keyword("derived", None)] = Field(
        None,
        description="Most connections to hold at the same time; further ones wait in the kernel's accept "
        "queue. derived: as many as the limit on open files allows, at most 10000.",
    )
    max_connections_per_client: PerClient = Field(
        None,
        description="Most connections of one client (an IPv4 address, or an IPv6 /64); further ones are "
        "closed at once. derived: half of --max-connections, and no limit for loopback. off: no limit, for a "
        "service whose only client is a balancer.",
    )
    header_timeout: Seconds = Field(
        10.0,
        description="Seconds that a client may take to send a request's complete head, counted from accept "
        "(with TLS from the end of the handshake) or from the request's first byte. After that it gets 408.",
    )
    body_timeout: Seconds = Field(
        20.0,
        description="A request's body must average 500 B/s over each window of this many seconds while the "
        "service reads it; else the client gets 408.",
    )
    receive_timeout: Seconds = Field(
        60.0,
        description="Seconds that a client may take to send a whole request, head and body, while the "
        "service reads it. After that it gets 408.",
    )
    write_timeout: Seconds = Field(
        20.0,
        description="A client must read a response at an average of 500 B/s over each window of this many "
        "seconds; else its connection is reset.",
    )
    idle_timeout: Seconds = Field(
        75.0,
        description="Seconds that a connection may be idle between two requests before it is closed. Longer "
        "than the usual 60 of a load balancer, so that the balancer closes first.",
    )
    tls_cert: Path | None = Field(
        None, description="PEM file of the certificate and its chain. Makes this HTTPS; needs --tls-key."
    )
    tls_key: Path | None = Field(
        None, validate_default=True, description="PEM file of the private key of --tls-cert."
    )
    tls_client_ca: Path | None = Field(
        None,
        description="PEM file of CA certificates. Clients must present a certificate that one of them has "
        "signed.",
    )
    tls_handshake_timeout: Seconds = Field(
        10.0, description="Seconds that a client may take from accept to the end of the TLS handshake."
    )
    drain_notice: float = Field(
        0.0,
        ge=0,
        le=86_400,
        allow_inf_nan=False,
        description="Seconds after SIGTERM in which the service still accepts and answers but is no longer "
        "ready, so that load balancers send new clients elsewhere.",
    )
    drain_timeout: float = Field(
        10.0,
        ge=0,
        allow_inf_nan=False,
        description="Seconds that running requests may take to finish once the service stops accepting. The "
        "rest is cut off, and the exit code is 1.",
    )
    loop_stall: Seconds = Field(
        5.0,
        description="Seconds without a turn of the event loop after which /healthz and /readyz of the admin "
        "endpoint answer 503.",
    )
    request_log: float = Field(
        0.0, ge=0, le=1, description="Share of requests to log, from 0 (none) to 1 (all)."
    )
    loop: Literal["uvloop", "asyncio"] = Field("uvloop", description="Which event loop to run on.")
    log_format: Literal["auto", "text", "json"] = Field(
        "auto", description="Format of the log. auto: text on a terminal, JSON lines elsewhere."
    )

    # Of two validators before the type, the one that is defined last runs first: keywords are known by now.
    @field_validator("trusted_peers", "trust_priority", mode="before")
    @classmethod
    def _as_networks(cls, value: Any) -> Any:
        try:
            return tuple(ip_network(one) for one in _listed(value))
        except ValueError as error:  # it says what is wrong with which
            raise ValueError(f"must be networks with commas between them or none: {error}") from error

    @field_validator("route_urgency", mode="before")
    @classmethod
    def _as_urgencies(cls, value: Any) -> Any:
        read = tuple(RouteUrgency.read(one) for one in _listed(value))
        twice = [one.route for one in read if sum(one.route == other.route for other in read) > 1]
        if twice:
            raise ValueError(f"must name a route once, not twice: {twice[0]}")
        return read

    @field_validator("*", mode="before")
    @classmethod
    def _as_typed(cls, value: Any, about: ValidationInfo) -> Any:
        if value == "":
            raise ValueError("must not be empty")
        if isinstance(value, bool):  # TOML has them, and pydantic would read 1 and 0
            raise ValueError(f"must not be {str(value).lower()}: no setting is a switch")  # noqa: TRY004  # pydantic takes no TypeError
        named = {keyword.text: keyword.value for keyword in keywords_of(str(about.field_name))}
        return named.get(value, value) if isinstance(value, str) else value

    # A rule over several settings is a validator of the last of them, so that it is reported together with
    # all other errors. A setting that came before and is itself wrong is missing in `data`: it was given.

    @field_validator("executor")
    @classmethod
    def _is_for_an_executor(cls, executor: str | None, about: ValidationInfo) -> str | None:
        if executor is not None and about.data.get("offload", "executor") != "executor":
            raise ValueError("needs --offload executor")
        return executor

    @field_validator("worker_max_tasks", "worker_max_memory")
    @classmethod
    def _can_be_recycled(cls, most: int | None, about: ValidationInfo) -> int | None:
        # An executor does not say which worker ran a task, and cannot replace one alone.
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


def _listed(value: Any) -> list[str]:
    """What is typed with commas, or is a list in TOML."""
    return [str(one).strip() for one in (value if isinstance(value, list | tuple) else str(value).split(","))]


def keywords_of(name: str) -> tuple[Keyword, ...]:
    """The keywords of the setting `name`."""
    field = Settings.model_fields[name]
    own = tuple(item for item in field.metadata if isinstance(item, Keyword))
    return own or ((NONE,) if field.default is None else ())


def shown(name: str, value: Any) -> str:
    """A value of the setting `name` as an operator types it."""
    for keyword in keywords_of(name):
        if value == keyword.value:
            return keyword.text
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)


def shown_default(name: str) -> str:
    """The default of the setting `name` as --help and the docs show it."""
    return "the cores" if name == "workers" else shown(name, Settings.model_fields[name].default)
