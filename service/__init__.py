"""The chassis: an async HTTP service that keeps CPU-bound work off its event loop.

The path of one connection, and the file that owns each step:

    kernel accept queue
      -> tokens.py      the right to hold one connection, taken before it is accepted
      -> accept.py      takes it from the queue, tells errors from shortages (fates.py)
      -> connection.py  counts it at once: one record, from accept to its end; TLS, and the hand-over to
      -> refusal.py     a whole request that cannot be admitted is refused here and now
      -> protocol.py    HTTP, with a deadline for whatever the client must do (deadlines.py)
      -> identity.py    the request gets a name, which every line logged for it bears
      -> app.py         routes and handlers; what a client is told when something fails
      -> binding.py     the query becomes the arguments of the work
      -> admission.py   who may enter: only what can be answered in time
      -> offload.py     the queue, deadlines, retries and outcomes
      -> crew.py        what all kinds of workers have in common: start, replacement, end
      -> workers.py     workers that are lanes: which are up, and what each has
      -> lane.py        one worker: inline, a thread or a process
      or executor_pool.py  workers behind an executor, a pool that lives and dies as one (stock_pool.py)
      -> runner.py      the worker's side: runs tasks, says what became of them
      -> work.py        the CPU-bound function itself
      -> request_log.py the answer is written, and logged if this request is to be
      -> connection.py  the connection ends: counted as completed, once

Around it: settings.py (what can be set), sources.py (flags, environment and file become settings), tls.py
(certificates), logs.py and volume.py (what log lines look like, and how many go out), background.py and
shield.py (a daemon thread to wait on, a fork server that signals do not end), loading.py (the work or the
application that was named) and watch.py (does the loop turn?).

Its life: states.py (a table), listener.py (opened or handed over), server.py (puts the parts together and
takes them down in order), drain.py (ends the connections), orders.py (stop, reload), serve.py (from start to
exit code), command.py (arguments in, exit code out; loops.py: on which loop) and __main__.py (argv,
environment and signals).

Several IO processes, under gunicorn: gunicorn_conf.py (the arbiter's configuration), worker.py (one of the IO
processes), share.py (what each gets) and exporter.py (the metrics of all).
"""

__version__ = "0.1.0"
