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
SERIES_S = 10.0  # so long a series with others has further rounds
ROUNDS_MIN = 2  # but so many in any case: the first one may be that of who must wake up
FAR, FAR_S = 4.0, 1.0  # times what the quickest took, and seconds: who takes longer is far behind


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
    # Of contenders that were measured apart from the first ones: what burla took in their rounds.
    apart: dict[str, list[float]] = field(default_factory=dict)

    def join(self, other: "Series", ours: str) -> None:
        """Take the contenders of a series that asks the same, which was measured apart.

        `ours`: the name of who is in both.
        """
        new = [name for name in other.seconds if name not in self.seconds]
        self.seconds |= {name: other.seconds[name] for name in new}
        self.apart |= dict.fromkeys(new, other.seconds.get(ours, []))
        told = [note for note in other.notes if note not in self.notes]
        self.notes += [f"beside {', '.join(new)}: {note}" for note in told]

    def times(self, ours: str, name: str) -> float:
        """Return the ratio of who is called `ours` to `name`."""
        return ratio(self.apart.get(name, self.seconds[ours]), self.seconds[name])


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

    Round 0 counts like any other: what must be warm is warmed before. Every other round goes the
    other way round, so that nobody always follows the same one, who leaves caches and memory as he
    needs them. Those far behind in round 0 have their further rounds after the others: else each
    round of these would begin after a pause of seconds, in which all that was warm cools down.

    A contender that took more than `slow_s`, all rounds together, by what it returns or by the
    clock, sits out those that are left, or a run of all cases would take half an hour. What is
    quick, of which single rounds tell little, has all rounds, unless there are so many contenders,
    or is so much else on the machine, that these take too long.
    """
    spent_s = dict.fromkeys(runs, 0.0)

    def run(names: Sequence[str], done: int) -> None:
        for name in names if done % 2 == 0 else reversed(names):
            taken = series.seconds.setdefault(name, [])
            if max(sum(taken), spent_s[name]) <= slow_s:
                begun_s = clock_s()
                taken.append(settled(runs[name]))
                spent_s[name] += clock_s() - begun_s

    run(list(runs), 0)
    until_s = clock_s() + (SERIES_S if slow_s < ALONE_S else ALONE_S)
    far_s = max(FAR_S, FAR * min(spent_s.values()))
    near = [name for name in runs if spent_s[name] <= far_s]
    for names in (near, [name for name in runs if name not in near]):
        for done in range(1, rounds):
            if done >= ROUNDS_MIN and clock_s() >= until_s:
                if names is near:
                    series.notes.append(
                        f"no more than {done} of {rounds} rounds: these took long enough"
                    )
                break
            run(names, done)
    return series
