"""The instrument: a load generator that says what it could not measure, and an experiment that judges by it.

The path of a measurement, and the file that owns each step:

    __main__.py               argv in, exit code out

    load/                     one phase of load: everything that sends, and what came of it
      run.py                  the command `run`: lays out the run folder, from the order to the summary
      phase.py                what will be sent, checked and written down before anything is
      generator.py            starts the generator as a child process, gives it phases, ends it
        driver.py             that process: stdin, stdout, signals, the clock
          endpoint.py         name resolved, request bytes and TLS made ready, once
          schedule.py         who is due: an open schedule, or clients in a closed loop
          loop.py             fires what is due, whatever the answers do
          connection.py       one request on a connection of its own
          answer.py           where an HTTP answer ends
          sample.py           what happened to one request: five moments, one outcome
        facts.py, effort.py   what the generator says of itself
      histogram.py            quantiles, the one definition of them
      summary.py, results.py  rates, latencies, the client's books
      judgement.py            when a run says nothing about the server
      thresholds.py           what the run had to reach
      live.py                 what a person sees of all this

    experiment/               variants of the service beside each other, and what may be concluded
      presets.py, plan.py     which variants and loads, in which order: pure, from calibration and seed
      run.py                  measures cycle by cycle until the claims are decided, and when that is enough
      testbed.py              every variant up at once; how a block and a phase are measured
        child.py              the service under test as a child process
        counters.py           its counters and the kernel's, once or ten times a second
      blocks.py, results.py   what was measured, as types; which blocks are void
      ledger.py               clients' and service's books reconciled: every connection has a name
      folder.py               the run folder
      evidence.py             pairs, ratios and phases out of a summary; what may not be used
      statistics.py           intervals that hold for a dozen pairs
      claims.py, verdict.py   the claims, the region of each, and what became of it
      report.py, tables.py    verdict.txt; figures.py and page.py draw
      progress.py             what a person sees meanwhile
      compare.py              two run folders beside each other

    peers/                    our service beside the usual designs
    neighbours.py             who else used the CPU, and how much of the machine is ours
    machine.py, files.py      what it was measured on; JSON files kept whole

The run folder is the boundary: the plan is written first, each file whole, and whatever is drawn is
a pure function of what is in it.
"""
