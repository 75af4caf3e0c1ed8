"""One real scheduler with up to 1,000 simulated nodelets and a client, over real sockets."""

import os
import resource
import statistics
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass

from . import fleet
from .clusters import running
from .flood import Flood
from .measure import Options, Series
from .peers import BURLA
from .processes import cpu_s, peak_bytes, threads_s

NODES = (10, 100, 1_000)
SLOTS = 32
CALL_S = 0.05
WARM_S, MEASURE_S = 3.0, 5.0
DRAIN_S_MAX = 20.0  # for what is open at the end; the rest is told
JOIN_S_MAX = 60.0
FILES_PER_NODE = 4  # descriptors in either process
TOLD = 0.05  # of a core: less is not told
FULL = 0.9  # of a core: whoever wants more than that has no time left


@dataclass
class Sample:
    """Everything that is counted, at one moment."""

    at_s: float
    fleet: fleet.Counts
    messages: int  # that the scheduler took or sent
    done: int
    scheduler_s: float  # of processor time, all threads
    wanted_s: dict[str, float]  # by thread: it ran, or waited for a core
    whole_s: float  # of processor time, all three


def measure(options: Options) -> Iterator[Series]:
    """Yield processor time of the scheduler per message, for each number of nodes."""
    window_s = max(0.5, MEASURE_S * min(1.0, options.scale))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_PER_NODE * max(NODES) + 256
    if soft < wanted:  # the scheduler and the fleet inherit it
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))
    for nodes in dict.fromkeys(max(2, options.scaled(nodes)) for nodes in NODES):
        series = Series(f"scale/{nodes:,} nodes, scheduler's time per message", {BURLA: []})
        rounds = [_round(nodes, window_s) for _ in range(options.rounds)]
        for seconds, notes, _ in rounds:
            series.seconds[BURLA].append(seconds)
            series.notes += notes
        series.figures = {
            name: statistics.median(figures[name] for _, _, figures in rounds)
            for name in rounds[0][2]
        }
        yield series


def _round(nodes: int, window_s: float) -> tuple[float, list[str], dict[str, float]]:
    """Return the seconds per message, lines that tell the rest, and what there are aims for."""
    warm_s = WARM_S * min(1.0, window_s / MEASURE_S)
    total = int(nodes * SLOTS * (warm_s + window_s) / CALL_S)  # as many as they could do
    with running(SLOTS, 0) as cluster:
        simulated = fleet.start(cluster.address, nodes, SLOTS, CALL_S)
        try:
            _wait_joined(simulated, nodes)
            flood = Flood(cluster.address, total)
            try:
                pids = {"scheduler": cluster.scheduler.pid, "nodes": simulated.pid}
                pids["client"] = os.getpid()
                begun_s = time.monotonic()
                flood.run_until(begun_s + warm_s)
                before = _sample(simulated, flood, pids)
                flood.run_until(begun_s + warm_s + window_s)
                after = _sample(simulated, flood, pids)
                flood.run_until(time.monotonic() + DRAIN_S_MAX)
                peak = peak_bytes(cluster.scheduler.pid)
                seconds, notes, figures = _told(before, after, nodes, peak)
                if flood.failed:
                    notes.append(
                        f"  THE JOB BROKE after {flood.done.total:,} calls: {flood.failed}"
                    )
                elif left := flood.total - flood.done.total:
                    notes.append(f"  {left:,} inputs were still open {DRAIN_S_MAX:g} s later")
                return seconds, notes, figures
            finally:
                flood.close()
        finally:
            assert simulated.stdin is not None
            simulated.stdin.close()
            simulated.wait()


def _wait_joined(simulated: subprocess.Popen[bytes], nodes: int) -> None:
    until_s = time.monotonic() + JOIN_S_MAX
    while (joined := fleet.counts_of(simulated).welcomed) < nodes:
        if time.monotonic() > until_s:
            raise TimeoutError(f"{joined} of {nodes} nodes joined within {JOIN_S_MAX} s")
        time.sleep(0.1)


def _sample(simulated: subprocess.Popen[bytes], flood: Flood, pids: dict[str, int]) -> Sample:
    counts = fleet.counts_of(simulated)
    return Sample(
        at_s=counts.at_s,
        fleet=counts,
        messages=counts.taken + counts.sent + flood.taken + flood.sent,
        done=flood.done.total,
        scheduler_s=cpu_s(pids["scheduler"]),
        wanted_s=_wanted_s(pids),
        whole_s=sum(map(cpu_s, pids.values())),
    )


def _wanted_s(pids: dict[str, int]) -> dict[str, float]:
    """Return the main thread of each process, and the busiest of its others, which are libzmq's."""
    wanted = {}
    for name, pid in pids.items():
        wanted[name], *others = threads_s(pid).values()
        wanted[f"{name}'s libzmq"] = max(others, default=0.0)
    return wanted


def _told(
    before: Sample, after: Sample, nodes: int, peak: int
) -> tuple[float, list[str], dict[str, float]]:
    took_s = after.at_s - before.at_s
    messages = after.messages - before.messages
    busy = (after.fleet.busy_s - before.fleet.busy_s) / (took_s * nodes * SLOTS)
    rate = (after.done - before.done) / took_s
    parts = {
        name: (after.wanted_s[name] - before.wanted_s[name]) / took_s for name in after.wanted_s
    }
    full = [name for name, part in parts.items() if part >= FULL]
    cores = len(os.sched_getaffinity(0))
    size = f"{nodes:,} x {SLOTS} slots ({after.fleet.leased:,} leased), {CALL_S * 1000:g} ms a call"
    if full:
        limit = f"limited by a single thread: {', '.join(full)}"
    elif after.whole_s - before.whole_s >= FULL * cores * took_s:
        limit = f"limited by this machine's {cores} cores together"
    elif busy >= FULL:
        limit = "limited by nothing: the slots were busy"
    else:
        limit = "limited by no core: by how much work was ahead on the nodes"
    shares = ", ".join(f"{name} {part:.0%}" for name, part in parts.items() if part >= TOLD)
    notes = [
        f"{size}: {rate:,.0f} calls/s, slots {busy:.1%} busy",
        f"  {messages / took_s:,.0f} messages/s; scheduler's memory at most {peak / 1e6:,.0f} MB",
        f"  {limit}",
        f"  (ran or waited for a core: {shares})",
    ]
    figures = {"of the slots busy": busy, "scheduler's memory, MB": peak / 1e6}
    return (after.scheduler_s - before.scheduler_s) / max(1, messages), notes, figures
