"""What burla is to reach on two CPUs, in one place: `results` and the tables say beside it what is.

An aim is for the median of burla's seconds, for their ratio to somebody else's in the same round,
or for another figure of a series.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from .measure import Series, summary
from .peers import BURLA

# Those that the simulation has to keep as well (tests/simulation).
IN_ORDER = 1.04  # times what first in first out takes, as computed
WAY_S = 0.05  # and so much for the start, and the way there and back
FAIR = 1.15  # times what a fair split takes
FIRST_S = 1.1  # until somebody's first result, while others have all nodes: a call and a hand-over


@dataclass(frozen=True)
class Aim:
    """A bound."""

    bound: float
    beside: str = ""  # a contender: the ratio to its quickest variant; empty: no ratio
    figure: str = ""  # a name in `Series.figures`; empty: the time
    is_least: bool = False  # the figure is to be as great, not as small


AIMS: dict[str, tuple[Aim, ...]] = {  # by name of the series; "case/*": all of that case
    "tiny/range": (Aim(0.70, "Pool"),),
    "tiny/list of ints": (Aim(0.95, "Pool"),),
    "latency": (Aim(0.0010),),
    "loop": (Aim(0.0011),),
    "data/*": (Aim(0.95, "Ray Pool"),),
    "cold/exit": (Aim(0.2),),
    "cold/import": (Aim(0.06),),
    "loop_heavy/*": (Aim(1.5, f"{BURLA}, tiny function"),),
    "broadcast/*": (Aim(0.02),),
    "big/result": (
        Aim(64, figure="scheduler, MiB more"),
        Aim(64, figure="nodelet, MiB more"),
        Aim(1.1, figure="caller, times the value"),
        Aim(2.1, figure="worker, times the value"),
    ),
    "big/input": (
        Aim(64, figure="scheduler, MiB more"),
        Aim(64, figure="nodelet, MiB more"),
    ),
    "cluster/tiny calls": (Aim(1.3),),
    "cluster/start": (Aim(1.7),),
    "balance/*": (Aim(IN_ORDER, figure=f"times what is computed, but for {WAY_S:g} s"),),
    "shares/the second's first result": (Aim(FIRST_S),),
    "shares/the first's last result": (Aim(FAIR, figure="times a fair split"),),
    "shares/the second's last result": (Aim(FAIR, figure="times a fair split"),),
    "loss": (
        Aim(2.0, figure="later, in s"),
        Aim(2.0, figure="until its processes are gone, in s"),
    ),
    "scale/*": (
        Aim(0.95, figure="of the slots busy", is_least=True),
        Aim(300, figure="scheduler's memory, MB"),
    ),
}


@dataclass(frozen=True)
class Judged:
    """An aim, and what was measured."""

    what: str  # the figure
    bound: str
    measured: str
    is_reached: bool

    @property
    def verdict(self) -> str:
        """Return one word."""
        return "reached" if self.is_reached else "missed"


def judged(series: Series) -> Iterator[Judged]:
    """Yield what can be said of each aim that the series has: that of peers only beside them."""
    case = series.name.partition("/")[0]
    for aim in AIMS.get(series.name, AIMS.get(f"{case}/*", ())):
        found = _measured(series, aim)
        if found is not None:
            what, value = found
            is_reached = value >= aim.bound if aim.is_least else value <= aim.bound
            side = "at least" if aim.is_least else "at most"
            bound, measured = (_said(number, what) for number in (aim.bound, value))
            yield Judged(what, f"{side} {bound}", measured, is_reached)


def _measured(series: Series, aim: Aim) -> tuple[str, float] | None:
    mine = series.seconds.get(BURLA)
    if aim.figure:
        value = series.figures.get(aim.figure)
        return None if value is None else (aim.figure, value)
    if not mine:
        return None
    if not aim.beside:
        return _TIME, summary(mine).median
    others = {
        name: summary(seconds).median
        for name, seconds in series.seconds.items()
        if name == aim.beside or name.startswith(f"{aim.beside}, ")
    }
    if not others:
        return None
    best = min(others, key=others.__getitem__)
    return f"times {best}", series.times(BURLA, best)


_TIME = "time, in s"


def _said(value: float, what: str) -> str:
    if what == _TIME and value < 0.1:
        return f"{value * 1000:.3g} ms"
    if what == _TIME:
        return f"{value:.2f} s"
    return f"{value:,.0f}" if value >= 20 else f"{value:.2f}"
