"""A nodelet killed by `kill -9` in the middle of a job on four nodes: the cost and the rest."""

import os
import signal
import threading
import time
from collections.abc import Iterator

from burla import remote_parallel_map

from .clusters import Cluster, running
from .functions import sleep, warm
from .measure import Options, Series, summary, timed
from .peers import BURLA
from .processes import alive, descendants

NODES, SLOTS = 4, 8
CALLS = 6_400
CALL_S = 0.02
AT = 0.4  # of the ideal time, the nodelet is killed
GONE_S_MAX = 10.0  # so long is looked whether something of the node is alive
LOOK_S = 0.01
JOINED_S_MAX = 30.0  # until a new nodelet has forked its workers


class Killing:
    """Kills a nodelet in time, and watches the end of what it had started."""

    def __init__(self, cluster: Cluster, after_s: float) -> None:
        """Begin to wait."""
        self.nodelet = cluster.nodelets.pop(0)
        self.family = descendants(self.nodelet.pid)
        self.gone_s: float | None = None  # after the kill; None: something still lives
        self._after_s = after_s
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        time.sleep(self._after_s)
        self.family = descendants(self.nodelet.pid)
        os.kill(self.nodelet.pid, signal.SIGKILL)
        killed_s = time.monotonic()
        self.nodelet.wait()
        while alive(self.family):
            if time.monotonic() - killed_s > GONE_S_MAX:
                return
            time.sleep(LOOK_S)
        self.gone_s = time.monotonic() - killed_s

    def wait(self) -> float | None:
        """Return how long it took until all were gone."""
        self._thread.join()
        return self.gone_s


def measure(options: Options) -> Iterator[Series]:
    """Yield the job without a loss beside the job with one."""
    inputs = [CALL_S] * max(2 * NODES * SLOTS, options.scaled(CALLS))
    ideal_s = CALL_S * len(inputs) / (NODES * SLOTS)
    series = Series("loss", {BURLA: [], f"{BURLA}, a nodelet killed": []})
    whole, hurt = series.seconds.values()
    gone: list[float | None] = []

    def run() -> float:
        seconds, results = timed(lambda: remote_parallel_map(sleep, inputs, spinner=False))
        assert results == inputs
        return seconds

    with running(SLOTS, NODES) as cluster:
        for _ in range(options.rounds):
            _wait_joined(cluster)
            whole.append(run())
            killing = Killing(cluster, AT * ideal_s)
            try:
                hurt.append(run())
            finally:
                gone.append(killing.wait())
            cluster.add_node(SLOTS)
    later = summary([h - w for h, w in zip(hurt, whole, strict=True)])
    series.notes.append(
        f"{len(inputs):,} calls of {CALL_S:g} s on {NODES} nodes x {SLOTS} slots, one nodelet "
        f"killed after {AT * ideal_s:.2f} s"
    )
    slots_s = (1 - AT) * ideal_s / (NODES - 1)
    series.notes.append(
        f"later by {later.low:.2f}, {later.median:.2f}, {later.high:.2f} s; the missing slots "
        f"alone explain {slots_s:.2f} s"
    )
    said = ", ".join(f"{GONE_S_MAX:g} s: not yet!" if s is None else f"{s:.2f} s" for s in gone)
    series.notes.append(f"the killed nodelet's processes were gone after {said}")
    series.figures["later, in s"] = later.median
    series.figures["until its processes are gone, in s"] = max(s or GONE_S_MAX for s in gone)
    yield series


def _wait_joined(cluster: Cluster) -> None:
    """Return when every nodelet has its workers, and has served a call."""
    until_s = time.monotonic() + JOINED_S_MAX
    while any(len(descendants(nodelet.pid)) < 2 + SLOTS for nodelet in cluster.nodelets):
        if time.monotonic() > until_s:
            raise TimeoutError(f"not all workers after {JOINED_S_MAX} s")
        time.sleep(LOOK_S)
    remote_parallel_map(warm, range(2 * NODES * SLOTS), spinner=False)
