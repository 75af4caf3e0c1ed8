"""Calls of very different lengths on 8 slots, the longest ones last."""

import heapq
import random
from collections.abc import Iterator, Sequence
from typing import Any

from .clusters import cluster
from .functions import sleep
from .measure import Options, Series, in_turn, summary
from .peers import BURLA, started, variants

CALLS = 2_000
MEAN_S = 0.005
SPREAD = 1.5  # sigma of the lognormal lengths: half are under 1.7 ms, the longest take 200 ms or so
LAST, LAST_S = 5, 0.5
SLOTS = 8
CHUNKS = (1, 2, 4, 8, 16)


def lengths(calls: int) -> list[float]:
    """Return how long each call sleeps, in seconds: the same on every machine."""
    dice = random.Random(2_000)
    lengths = [dice.lognormvariate(0, SPREAD) for _ in range(calls - LAST)]
    scale = MEAN_S * len(lengths) / sum(lengths) if lengths else 0.0
    return [length * scale for length in lengths] + [LAST_S] * LAST


def ideal_s(lengths: Sequence[float], slots: int) -> float:
    """Return the least time that any schedule could take, knowing all lengths."""
    return max(sum(lengths) / slots, *lengths)


def in_order_s(lengths: Sequence[float], slots: int) -> float:
    """Return what it takes when each call, in order, goes to the first slot that is free."""
    free_at = [0.0] * slots
    for length in lengths:
        heapq.heappush(free_at, heapq.heappop(free_at) + length)
    return max(free_at)


def measure(options: Options) -> Iterator[Series]:
    """Yield the one series; burla runs on a cluster of one node that counts as 8 CPUs."""
    inputs = lengths(max(options.scaled(CALLS), LAST + 1))

    def check(results: list[Any]) -> None:
        assert results == inputs

    ideal = ideal_s(inputs, SLOTS)
    in_order = in_order_s(inputs, SLOTS)
    # The cluster starts after the peers have forked, so that they inherit nothing of it.
    with (
        started([name for name in options.contenders if name != BURLA], SLOTS) as peers,
        cluster(SLOTS if BURLA in options.contenders else 0),
        started([name for name in options.contenders if name == BURLA], SLOTS) as ours,
    ):
        runs = variants([*ours, *peers], sleep, inputs, CHUNKS, check)
        series = in_turn(Series("uneven"), options.rounds, runs)
    series.notes.append(
        f"{len(inputs):,} sleeps on {SLOTS} slots; ideal {ideal:.3f} s; "
        f"first in first out, computed: {in_order:.3f} s, {in_order / ideal:.2f} x ideal"
    )
    times = (f"{n} {summary(s).median / ideal:.2f}" for n, s in series.seconds.items())
    series.notes.append("times the ideal: " + "; ".join(times))
    yield series
