"""Calls of very different lengths over four nodes, in orders that are good and bad to assign."""

import random
from collections.abc import Iterator

from burla import remote_parallel_map

from .aims import WAY_S
from .clusters import running
from .functions import sleep, warm
from .measure import ALONE_S, Options, Series, in_turn, summary, timed
from .peers import BURLA
from .uneven import CALLS, LAST, ideal_s, in_order_s, lengths

NODES, SLOTS = 4, 8


def orders(calls: int) -> dict[str, list[float]]:
    """Return the same lengths (seconds) in each order that is tried."""
    longest_last = lengths(calls)
    shuffled = list(longest_last)
    random.Random(4).shuffle(shuffled)
    return {
        "longest last": longest_last,
        "ascending": sorted(longest_last),
        "descending": sorted(longest_last, reverse=True),
        "random": shuffled,
    }


def measure(options: Options) -> Iterator[Series]:
    """Yield one series for each order."""
    calls = max(options.scaled(CALLS), LAST + 1)
    slots = NODES * SLOTS
    with running(SLOTS, NODES):
        remote_parallel_map(warm, range(2 * slots), spinner=False)
        for order, inputs in orders(calls).items():

            def run(inputs: list[float] = inputs) -> float:
                seconds, results = timed(lambda: remote_parallel_map(sleep, inputs, spinner=False))
                assert results == inputs
                return seconds

            series = in_turn(Series(f"balance/{order}"), options.rounds, {BURLA: run}, ALONE_S)
            computed_s, ideal = in_order_s(inputs, slots), ideal_s(inputs, slots)
            median_s = summary(series.seconds[BURLA]).median
            series.notes.append(
                f"{calls:,} sleeps on {NODES} nodes x {SLOTS} slots; first in first out, computed: "
                f"{computed_s:.3f} s, {computed_s / ideal:.2f} x ideal"
            )
            series.notes.append(f"median / computed: {median_s / computed_s:.3f}")
            part = (median_s - WAY_S) / computed_s
            series.figures[f"times what is computed, but for {WAY_S:g} s"] = part
            yield series
