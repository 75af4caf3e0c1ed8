"""Ten million tiny calls beside one million: time in proportion, memory bounded."""

import operator
import os
from collections.abc import Callable, Iterator

from burla import remote_parallel_map

from .clusters import Cluster, running
from .functions import double, warm
from .measure import ALONE_S, Options, Series, in_turn, summary, timed
from .peers import BURLA
from .processes import forget_peak, peak_bytes, rss_bytes

FEW, MANY = 1_000_000, 10_000_000
RESULT_BYTES = 8 + 32  # of a list and of the int in it: the least that the caller must hold


def measure(options: Options) -> Iterator[Series]:
    """Yield both sizes in one series; the notes tell the most memory that was in use."""
    few, many = options.scaled(FEW), options.scaled(MANY)
    label = f"{BURLA}, {many:,} calls"
    peaks: dict[int, dict[str, int]] = {few: {}, many: {}}
    with running(options.workers, 1) as cluster:
        remote_parallel_map(warm, range(2 * options.workers), spinner=False)
        runs = {
            BURLA: _run_of(few, cluster, peaks[few]),
            label: _run_of(many, cluster, peaks[many]),
        }
        series = in_turn(Series("linear"), options.rounds, runs, ALONE_S)
    part = summary(series.seconds[label]).median / summary(series.seconds[BURLA]).median
    series.notes.append(f"{few:,} calls over a range, and {many:,}: {part:.1f} times as long")
    for calls, of in peaks.items():
        told = "; ".join(f"{name} {size / 1e6:,.0f} MB" for name, size in of.items())
        least = calls * RESULT_BYTES / 1e6
        series.notes.append(f"most memory beyond before, {calls:,} calls: {told}")
        series.notes.append(f"  of the caller's, the list of results alone is {least:,.0f} MB")
    yield series


def _run_of(calls: int, cluster: Cluster, peaks: dict[str, int]) -> Callable[[], float]:
    """Return what maps over `calls` inputs, and notes the greatest growth of each process."""
    pids = {
        "caller": os.getpid(),
        "scheduler": cluster.scheduler.pid,
        "nodelet": cluster.nodelets[0].pid,
    }

    def run() -> float:
        before = {name: rss_bytes(pid) for name, pid in pids.items()}
        for pid in pids.values():
            forget_peak(pid)
        inputs = range(calls)
        seconds, results = timed(lambda: remote_parallel_map(double, inputs, spinner=False))
        for name, pid in pids.items():
            peaks[name] = max(peaks.get(name, 0), peak_bytes(pid) - before[name])
        assert len(results) == calls
        assert all(map(operator.eq, results, range(0, 2 * calls, 2)))
        return seconds

    return run
