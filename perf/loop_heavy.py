"""A loop of maps with a function that takes 3 MB along, beside one that takes nothing."""

import os
import statistics
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext

import numpy as np

from burla import remote_parallel_map

from .clusters import keyed_cluster
from .functions import closure, double, heavy
from .measure import ALONE_S, Options, Series, in_turn, ratio, timed
from .peers import BURLA

MAPS = 40  # of one function in a row; the median of them is its number for the round
INPUTS = 8
SIZE = 3_000_000  # bytes


def measure(options: Options) -> Iterator[Series]:
    """Yield a private cluster, and two nodes over TCP with keys."""
    maps = max(5, options.scaled(MAPS))
    yield _measure("private", nullcontext(), maps, options)
    yield _measure("tcp", keyed_cluster(options.workers, 2), maps, options)


def _measure(
    where: str, cluster: AbstractContextManager[object], maps: int, options: Options
) -> Series:
    tiny = f"{BURLA}, tiny function"
    with cluster:
        runs = {
            BURLA: _run_of(heavy(np.random.default_rng(1).random(SIZE // 8)), maps),
            f"{BURLA}, bytes": _run_of(closure(os.urandom(SIZE)), maps),
            tiny: _run_of(double, maps),
        }
        series = in_turn(Series(f"loop_heavy/{where}"), options.rounds, runs, ALONE_S)
    times = ratio(series.seconds[BURLA], series.seconds[tiny])
    series.notes.append(f"with an array of {SIZE:,} bytes: {times:.2f} times the tiny function")
    series.notes.append(
        f"a round is the median of {maps} maps of {INPUTS} inputs, each right after the one before"
    )
    return series


def _run_of(function: Callable[[int], object], maps: int) -> Callable[[], float]:
    inputs = list(range(INPUTS))

    def once() -> float:
        seconds, results = timed(lambda: remote_parallel_map(function, inputs, spinner=False))
        assert results == [function(x) for x in inputs]
        return seconds

    def run() -> float:
        once()  # sends it, and begins the workers
        return statistics.median(once() for _ in range(maps))

    return run
