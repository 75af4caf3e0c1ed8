"""A function with a model of 200 MB: the first map, and those that follow."""

import statistics
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import numpy.typing as npt

from burla import remote_parallel_map

from .clusters import keyed_cluster
from .functions import heavy
from .measure import ALONE_S, Options, Series, in_turn, timed
from .peers import BURLA

Model = npt.NDArray[np.float64]

SIZE = 200_000_000  # bytes
MAPS = 5  # that follow; their median is the number of the round
INPUTS = 8


def measure(options: Options) -> Iterator[Series]:
    """Yield a private cluster, and two nodes over TCP with keys."""
    yield _measure("private", nullcontext(), options)
    yield _measure("tcp", keyed_cluster(options.workers, 2), options)


def _measure(where: str, cluster: AbstractContextManager[object], options: Options) -> Series:
    model = np.random.default_rng(1).random(max(INPUTS, options.scaled(SIZE) // 8))
    with cluster:
        first = _first_of(model)
        first()  # the cluster is there, and NumPy is loaded
        runs = {BURLA: _next_of(model), f"{BURLA}, first map": first}
        series = in_turn(Series(f"broadcast/{where}"), options.rounds, runs, ALONE_S)
    series.notes.append(f"a map of {INPUTS} inputs with {model.nbytes / 1e6:,.0f} MB, sent before")
    return series


def _map(model: Model) -> float:
    function, inputs = heavy(model), list(range(INPUTS))
    seconds, results = timed(lambda: remote_parallel_map(function, inputs, spinner=False))
    assert results == [function(x) for x in inputs]
    return seconds


def _first_of(model: Model) -> Callable[[], float]:
    def run() -> float:
        model[0] += 1  # another content
        return _map(model)

    return run


def _next_of(model: Model) -> Callable[[], float]:
    def run() -> float:
        _map(model)  # its workers may have ended since
        return statistics.median(_map(model) for _ in range(MAPS))

    return run
