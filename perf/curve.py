"""A million tiny calls over loopback TCP with keys, beside the same over ipc without."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack

from .clusters import Cluster, cluster, keyed_cluster
from .functions import double
from .measure import Options, Series, in_turn, timed
from .peers import BURLA

CALLS = 1_000_000
IPC = "burla over ipc"


def measure(options: Options) -> Iterator[Series]:
    """Yield one series for each kind of inputs; "burla" is the one with keys."""
    from burla import remote_parallel_map

    calls = options.scaled(CALLS)
    expected = [x * 2 for x in range(calls)]
    with ExitStack() as ends:
        ipc = ends.enter_context(cluster(options.workers))
        tcp = ends.enter_context(keyed_cluster(options.workers))
        assert ipc is not None

        def run(made: Cluster, inputs: range | list[int]) -> Callable[[], float]:
            def measured() -> float:
                os.environ["BURLA_CLUSTER"] = made.address
                seconds, results = timed(lambda: remote_parallel_map(double, inputs, spinner=False))
                assert results == expected
                return seconds

            measured()  # the first call waits for the node
            return measured

        for what, inputs in (("range", range(calls)), ("list of ints", list(range(calls)))):
            series = Series(f"curve/{what}")
            runs = {BURLA: run(tcp, inputs), IPC: run(ipc, inputs)}
            in_turn(series, options.rounds, runs)
            series.notes.append(f"{calls:,} calls; burla: CURVE over loopback TCP, outcomes sealed")
            yield series
