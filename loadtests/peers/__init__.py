"""Our service beside the usual designs, under overload: `python -m loadtests peers`.

`designs` the peers themselves · `serve` starts one of them · `race` measures all · `report` tells it.
"""
