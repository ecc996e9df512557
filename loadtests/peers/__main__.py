"""Serves one of the designs: `python -m loadtests.peers DESIGN PORT WORK UNITS WORKERS [PROGRAM]`.

Imports what a design needs when it runs: anyio and loky load this file in each worker that they start.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aiohttp import web

AS_IT_COMES = ("pool", "inline")
"""With aiohttp's default: a handler goes on when its client has left."""


def main(design: str, port: int, name: str, units: int, workers: int, *program: str) -> None:
    """Serve until a signal arrives."""
    if design == "gunicorn":  # "(2 x cores) + 1" workers: gunicorn's documentation, "How Many Workers?"
        application = f"loadtests.peers.designs:wsgi({name!r},{units})"
        command = ["gunicorn", "--workers", str(2 * workers + 1), "--bind", f"127.0.0.1:{port}", application]
        os.execv(sys.executable, [sys.executable, "-m", *command])
    from loadtests.peers import designs
    from loadtests.peers.plan import IN_RUST, REFERENCE

    work = designs.work_of(name)
    if design in IN_RUST:
        from loadtests.peers import cargo

        (built,) = program
        numbers = [units, cargo.rounds(built, work, units), port, workers]
        numbers += [designs.MOST_IN_FLIGHT] if design == REFERENCE else []
        os.execv(built, [built, "serve", *map(str, numbers)])
    if design == "fastapi":
        import uvicorn  # in an extra of its own; takes a second that the other designs should not wait

        uvicorn.run(designs.fastapi(work, units), port=port, log_level="warning", access_log=False)
        return
    import uvloop
    from aiohttp import web

    builders: dict[str, Callable[[], web.Application]] = {
        "inline": lambda: designs.inline(work, units),
        "pool": lambda: designs.pool(work, units, workers),
        "bounded": lambda: designs.bounded(work, units, workers),
        "loky": lambda: designs.loky(work, units, workers),
        "anyio": lambda: designs.anyio(work, units, workers, most_64=False),
        "anyio-bounded": lambda: designs.anyio(work, units, workers, most_64=True),
    }
    web.run_app(
        builders[design](),
        host="127.0.0.1",
        port=port,
        access_log=None,
        handler_cancellation=design not in AS_IT_COMES,
        loop=uvloop.new_event_loop(),
        print=None,
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5]), *sys.argv[6:])
