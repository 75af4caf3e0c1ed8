"""One warm call on one input: right after another, and after a pause."""

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Sequence

from .functions import double
from .measure import Options, Series, in_turn, timed
from .peers import Contender, started

CALLS = 40  # of one contender in a row; the median of them is its number for the round
AFTER_PAUSES = 8  # the same, of calls with a pause before each
PAUSE_S = 0.03
WARM_UPS = 10  # calls before the first round


def measure(options: Options) -> Iterator[Series]:
    """Yield both series."""
    calls, pauses = max(5, options.scaled(CALLS)), max(3, options.scaled(AFTER_PAUSES))
    with started(options.contenders, options.workers) as contenders:
        at_once = medians("latency", options, contenders, calls, [21])
        at_once.notes.append(
            f"a round is the median of {calls} calls of a warm function on one input, each right "
            "after the one before, with the results checked in between"
        )
        yield at_once
        later = medians("latency/after a pause", options, contenders, pauses, [21], pause)
        later.notes.append(
            f"a round is the median of {pauses} such calls; before each the process has looked at "
            f"all of its objects for garbage, and slept for {PAUSE_S * 1000:g} ms: caches are cold"
        )
        yield later


def pause() -> None:
    """Do what a program may do between two calls: compute, which empties the caches, and wait."""
    gc.collect()
    time.sleep(PAUSE_S)


def medians(
    name: str,
    options: Options,
    contenders: Sequence[Contender],
    maps: int,
    inputs: list[int],
    between: Callable[[], None] = lambda: None,
) -> Series:
    """Return the series whose rounds are each the median of so many maps, one after the other.

    `between` is called before each of them, and not timed.
    """
    expected = [double(x) for x in inputs]

    def run_of(contender: Contender, maps: int) -> Callable[[], float]:
        def once() -> float:
            between()
            seconds, results = timed(lambda: contender.map(double, inputs, None))
            assert results == expected
            return seconds

        return lambda: statistics.median(once() for _ in range(maps))

    runs = {contender.name: run_of(contender, maps) for contender in contenders}
    for contender in contenders:
        run_of(contender, min(maps, WARM_UPS))()
    return in_turn(Series(name), options.rounds, runs)
