"""Tell people what was measured: a table, a chart."""

from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.table import Table

from .aims import judged
from .measure import Series, summary
from .peers import BURLA

WIDTH = 100
CUT = 4.0  # a bar longer than this many times burla's (or the shortest) is cut, its number told
OURS, THEIRS = "#d9480f", "#adb5bd"


def told(seconds: float) -> str:
    """Return `seconds` in the unit that reads best."""
    return f"{seconds * 1000:.3g} ms" if seconds < 0.1 else f"{seconds:.3f} s"


def table(series: Series, out: TextIO) -> None:
    """Print one series to `out`."""
    mine = series.seconds.get(BURLA)
    rows = Table(title=series.name, title_justify="left", title_style="bold", box=None)
    rows.add_column("contender")
    for column in ("min", "median", "max", "rounds", "burla / it"):
        rows.add_column(column, justify="right")
    for name, seconds in series.seconds.items():
        numbers = summary(seconds)
        rows.add_row(
            name,
            *(told(value) for value in (numbers.low, numbers.median, numbers.high)),
            str(len(seconds)),
            f"{series.times(BURLA, name):.2f}" if mine and name != BURLA else "",
            style="bold" if name == BURLA else "",
        )
    console = Console(file=out, width=WIDTH, highlight=False)
    console.print(rows)
    for note in series.notes:
        console.print(f"  {note}", style="dim")
    for one in judged(series):
        console.print(f"  aim: {one.what}: {one.bound}; {one.measured}: {one.verdict}")
    console.print()


def chart(all_series: Sequence[Series], path: Path) -> None:
    """Draw the medians of `all_series` as bars, with a line from least to greatest, to `path`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 0.6 + sum(0.7 + 0.28 * len(s.seconds) for s in all_series)))
    FigureCanvasAgg(figure)
    heights = [0.7 + 0.28 * len(series.seconds) for series in all_series]
    axes = figure.subplots(len(all_series), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axis, series in zip(axes, all_series, strict=True):
        numbers = {name: summary(seconds) for name, seconds in series.seconds.items()}
        longest = CUT * numbers.get(BURLA, min(numbers.values(), key=lambda n: n.median)).median
        limit = min(longest, max(n.high for n in numbers.values())) * 1.02
        for row, (name, n) in enumerate(numbers.items()):
            axis.barh(
                row, min(n.median, limit), color=OURS if name == BURLA else THEIRS, height=0.7
            )
            if n.high <= limit:
                axis.plot([n.low, n.high], [row, row], color="#212529", linewidth=1)
            axis.text(limit * 1.02, row, told(n.median), va="center", fontsize=8)
        axis.set_yticks(range(len(numbers)), list(numbers), fontsize=8)
        axis.invert_yaxis()
        axis.set_xlim(0, limit)
        axis.set_title(series.name, loc="left", fontsize=9, fontweight="bold")
        axis.tick_params(axis="x", labelsize=7)
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(
        "median seconds, least to greatest; shorter is better; long bars are cut", fontsize=9
    )
    figure.tight_layout()
    figure.savefig(path, dpi=130)
