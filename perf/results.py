"""`python -m perf results`: measure, and write RESULTS.md with the machine, versions and ratios."""

import functools
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from .aims import judged
from .measure import Options, Series, summary, timed
from .peers import BURLA, EXTRAS
from .report import told

HERE = Path(__file__).resolve().parent
PATH = HERE / "RESULTS.md"
BUSY = 0.3  # load from others, per CPU, from which on the figures are said to be disturbed
PACKAGES = ("pyzmq", "msgpack", "msgspec", "cloudpickle", "uvloop", "numpy")


LOOP = range(1_000_000)  # is summed up to tell how quick the machine is


class Before(NamedTuple):
    """How the machine is before anything is measured."""

    busy: float = 0.0  # processes that ran on each CPU within the last minute
    loop_s: float = 0.0  # for the sum of LOOP


def look() -> Before:
    """Return how the machine is now."""
    busy = os.getloadavg()[0] / len(os.sched_getaffinity(0))
    return Before(busy, min(timed(lambda: sum(LOOP))[0] for _ in range(9)))


def markdown(all_series: Sequence[Series], options: Options, before: Before) -> str:
    """Return the whole page.

    Args:
        all_series: what was measured.
        options: how.
        before: how the machine was when it began.
    """
    lines = [
        "# Measured",
        "",
        "Written by `python -m perf results`: do not edit. Least, median, greatest over rounds;",
        "a ratio is the median of burla's time over the contender's in the same round: under 1,",
        "burla is faster.",
        "",
        *(f"- {fact}" for fact in [*_machine(options, before), *_versions(options)]),
    ]
    if before.busy > BUSY:
        lines += [
            "",
            f"**The machine was busy with other things**: {before.busy:.1f} processes ran on each"
            " CPU already before it began. Ratios within a round still tell something, times"
            " little.",
        ]
    lines += ["", "## Aims", "", *_aims(all_series)]
    lines += ["", "## In short", "", *_short(all_series)]
    for series in all_series:
        lines += ["", f"## {series.name}", "", *_table(series)]
    return "\n".join(lines) + "\n"


def _aims(all_series: Sequence[Series]) -> list[str]:
    rows = ["| case | figure | aim | measured | |", "|---|---|---|---|---|"]
    for series in all_series:
        rows += [
            _row([series.name, one.what, one.bound, one.measured, one.verdict])
            for one in judged(series)
        ]
    return rows


def _short(all_series: Sequence[Series]) -> list[str]:
    rows = [
        "| case | burla | the quickest other | its time | burla / it |",
        "|---|---|---|---|---|",
    ]
    for series in all_series:
        mine = series.seconds[BURLA]
        row = [series.name, told(summary(mine).median)]
        others = {n: summary(s).median for n, s in series.seconds.items() if n != BURLA}
        if others:
            best = min(others, key=others.__getitem__)
            row += [best, told(others[best]), f"{series.times(BURLA, best):.2f}"]
        rows.append(_row(row + [""] * (5 - len(row))))
    return rows


def _table(series: Series) -> list[str]:
    rows = ["| contender | least | median | greatest | rounds | burla / it |"]
    rows.append("|---|---|---|---|---|---|")
    for name, seconds in series.seconds.items():
        numbers = summary(seconds)
        times = map(told, (numbers.low, numbers.median, numbers.high))
        beside = "" if name == BURLA else f"{series.times(BURLA, name):.2f}"
        rows.append(_row([name, *times, str(len(seconds)), beside]))
    return [*rows, "", *(f"- {note}" for note in series.notes)] if series.notes else rows


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _machine(options: Options, before: Before) -> list[str]:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    return [
        f"{datetime.now(UTC):%Y-%m-%d}; {options.workers} CPUs ({_cpu()}), {memory:.0f} GB, "
        f"{platform.system()} {platform.release()}; `sum(range({len(LOOP):_}))` takes "
        f"{told(before.loop_s)}",
        f"{options.rounds} rounds, or as many as are said; {options.scale:g} of the usual number "
        "of inputs",
    ]


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _versions(options: Options) -> list[str]:
    peers = [EXTRAS[name][0] for name in options.contenders if name in EXTRAS]
    known = [f"{name} {importlib.metadata.version(name)}" for name in (*PACKAGES, *peers)]
    return [f"burla {_commit()}, Python {platform.python_version()}", ", ".join(known)]


@functools.cache  # before RESULTS.md is written, which makes the tree another one
def _commit() -> str:
    version = importlib.metadata.version("burla")
    line = ["git", "-C", str(HERE), "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(line, capture_output=True, text=True)
    except OSError:
        return version
    return f"{version} at {done.stdout.strip()}" if done.returncode == 0 else version
