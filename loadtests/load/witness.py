"""Observes what else uses machine and server during a run.

Knows how to find the server among the processes of this machine, and its other clients. Reads /proc: when a
run begins, once a second, and when it ends. Never judges.

What other clients do to the server looks like the server's own behaviour; what other processes do to the
machine looks like the server's or the generator's.
"""

import contextlib
import ipaddress
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, Final, Self

import psutil

from loadtests.load.port_state import clients_of, listening
from loadtests.load.surroundings import Surroundings
from loadtests.neighbours import Neighbours, busiest, cpu_by_process, effective_cores, shares

INTERVAL_SECONDS: Final = 1.0


class Witness:
    """A context manager around a run; call `look` with every line of its progress.

    `address`: of the server, as socket.connect takes it. `server_names`: names of processes that belong to
    it, besides those that listen there and those below them: a server behind a proxy, a database.
    """

    def __init__(self, address: Any, server_names: Collection[str] = ()) -> None:
        host, self._port = address[:2]
        self._local = _is_here(host)
        self._server = listeners(self._port) | named(server_names) if self._local else set()
        self._seen: set[int] = set()
        self._next = 0.0

    def __enter__(self) -> Self:
        """Take the first reading."""
        self._neighbours = Neighbours(also=self._server)
        self._cpu_before = cpu_by_process()
        self._before = self._neighbours.read()
        return self

    def __exit__(self, *_: object) -> None:
        """Take the last reading."""
        self._after = self._neighbours.read()
        self._cpu_after = cpu_by_process()

    def look(self, elapsed_seconds: float) -> None:
        """Note the server's connections, at most once a second; the first look also finds the generator.

        `elapsed_seconds`: since the run began, as its progress says.
        """
        if elapsed_seconds < self._next:
            return
        if not self._next:
            self._neighbours.refresh()
        self._next = elapsed_seconds + INTERVAL_SECONDS
        if self._local:
            self._seen |= clients_of(self._port)

    def surroundings(self, ours: Iterable[int | None], *, shared_machine: bool = False) -> Surroundings:
        """What was observed. `ours`: the local ports of all requests."""
        found = shares(self._before, self._after, effective_cores())
        # If the server is on this machine and its process is not known, its CPU time would count as that of
        # other processes.
        known = bool(self._server) or not self._local
        strangers = set(self._cpu_after) - self._neighbours.pids
        return Surroundings(
            stolen=found.stolen,
            throttled=found.throttled,
            others=found.others if known else 0.0,
            idle_cores=found.idle_cores,
            busiest_other=busiest(self._cpu_before, self._cpu_after, strangers),
            foreign_connections=len(self._seen.difference(port for port in ours if port is not None)),
            shared_machine=shared_machine,
        )


def listeners(port: int) -> set[int]:
    """Processes that listen on a TCP port of this machine; those of other users are visible to root only."""
    if inodes := listening(port):
        return {pid for pid in psutil.pids() if inodes & _sockets_of(pid)}
    with contextlib.suppress(psutil.Error, OSError):  # where the kernel cannot be asked for them alone
        return {
            found.pid
            for found in psutil.net_connections("tcp")
            if found.status == psutil.CONN_LISTEN and found.laddr.port == port and found.pid is not None
        }
    return set()


def named(names: Collection[str]) -> set[int]:
    """Processes of this machine with one of these names."""
    if not names:
        return set()
    return {found.pid for found in psutil.process_iter(["name"]) if found.info["name"] in names}


def _sockets_of(pid: int) -> set[int]:
    """The inodes of a process's sockets (proc(5)): its descriptors are links to `socket:[4711]`."""
    found = set()
    with contextlib.suppress(OSError):  # gone, or another user's
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):  # closed meanwhile
                kind, _, inode = str(descriptor.readlink()).partition(":")
                if kind == "socket":
                    found.add(int(inode.strip("[]")))
    return found


def _is_here(host: str) -> bool:
    """Whether an address is one of this machine's."""
    address = ipaddress.ip_address(host.partition("%")[0])
    here = {
        ipaddress.ip_address(one.address.partition("%")[0])
        for addresses in psutil.net_if_addrs().values()
        for one in addresses
        if one.family.name in ("AF_INET", "AF_INET6")
    }
    return address.is_loopback or address in here
