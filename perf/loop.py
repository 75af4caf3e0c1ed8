"""A loop of small maps with the same function: the cost of a map that follows at once."""

from collections.abc import Iterator

from .latency import medians
from .measure import Options, Series
from .peers import started

MAPS = 100  # of one contender in a row; the median of them is its number for the round
INPUTS = 8


def measure(options: Options) -> Iterator[Series]:
    """Yield the one series."""
    maps = max(5, options.scaled(MAPS))
    with started(options.contenders, options.workers) as contenders:
        series = medians("loop", options, contenders, maps, list(range(INPUTS)))
    series.notes.append(
        f"a round is the median of {maps} maps of a warm function over {INPUTS} inputs, each right "
        "after the one before, with the results checked in between"
    )
    yield series
