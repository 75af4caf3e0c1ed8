"""One value of 2 GiB as a result, and as an input: how long, and what memory who needs for it.

Over loopback TCP with keys, as between machines: nothing is in memory that all of them share.
"""

import os
from collections.abc import Callable, Iterator

from burla import remote_parallel_map

from .clusters import Cluster, keyed_cluster
from .functions import give_bytes, size_of, warm
from .measure import ALONE_S, Options, Series, in_turn, summary, timed
from .peers import BURLA
from .processes import descendants, forget_peak, peak_bytes, rss_bytes

VALUE_BYTES = 2 << 30
DAEMONS = ("nodelet", "zygote")  # come first below a nodelet; the others are workers


def measure(options: Options) -> Iterator[Series]:
    """Yield both ways; the notes tell the greatest growth of each process."""
    size = options.scaled(VALUE_BYTES)

    def result() -> int:
        return len(remote_parallel_map(give_bytes, [size], spinner=False)[0])

    with keyed_cluster(options.workers) as cluster:
        remote_parallel_map(warm, range(2 * options.workers), spinner=False)
        yield _series("big/result", size, result, cluster, options)
        value = give_bytes(size)

        def input_() -> int:
            return int(remote_parallel_map(size_of, [value], spinner=False)[0])

        yield _series("big/input", size, input_, cluster, options)


def _series(
    name: str, size: int, work: Callable[[], int], cluster: Cluster, options: Options
) -> Series:
    peaks: dict[str, int] = {}

    def run() -> float:
        before = _memory(cluster, rss_bytes)
        for pid in (pid for pids in _processes(cluster).values() for pid in pids):
            forget_peak(pid)
        seconds, length = timed(work)
        assert length == size
        after = _memory(cluster, peak_bytes)
        for who, most in after.items():
            peaks[who] = max(peaks.get(who, 0), most - before.get(who, 0))
        return seconds

    series = in_turn(Series(name), options.rounds, {BURLA: run}, ALONE_S)
    rate = size / 1e6 / summary(series.seconds[BURLA]).median
    series.notes.append(f"a value of {size / 1e6:,.0f} MB, TCP with keys; {rate:,.0f} MB/s")
    told = (f"{who} {grown / 1e6:,.0f} MB ({grown / size:.2f})" for who, grown in peaks.items())
    series.notes.append("most memory beyond before (times the value): " + "; ".join(told))
    series.figures = {f"{who}, MiB more": grown / (1 << 20) for who, grown in peaks.items()}
    series.figures |= {f"{who}, times the value": grown / size for who, grown in peaks.items()}
    return series


def _processes(cluster: Cluster) -> dict[str, list[int]]:
    found = {"caller": [os.getpid()], "scheduler": [cluster.scheduler.pid]}
    below = [pid for nodelet in cluster.nodelets for pid in descendants(nodelet.pid)]
    for name, pid in zip(DAEMONS, below, strict=False):
        found[name] = [pid]
    found["worker"] = below[len(DAEMONS) :]
    return found


def _memory(cluster: Cluster, of: Callable[[int], int]) -> dict[str, int]:
    """Return for each kind of process the greatest of the figures that `of` returns."""
    return {name: max(map(of, pids), default=0) for name, pids in _processes(cluster).items()}
