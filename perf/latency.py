"""One warm call on one input."""

import statistics
from collections.abc import Callable, Iterator

from .functions import double
from .measure import Options, Series, in_turn, timed
from .peers import Contender, started

CALLS = 40  # of one contender in a row; the median of them is its number for the round


def measure(options: Options) -> Iterator[Series]:
    """Yield the one series."""
    calls = max(5, options.scaled(CALLS))

    def run_of(contender: Contender) -> Callable[[], float]:
        def call() -> float:
            seconds, results = timed(lambda: contender.map(double, [21], None))
            assert results == [42]
            return seconds

        return lambda: statistics.median(call() for _ in range(calls))

    with started(options.contenders, options.workers) as contenders:
        runs = {contender.name: run_of(contender) for contender in contenders}
        for run in runs.values():
            run()
        series = in_turn(Series("latency"), options.rounds, runs)
        series.notes.append(f"a round is the median of {calls} calls, one after the other")
        yield series
