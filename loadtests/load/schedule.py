"""When each request is meant to start: pure arithmetic, fixed before the first one is sent.

Knows rates, gaps and a seed. Touches nothing. Never reads the clock, and never learns how the
answers fare: that is what makes the load open.

An open schedule is the cure for *coordinated omission* (Gil Tene, "How NOT to Measure Latency"):
a client that waits for an answer before it sends the next request stops measuring exactly while
the server stands still.
"""

import random


def intended_offsets(rate: float, duration: float, arrivals: str, seed: int) -> list[float]:
    """Return the intended starts in seconds from the start of the phase, ascending.

    `constant`: n / rate for each n in range(round(rate * duration)). `poisson`: independent
    exponential gaps with mean 1 / rate, as many independent users would make them; their number
    varies from seed to seed around the same mean, and the same seed gives the same list.
    """
    if arrivals == "constant":
        # n / rate, not a sum of gaps: a sum drifts by its rounding errors.
        return [n / rate for n in range(round(rate * duration))]
    draw = random.Random(seed).expovariate
    offsets = []
    offset = draw(rate)
    while offset < duration:
        offsets.append(offset)
        offset += draw(rate)
    return offsets
