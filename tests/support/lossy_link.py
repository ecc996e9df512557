"""A link with delay and loss between two network namespaces, for kernels with and without `tc netem`.

Two TUN devices (https://docs.kernel.org/networking/tuntap.html), one in each namespace, and a thread that
carries every packet from one to the other: later, or never. What is lost is drawn from a seed. Needs to run
in a network namespace of its own with the rights of its root: `unshare -Urn`.
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import os
import random
import select
import socket
import struct
import subprocess
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Final

CLONE_NEWNET: Final = 0x40000000
TUNSETIFF: Final = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x1, 0x1000
HERE, THERE = "10.99.0.1", "10.99.0.2"
MOST_BYTES: Final = 65536


class LossyLink:
    """Up within `with`: this namespace is `HERE`, and what runs behind `prefix` is `THERE`.

    Args:
        delay_seconds: of each packet, each way.
        loss: share of packets that do not arrive, each way.
    """

    def __init__(self, delay_seconds: float, loss: float, seed: int = 1) -> None:
        self._delay = delay_seconds
        self._loss = loss
        self._chance = random.Random(seed)
        self._end, self._ends = os.pipe()
        self.carried = self.lost = 0

    def __enter__(self) -> LossyLink:
        self._here, self._there = _tun("tun0"), _tun("tun1")
        self._namespace = subprocess.Popen(["unshare", "-n", "sleep", "600"])
        self.prefix = ["nsenter", "-t", str(self._namespace.pid), "-n"]
        own = Path("/proc/self/ns/net").readlink()
        while Path(f"/proc/{self._namespace.pid}/ns/net").readlink() == own:  # it has not come so far yet
            time.sleep(0.001)
        _ip("link", "set", "tun1", "netns", str(self._namespace.pid))
        for prefix, name, address in (([], "tun0", HERE), (self.prefix, "tun1", THERE)):
            _ip("link", "set", "lo", "up", prefix=prefix)
            _ip("addr", "add", f"{address}/24", "dev", name, prefix=prefix)
            _ip("link", "set", name, "up", prefix=prefix)
        self._thread = threading.Thread(target=self._carry)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.write(self._ends, b".")
        self._thread.join()
        self._namespace.kill()
        self._namespace.wait()
        for descriptor in (self._here, self._there, self._end, self._ends):
            os.close(descriptor)

    def listener(self) -> socket.socket:
        """A listening socket in the other namespace: a socket stays in the one in which it was made."""
        made: list[socket.socket] = []

        def make() -> None:  # setns(2) moves one thread, and this one ends
            with Path(f"/proc/{self._namespace.pid}/ns/net").open() as there:
                assert ctypes.CDLL(None, use_errno=True).setns(there.fileno(), CLONE_NEWNET) == 0
            made.append(socket.create_server((THERE, 0), backlog=1024))

        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        return made[0]

    def _carry(self) -> None:
        other = {self._here: self._there, self._there: self._here}
        under_way: list[tuple[float, int, int, bytes]] = []
        while True:
            wait = max(under_way[0][0] - time.monotonic(), 0.0) if under_way else None
            readable, _, _ = select.select([*other, self._end], [], [], wait)
            if self._end in readable:
                return
            for source in readable:
                packet = os.read(source, MOST_BYTES)
                if self._chance.random() < self._loss:
                    self.lost += 1
                else:
                    self.carried += 1
                    heapq.heappush(
                        under_way, (time.monotonic() + self._delay, self.carried, other[source], packet)
                    )
            while under_way and under_way[0][0] <= time.monotonic():
                _, _, target, packet = heapq.heappop(under_way)
                os.write(target, packet)


def _tun(name: str) -> int:
    descriptor = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    return descriptor


def _ip(*words: str, prefix: list[str] | None = None) -> None:
    subprocess.run([*(prefix or []), "ip", *words], check=True, timeout=10)
