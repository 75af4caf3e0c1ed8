"""One warm call on one input."""

import statistics
from collections.abc import Callable, Iterator

from .functions import double
from .measure import Options, Series, in_turn, timed
from .peers import Contender, started

CALLS = 40  # of one contender in a row; the median of them is its number for the round
WARM_UPS = 10  # calls before the first round


def measure(options: Options) -> Iterator[Series]:
    """Yield the one series."""
    calls = max(5, options.scaled(CALLS))
    series = medians("latency", options, calls, [21])
    series.notes.append(f"a round is the median of {calls} calls, one after the other")
    yield series


def medians(name: str, options: Options, maps: int, inputs: list[int]) -> Series:
    """Return the series whose rounds are each the median of so many maps, one after the other."""
    expected = [double(x) for x in inputs]

    def run_of(contender: Contender, maps: int) -> Callable[[], float]:
        def once() -> float:
            seconds, results = timed(lambda: contender.map(double, inputs, None))
            assert results == expected
            return seconds

        return lambda: statistics.median(once() for _ in range(maps))

    with started(options.contenders, options.workers) as contenders:
        runs = {contender.name: run_of(contender, maps) for contender in contenders}
        for contender in contenders:
            run_of(contender, min(maps, WARM_UPS))()
        return in_turn(Series(name), options.rounds, runs)
