"""The instrument: an open-loop load generator that says what it could not measure.

The path of a measurement, and the file that owns each step:

    __main__.py      argv in, exit code out
    run.py           the command `run`: lays out the run folder, from the order to the summary
    plan.py          what will be sent, checked and written down before anything is
    generator.py     starts the generator as a child process, passes its progress on, ends it
      driver.py      that process: stdin, stdout, signals, the clock
        endpoint.py    name resolved, request bytes and TLS made ready, once
        schedule.py    when each request is meant to start: arithmetic, no clock
        loop.py        fires what is due, whatever the answers do
        connection.py  one request on a connection of its own
        answer.py      where an HTTP answer ends
        sample.py      what happened to one request: five moments, one outcome
    histogram.py     quantiles from the intended time and from the start
    summary.py       rates, latencies, the ledger, what makes a run invalid
    thresholds.py    what the run had to reach
    live.py          what a person sees of all this

The path of an experiment:

    matrix.py        factors, variants, steps and the plan of them all
    presets.py       which variants and loads an experiment compares: pure, from the calibration
    experiment.py    runs them, variant by variant
      child.py         the service under test as a child process
      watch.py         its counters and the kernel's, ten times a second
    folder.py        the run folder
    results.py       from raw phases to the summary
      ledger.py        client's and server's books reconciled: every connection has a name
    evidence.py      capacity, limits and ratios out of a summary; what may not be used
    verdict.py       the claims and the rule for each
    report.py        verdict.txt; figures.py and page.py draw
    machine.py       what it was measured on

The run folder is the boundary: the plan is written first, each file whole, and whatever is drawn is
a pure function of what is in it.
"""
