"""The chassis: an async HTTP service that keeps CPU-bound work off its event loop.

The path of one connection, and the module that owns each step:

    kernel accept queue
      -> net/connection_limit.py   a permit to hold one connection, taken before it is accepted
      -> net/accept_loop.py        takes it from the queue; what a failed accept means: net/accept_errors.py,
                                   and what follows when the machine is short of descriptors: net/shortage.py
      -> web/connection.py         counts it at once: one record, from accept to its end; TLS
      -> web/early_reject.py       a whole request that cannot be admitted is refused here and now
      -> web/protocol.py           HTTP by aiohttp; what happens is an event of web/exchange.py, the
                                   table of states; what a client must do, and by when: web/deadlines.py
      -> app/middleware.py         gives the request its name (web/identity.py), answers every failure
      -> app/data.py               a handler; the query becomes the arguments of the work: app/query.py
      -> app/offloader.py          what handlers call
      -> offload/offload.py        makes it a task, and returns its result or raises one of errors.py
      -> offload/admission.py      admits only what can be answered in time
      -> offload/queue.py          the tasks: order, deadlines, attempts and outcomes
      -> offload/lane_pool.py      all workers, and where the task goes; the interface: pool.py
      -> offload/lane.py           one worker and the channel to it: inline, a thread, or process_lane.py
      -> offload/worker_main.py    the worker's side: runs tasks, reports what became of them
      -> work.py                   the CPU-bound function itself
      -> web/request_log.py        the answer is written, and logged if this request is to be
      -> web/connection.py         the connection ends: counted as completed, once

Around it:

    config/     settings.py: what can be set; types.py: numbers with bounds, words for them; sources.py:
                flags, environment and file become settings
    log/        setup.py: what log lines look like; rate_limit.py: how many go out; output.py writes them, and
                nobody waits for it
    lifecycle/  process.py prepares the process, run.py goes from start to exit code, service.py is one
                service from start to stop, parts.py puts its parts together, stopping.py stops them,
                states.py is its life as a table, control.py is what an operator orders, loop_monitor.py:
                does the loop turn? init.py: process 1 of a container; terminal.py: was it closed?
    offload/    strategies.py: which pool each --offload means; executor_pool.py: workers that are not lanes,
                stock_executor.py: those as they come, any_executor.py: any that a factory makes;
                engines.py: factories for loky and Dask;
                supervised_pool.py: workers that die are replaced;
                fork_server.py: where worker processes come from, and what if it does not answer;
                quarantine.py: a call that kills them is not run for a while; task.py: one call on its way;
                classes.py: which of them wait, the most urgent first; room.py: is there room for more?
                outcomes.py: tells callers what became of it; unpickling.py: large results, in turns;
                forkserver_signals.py: a fork server that survives signals to the whole group
    net/        client_limit.py: how many connections one client may hold; refusing.py: what changes at the
                front door while requests are refused; listener.py: opened or handed over; addresses.py: as
                an operator reads them; tcp.py: what the kernel knows; tls.py: certificates
    web/        supervisor.py: all connections, their deadlines, eviction; drain.py: ends them in order;
                driver.py: carries out what exchange.py says; pipeline.py: where a request begins;
                priority.py: how urgent a request is;
                responses.py: those written without aiohttp; conformance.py: versions, hosts, codings that
                aiohttp lets pass
    app/        loading.py: the work, application, executor and certificates that the settings name;
                openapi.py: describes GET /data
    multi/      several IO processes under gunicorn: io_process.py, shares.py: what each gets; starts.py: what
                becomes of one that cannot start; siblings.py: when one may leave it to the others;
                exporter.py: the metrics of all, exporter_process.py: how the arbiter looks after it
    top         __main__.py: argv, environment, signals; command.py: arguments in, exit code out;
                gunicorn_conf.py: the arbiter's configuration; loops.py: which event loop;
                background.py: a daemon thread to wait on; folder.py: a folder that goes with its last user
"""

__version__ = "0.1.0"
