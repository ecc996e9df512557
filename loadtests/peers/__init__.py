"""Our service beside the usual designs, under overload: `python -m loadtests peers`.

    commands.py    the command: flags in, exit code out
    plan.py        designs, loads, and the order of the blocks
    race.py        the whole comparison, from calibration to results
      contenders.py  the designs as processes: up together, each quiet while another is measured
        __main__.py    serves one of them; designs.py holds their sources
      measure.py     one block: load, probes, rest
        trees.py       CPU time of process trees and of the machine
      block.py       what a block came to, and when it is void
    rows.py        ratios of pairs, with intervals
    results.py     all of it as JSON
    report.py      tables; figure.py the drawing

An extra of its own (`pip install '.[loadtests,peers]'`), and not in the image: who runs the service has no
use for FastAPI.
"""
