"""A loop of small maps with the same function: the cost of a map that follows at once."""

import statistics
from collections.abc import Callable, Iterator

from .functions import double
from .measure import Options, Series, in_turn, timed
from .peers import Contender, started

MAPS = 100  # of one contender in a row; the median of them is its number for the round
INPUTS = 8


def measure(options: Options) -> Iterator[Series]:
    """Yield the one series."""
    maps = max(5, options.scaled(MAPS))
    inputs = list(range(INPUTS))
    expected = [x * 2 for x in inputs]

    def run_of(contender: Contender) -> Callable[[], float]:
        def once() -> float:
            seconds, results = timed(lambda: contender.map(double, inputs, None))
            assert results == expected
            return seconds

        return lambda: statistics.median(once() for _ in range(maps))

    with started(options.contenders, options.workers) as contenders:
        runs = {contender.name: run_of(contender) for contender in contenders}
        for run in runs.values():
            run()
        series = in_turn(Series("loop"), options.rounds, runs)
    series.notes.append(f"a round is the median of {maps} maps of {INPUTS} inputs in a loop")
    yield series
