"""Many submits of a tiny function, and one after the other, beside Python's own executor."""

import statistics
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from typing import Any

import burla

from .functions import double
from .measure import Options, Series, in_turn, timed
from .peers import BURLA, Burla, Executor as PythonExecutor

SUBMITS = 10_000
CALLS = 40  # of one contender in a row; the median of them is its number for the round
MAP = "map of one"  # of burla


def measure(options: Options) -> Iterator[Series]:
    """Yield many submits, and one."""
    peer, mapper = PythonExecutor(), Burla()
    peer.start(options.workers)
    with burla.Executor() as executor:
        for one in (executor, peer.executor):
            one.submit(double, 1).result()
        try:
            count = options.scaled(SUBMITS)
            many = Series(f"executor/{count:,} submits")
            runs = {BURLA: _submits(executor, count), peer.name: _submits(peer.executor, count)}
            yield in_turn(many, options.rounds, runs)
            calls = max(5, options.scaled(CALLS))
            ones = Series("executor/one submit")
            ones.notes.append(f"a round is the median of {calls} calls, each right after another")
            yield in_turn(
                ones,
                options.rounds,
                {
                    BURLA: _median(lambda: executor.submit(double, 21).result(), calls),
                    MAP: _median(lambda: mapper.map(double, [21], None), calls),
                    peer.name: _median(lambda: peer.executor.submit(double, 21).result(), calls),
                },
            )
        finally:
            peer.close()


def _submits(executor: Executor, count: int) -> Callable[[], float]:
    def once() -> list[int]:
        return [future.result() for future in [executor.submit(double, x) for x in range(count)]]

    def run() -> float:
        seconds, results = timed(once)
        assert results == [double(x) for x in range(count)]
        return seconds

    return run


def _median(once: Callable[[], Any], calls: int) -> Callable[[], float]:
    def run() -> float:
        once()  # whose workers are not those of the contender before
        return statistics.median(timed(once)[0] for _ in range(calls))

    return run
