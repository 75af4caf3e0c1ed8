"""Time contenders in turn, so that what the machine does meanwhile falls on all of them alike."""

import gc
import importlib
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

R = TypeVar("R")

SLOW_S = 6.0  # a contender that took longer in all has shown enough: it sits out further rounds
ALONE_S = float("inf")  # the same where there are no others: each round is wanted
SERIES_S = 15.0  # so long a series with others has further rounds
ROUNDS_MIN = 2  # but so many in any case: the first one may be that of who must wake up


@dataclass(frozen=True)
class Options:
    """How a case is run."""

    contenders: tuple[str, ...]  # names, as in peers.ALL
    rounds: int
    workers: int  # processes per contender, where the case does not say otherwise
    scale: float = 1.0  # of the number of inputs; under 1 for a quick look

    def scaled(self, count: int) -> int:
        """Return how many inputs to take where the case has `count`."""
        return max(1, round(count * self.scale))


@dataclass(frozen=True)
class Summary:
    """What is told of a list of measurements."""

    low: float
    median: float
    high: float


@dataclass
class Series:
    """One question put to several contenders; every number is seconds, one per round."""

    name: str  # "case" or "case/what"
    seconds: dict[str, list[float]] = field(default_factory=dict)  # by contender, in its order
    notes: list[str] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)  # others, by name, as aims.py has them


def run_case(case: str, options: Options) -> list[Series]:
    """Return what the module called `case` measures."""
    return list(importlib.import_module(f".{case}", __package__).measure(options))


def summary(seconds: Sequence[float]) -> Summary:
    """Return least, median and greatest of `seconds`."""
    return Summary(min(seconds), statistics.median(seconds), max(seconds))


def ratio(mine: Sequence[float], others: Sequence[float]) -> float:
    """Return the median of the ratios, each of one round; under 1: `mine` is faster."""
    return statistics.median(m / o for m, o in zip(mine, others, strict=False))


def timed(work: Callable[[], R]) -> tuple[float, R]:
    """Return how long `work` took, in seconds, and what it returned.

    Garbage is collected as in any program. Each round begins without that of the contender
    before (`settled`). Between two calls that would walk all memory: each would find the caches
    cold, which none does that follows another (`latency` has a series of such calls as well).
    """
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def settled(run: Callable[[], float]) -> float:
    """Return what `run` returns, which finds no garbage of the one before."""
    gc.collect()
    return run()


def in_turn(
    series: Series,
    rounds: int,
    runs: Mapping[str, Callable[[], float]],
    slow_s: float = SLOW_S,
    clock_s: Callable[[], float] = time.monotonic,
) -> Series:
    """Call each of `runs` once per round and note the seconds that it returns in `series`.

    Round 0 counts like any other: what must be warm is warmed before. A contender that took more
    than `slow_s`, all rounds together, by what it returns or by the clock, sits out those that are
    left, or a run of all cases would take half an hour. What is quick, of which single rounds tell
    little, has all rounds, unless there are so many contenders, or is so much else on the machine,
    that these take too long.
    """
    until_s = clock_s() + (SERIES_S if slow_s < ALONE_S else ALONE_S)
    spent_s = dict.fromkeys(runs, 0.0)
    for done in range(rounds):
        if done >= ROUNDS_MIN and clock_s() >= until_s:
            series.notes.append(f"no more than {done} of {rounds} rounds: these took long enough")
            break
        for name, run in runs.items():
            taken = series.seconds.setdefault(name, [])
            if max(sum(taken), spent_s[name]) <= slow_s:
                begun_s = clock_s()
                taken.append(settled(run))
                spent_s[name] += clock_s() - begun_s
    return series
