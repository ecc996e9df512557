"""The chassis: an async HTTP service that keeps CPU-bound work off its event loop.

The path of one connection, and the module that owns each step:

    kernel accept queue
      -> net/connection_limit.py   a permit to hold one connection, taken before it is accepted
      -> net/accept_loop.py        takes it from the queue; what a failed accept means: net/accept_errors.py
      -> web/connection.py         counts it at once: one record, from accept to its end; TLS
      -> web/early_reject.py       a whole request that cannot be admitted is refused here and now
      -> web/protocol.py           HTTP, with a deadline for whatever the client must do: web/deadlines.py
      -> app/middleware.py         gives the request its name (web/identity.py), answers every failure
      -> app/data.py               a handler; the query becomes the arguments of the work: app/query.py
      -> app/offloader.py          what handlers call
      -> offload/admission.py      who may enter: only what can be answered in time
      -> offload/queue.py          the queue, deadlines, retries and outcomes
      -> offload/pool.py           workers: start, replacement, end; lane_pool.py, executor_pool.py
      -> offload/lane.py           one worker: inline, a thread or a process; all at once: stock_executor.py
      -> offload/worker_main.py    the worker's side: runs tasks, says what became of them
      -> work.py                   the CPU-bound function itself
      -> web/request_log.py        the answer is written, and logged if this request is to be
      -> web/connection.py         the connection ends: counted as completed, once

Around it:

    config/     settings.py: what can be set; sources.py: flags, environment and file become settings
    log/        setup.py: what log lines look like; rate_limit.py: how many go out
    lifecycle/  process.py prepares the process, run.py goes from start to exit code, service.py is one
                service from start to stop, parts.py puts its parts together, stopping.py stops them,
                states.py is its life as a table, control.py is what an operator orders, loop_monitor.py:
                does the loop turn?
    offload/    forkserver_signals.py: a fork server that signals to the whole group do not end
    net/        listener.py: opened or handed over; addresses.py: as an operator reads them; tcp.py: what
                the kernel knows; tls.py: certificates
    web/        drain.py: ends the connections in order
    app/        loading.py: the work, the application and the certificates that the settings name
    multi/      several IO processes under gunicorn: io_process.py, shares.py (what each gets), exporter.py
    top         __main__.py: argv, environment, signals; command.py: arguments in, exit code out;
                gunicorn_conf.py: the arbiter's configuration; loops.py: which event loop;
                background.py: a daemon thread to wait on
"""

__version__ = "0.1.0"
