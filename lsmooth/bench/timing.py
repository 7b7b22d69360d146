"""Times of calls that compete, in alternating blocks."""

from __future__ import annotations

import statistics
import timeit
from collections.abc import Mapping
from typing import NamedTuple

from lsmooth.bench.rows import Call

# The shortest run that the clock tells apart from the noise around it.
SHORTEST = 5e-3
# A call that takes these seconds a second time is not run again.
LONGEST = 2.0


class Timing(NamedTuple):
    """Seconds of one call."""

    median: float
    low: float  # the first quartile
    high: float  # the third


def measure(calls: Mapping[str, Call], rounds: int = 4, kept: int = 2) -> dict[str, Timing]:
    """Time the calls beside each other.

    They take turns; the first run of a turn is dropped, since it pays for memory that the call
    before it gave back, and ``kept`` runs are kept. Short calls are repeated within a run; of a long
    one its second run is all that is measured.
    """
    timers = {name: timeit.Timer(call) for name, call in calls.items()}
    warm = {name: _warm(timer) for name, timer in timers.items()}
    seconds = {name: [taken] if taken > LONGEST else [] for name, taken in warm.items()}
    timers = {name: timer for name, timer in timers.items() if not seconds[name]}
    numbers = {name: max(1, round(SHORTEST / max(warm[name], 1e-9))) for name in timers}
    for _ in range(rounds):
        for name, timer in timers.items():
            number = numbers[name]
            runs = timer.repeat(repeat=kept + 1, number=number)
            seconds[name] += [run / number for run in runs[1:]]
    return {name: _summary(runs) for name, runs in seconds.items()}


def measure_self_timed(calls: Mapping[str, Call], runs: int = 9) -> dict[str, Timing]:
    """The same for calls that return their own seconds."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for run in range(runs + 1):
        for name, call in calls.items():
            taken = call()
            if run:
                assert isinstance(taken, float)
                seconds[name].append(taken)
    return {name: _summary(taken) for name, taken in seconds.items()}


def _warm(timer: timeit.Timer) -> float:
    """Seconds of a call after the first, which compiles; of a short one after the second too, which fills caches."""
    timer.timeit(1)
    second = timer.timeit(1)
    return second if second > LONGEST else timer.timeit(1)


def _summary(runs: list[float]) -> Timing:
    low, median, high = statistics.quantiles(runs, n=4) if len(runs) > 1 else runs * 3
    return Timing(median, low, high)
