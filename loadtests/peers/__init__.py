"""Compares offloop with the usual designs under overload: `python -m loadtests peers`.

    commands.py    the command: flags in, exit code out
    plan.py        designs, loads, and the order of the blocks
    race.py        the whole comparison, from calibration to results
      contenders.py  the designs as processes: all run, and all but the measured one are quiet
        __main__.py    serves one of them; designs.py holds their sources, hyper/ that of the one in Rust
        cargo.py       builds that, and finds how much of its work is as long as Python's
      measure.py     one block: load, probes, rest
        trees.py       CPU time of process trees and of the machine
      block.py       the result of a block, and when it is void
    rows.py        ratios of pairs, with intervals
    results.py     everything as JSON
    report.py      tables; figure.py the drawing

It needs an extra (`pip install '.[loadtests,peers]'`) and is not in the image: running the service takes no
FastAPI. What is in Rust needs cargo, and is left out without it.
"""
