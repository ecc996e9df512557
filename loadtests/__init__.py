"""The instrument: a load generator that reports what it could not measure, and the experiment.

    __main__.py         argv and environment in, exit code out
    report.py           the command `report`, for the folders of every room
    arguments.py        what the arguments of all commands have in common
    exits.py            exit codes, and the errors that lead to them
    machine.py          the machine that a run was measured on
    neighbours.py       what other processes used of the CPU
    sessions.py         ends child processes, and leaves nothing of them
    files.py            JSON files, whole or not at all

    pages/              what all pages have in common
      frame.py            renders a template within the shared frame
      drawing.py          colours and style of drawings, and their SVG

    load/               one load against one URL
      commands.py         `run` and `ports`: flags in, exit code out
      flags.py            the flags of a load, a request, this machine
      values.py           and what is read of their text
      order.py            what is asked of a run besides its load
      run.py              runs one phase: lays out the run folder, from the order to the summary
      steps.py            the same for several rates, one after another
      folder.py           what a run folder holds, read back
      phase.py            what will be sent, checked and written down before anything is
      statuses.py         which answers count as success
      generator.py        starts the generator as a child process, passes on its progress, stops it
      driver.py           that process: stdin, stdout, signals, the clock
      facts.py            what it says of itself
      ports.py            how many connections the local ports allow
      remedies.py         and what helps if they are too few
      port_state.py       the kernel's rules for them, and which are in use
      doctor.py           will they suffice for this run?
      witness.py          what else uses machine and server meanwhile
      surroundings.py     and whether that spoils a run
      endpoint.py         address, request bytes and TLS settings, prepared once
      schedule.py         when each request is meant to start: arithmetic, no clock
      retrying.py         what a client sends again, and when
      loop.py             sends what is due, whatever the answers do
      tally.py            what it counts meanwhile
      readiness.py        since when an event may have waited for the loop
      effort.py           how busy the loop was
      attempt.py          gets a request its connection: connect, TLS handshake
      connection.py       one request on a connection of its own
      kept.py             one request on a connection that others use, too
      answer.py           where an HTTP answer ends
      sample.py           what happened to one attempt: its moments, one outcome
      histogram.py        quantiles
      summary.py          rates, latencies, the client's ledger
      judgement.py        when figures say nothing about the server
      thresholds.py       what the run must reach
      results.py          the summary as types
      schema.py           and as a JSON Schema
      exports.py          a run in the formats of other tools
      ceiling.py          what the generator can send on this machine, kept
      responder.py        a server with next to no cost, to measure the generator
      live.py             progress on the terminal
      tell.py             the figures in words
      render.py           the summary on the terminal
      curves.py           the numbers that are drawn
      figures.py          the drawings
      page.py             report.html

    experiment/         the 2017 experiment, in pairs of blocks
      plan.py             factors, variants, cycles and the plan of them all
      presets.py          the variants that an experiment compares
      metastable.py       the preset of this name: one trigger, each design, each way to retry
      calibration.py      what one request costs
      run.py              calibrates, plans, measures until the claims are decided
      testbed.py          runs all variants; measures a block, a phase, a killed worker
      trigger.py          measures a case: base load, trigger, base load again
      child.py            the service under test, or a usual design, as a child process
      counters.py         its counters and the kernel's, once or ten times a second
      speed.py            the speed of the worker's core meanwhile
      progress.py         progress on the terminal
      blocks.py           U, S and X between two readings, and what makes a block void
      ledger.py           clients' and service's counts reconciled: no connection unexplained
      results.py          phases, and the summary of a run
      recovery.py         what came after a trigger, second by second
      folder.py           the run folder
      statistics.py       exact intervals for a dozen pairs
      evidence.py         which blocks may be used, and how they are paired
      finding.py          what a rule says of a claim
      amounts.py          rules for claims about an amount: by an interval
      queues.py           rules for claims about a queue: by every overload phase
      comebacks.py        rules for claims about what comes after a trigger
      claims.py           the claims, each with its rule
      verdict.py          all claims of a plan, judged
      tables.py           the tables of a report, as rows
      report.py           verdict.txt, and all else that is drawn
      figures.py          the drawings
      recovery_figure.py  that of each case
      page.py             report.html
      comparable.py       what can be compared of a run folder
      compare.py          two run folders: better, worse, or no difference
      commands.py         `experiment` and `compare`: flags in, exit code out

    capacity/           how many requests a second a service can take, or the generator
      search.py           which load to try next, and where the capacity lies
      trial.py            the outcome of one trial
      results.py          the result of the search, as types
      tell.py             and in words
      folder.py           its folder
      figure.py           the drawing
      page.py             its report.html
      bench.py            sends the trials, reads the service demand S
      run.py              searches until it is bracketed
      self_test.py        searches for the generator's own ceiling
      commands.py         `capacity` and `self-test`: flags in, exit code out

    peers/              offloop compared with the usual designs
    scripts/            for other tools (k6, wrk, hey, siege, Locust); no module imports them

A room imports only from those above it; report.py and __main__.py import from all. Modules named commands.py
import little: the libraries of a command are loaded when it runs. The run folder is the boundary: the plan is
written first, each file is written whole, and every drawing is a pure function of what is in the folder.
"""
