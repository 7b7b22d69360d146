"""Times of calls that compete, in alternating blocks."""

from __future__ import annotations

import statistics
import timeit
from collections.abc import Mapping
from typing import NamedTuple

from lsmooth.bench.rows import Call

# A run shorter than this is lost in the noise of the clock.
SHORTEST = 5e-3
# Calls below this vary with the time that threads take to wake up: they get ten times the turns.
SHORT = 1e-3
# A call whose second run takes these seconds is run three times after the first;
LONG = 0.5
# one that takes these is not run again.
LONGEST = 5.0


class Timing(NamedTuple):
    """Seconds of one call."""

    median: float
    low: float  # the first quartile
    high: float  # the third


def measure(calls: Mapping[str, Call], rounds: int = 4, kept: int = 2) -> dict[str, Timing]:
    """Time the calls beside each other.

    They take turns. The first run of a turn is dropped, since it pays for the memory that the previous call
    released; ``kept`` runs are kept. Short calls are repeated within a run. Long calls have three runs that
    count, the longest only their second. If all calls are very short, there are ten times as many turns.
    """
    timers = {name: timeit.Timer(call) for name, call in calls.items()}
    warm = {name: _warm(timer) for name, timer in timers.items()}
    rounds *= 10 if max(warm.values()) <= SHORT else 1
    seconds = {name: [taken] if taken > LONG else [] for name, taken in warm.items()}
    turns = {name: rounds if taken <= LONG else 2 if taken <= LONGEST else 0 for name, taken in warm.items()}
    numbers = {name: max(1, round(SHORTEST / max(taken, 1e-9))) for name, taken in warm.items()}
    for turn in range(rounds):
        for name in (name for name in calls if turn < turns[name]):
            number, short = numbers[name], warm[name] <= LONG
            runs = timers[name].repeat(repeat=kept + 1 if short else 1, number=number)
            seconds[name] += [run / number for run in runs[short:]]
    return {name: _summary(runs) for name, runs in seconds.items()}


def measure_self_timed(calls: Mapping[str, Call], runs: int = 9) -> dict[str, Timing]:
    """Time calls that return their own seconds."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for run in range(runs + 1):
        for name, call in calls.items():
            taken = call()
            if run:
                assert isinstance(taken, float)
                seconds[name].append(taken)
    return {name: _summary(taken) for name, taken in seconds.items()}


def _warm(timer: timeit.Timer) -> float:
    """Seconds of the second call; of a short one those of the third, since the second fills caches."""
    timer.timeit(1)
    second = timer.timeit(1)
    return second if second > LONG else timer.timeit(1)


def _summary(runs: list[float]) -> Timing:
    low, median, high = statistics.quantiles(runs, n=4) if len(runs) > 1 else runs * 3
    return Timing(median, low, high)
