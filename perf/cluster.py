"""A whole cluster on this one machine: 16 nodelets of 32 workers, all of them real processes."""

import operator
import time
from collections.abc import Iterator

from burla import remote_parallel_map

from .clusters import Cluster, running
from .functions import double, sleep, warm
from .measure import ALONE_S, Options, Series, in_turn, timed
from .peers import BURLA
from .processes import descendants, pss_bytes, ran_s, rss_bytes

NODES, SLOTS = 16, 32
CALLS = 1_000_000
SLEEP_S = 1.0
START_S_MAX = 120.0  # until every worker is forked, however busy the machine is
LOOK_S = 0.1  # how often that is looked at; a look at 500 processes costs 10 ms
HELD_S = 6.0  # calls sleep this long while the memory is summed, which is done half-way
SMALL_MIN = 2  # nodes, and slots of each, however small the scale: one would be no cluster


def measure(options: Options) -> Iterator[Series]:
    """Yield start, tiny calls and sleeps; the notes of the last tell the memory."""
    nodes = max(SMALL_MIN, min(NODES, options.scaled(NODES)))
    slots = max(SMALL_MIN, min(SLOTS, options.scaled(SLOTS)))
    size = f"{nodes} nodelets x {slots} workers"
    begun_s = time.perf_counter()
    with running(slots, nodes) as cluster:
        _wait_workers(cluster, slots)
        start = Series("cluster/start", {BURLA: [time.perf_counter() - begun_s]})
        start.notes.append(f"{size}: until every worker is forked")
        parts = {
            name: sum(map(ran_s, pids))
            for name, pids in _kinds(cluster).items()
            if name != "scheduler"
        }
        told = ", ".join(f"{name} {seconds:.2f}" for name, seconds in parts.items())
        start.notes.append(f"seconds of processor time: {sum(parts.values()):.2f}; {told}")
        yield start
        assert remote_parallel_map(warm, range(nodes * slots), spinner=False)

        inputs = list(range(options.scaled(CALLS)))

        def tiny() -> float:
            seconds, results = timed(lambda: remote_parallel_map(double, inputs, spinner=False))
            assert len(results) == len(inputs)
            assert all(map(operator.eq, results, range(0, 2 * len(inputs), 2)))
            return seconds

        naps = [SLEEP_S] * (nodes * slots)

        def nap() -> float:
            seconds, results = timed(lambda: remote_parallel_map(sleep, naps, spinner=False))
            assert results == naps
            return seconds

        tiny()  # the first call of all starts this process's thread
        tinies = in_turn(Series("cluster/tiny calls"), options.rounds, {BURLA: tiny}, ALONE_S)
        tinies.notes.append(f"{size}, warm; {len(inputs):,} calls, list in, list out")
        yield tinies
        sleeps = in_turn(Series("cluster/sleeps"), options.rounds, {BURLA: nap}, ALONE_S)
        sleeps.notes.append(f"{size}; {len(naps)} calls of sleep({SLEEP_S:g}), as many as slots")
        held_s = max(SLEEP_S, HELD_S * min(1.0, options.scale))
        held = remote_parallel_map(sleep, [held_s] * len(naps), generator=True, spinner=False)
        time.sleep(held_s / 2)  # until all of them run
        sleeps.notes += _memory(cluster)
        assert list(held) == [held_s] * len(naps)
        yield sleeps


def _wait_workers(cluster: Cluster, slots: int) -> None:
    """Return when each nodelet has a zygote and `slots` workers below it."""
    until_s = time.monotonic() + START_S_MAX
    for nodelet in cluster.nodelets:
        while len(descendants(nodelet.pid)) < 2 + slots:
            if time.monotonic() > until_s:
                raise TimeoutError(f"not all workers of {nodelet.args!r} after {START_S_MAX} s")
            time.sleep(LOOK_S)


def _kinds(cluster: Cluster) -> dict[str, list[int]]:
    """Return the processes of each kind."""
    nodelets, zygotes, workers = [], [], []
    for nodelet in cluster.nodelets:
        own, zygote, *forked = descendants(nodelet.pid)
        nodelets.append(own)
        zygotes.append(zygote)
        workers += forked
    return {
        "scheduler": [cluster.scheduler.pid],
        "nodelets": nodelets,
        "zygotes": zygotes,
        "workers": workers,
    }


def _memory(cluster: Cluster) -> Iterator[str]:
    """Yield a line for each kind of process, and one for all."""
    whole = 0.0
    for name, pids in _kinds(cluster).items():
        pss, rss = (sum(map(of, pids)) / 1e6 for of in (pss_bytes, rss_bytes))
        whole += pss
        yield f"memory of {len(pids)} {name}: {pss:,.0f} MB (PSS; RSS {rss:,.0f} MB)"
    yield f"memory of the whole, a call in every slot: {whole:,.0f} MB (PSS)"
