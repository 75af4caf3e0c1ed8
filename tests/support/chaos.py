"""Faults without end, on real clusters: what callers see of them, in a table, by hand.

    PYTHONPATH=.:tests/support python -m chaos [FAULT ...] [--seeds N] [--first N]
    PYTHONPATH=.:tests/support python -m chaos --calls N

Each run is a cluster of its own over TCP with keys, every party behind a line that can be
disturbed, and programs of two users on it, with attached and detached jobs; a seed says what they
do, and when which fault happens to whom. Then chaos_record.py judges what was recorded, and
chaos_safe.py whether a call was run whose outcome was in the scheduler's store. A run that
fails is told with its seed. Faults for which this machine lacks something are named and left out.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import psutil
from chaos_faults import ALL, NOTHING
from chaos_record import Record, Verdict, judge
from chaos_safe import Kept, Watch, unsafe
from chaos_site import SLOTS, USERS, Needs, Site, lacks, open_site
from waiting import wait_until

END_S = 100.0  # a run takes some seconds, and what the faults add
LONG_MS = 40  # of a call, on average
LONG_EVERY_S = 5.0  # the scheduler is killed
SCHEDULER_BYTES_MAX = 256 << 20


@dataclass(frozen=True)
class Run:
    """What became of one run."""

    verdict: Verdict
    seconds: float


def play(name: str, seed: int, directory: Path) -> Run:
    """Run two users' programs while a fault happens again and again.

    Raises:
        AssertionError: what was promised did not hold.
    """
    fault = ALL[name]
    with watched(seed, directory, fault.needs) as (site, watch):
        begun_s = time.monotonic()
        record = Record({user: site.start_caller(user, seed) for user in USERS})
        while any(caller.poll() is None for caller in site.callers.values()):
            assert time.monotonic() < begun_s + END_S, f"not over after {END_S} s"
            until_s = time.monotonic() + site.chance.uniform(*fault.every_s)
            while time.monotonic() < until_s:
                if all(caller.poll() is not None for caller in site.callers.values()):
                    break
                time.sleep(0.02)
            else:
                fault.happen(site)
        seconds = time.monotonic() - begun_s
        verdict = _judge(site, watch, record)
        assert fault.repeats or not verdict.repeated, verdict
        wait_until(lambda: _is_quiet(site), "nothing of the jobs is left")
        used = psutil.Process(site.made.scheduler.pid).memory_info().rss
        assert used < SCHEDULER_BYTES_MAX, f"the scheduler uses {used >> 20} MiB"
    return Run(verdict, seconds)


def play_long(calls: int, directory: Path) -> tuple[int, Run]:
    """Run one detached job; kill its scheduler every 5 s, and each of four nodes once.

    Return how often the scheduler was killed, and what became of it.
    """
    kills = 0
    with watched(0, directory, NOTHING) as (site, watch):
        site.add_node()
        begun_s = time.monotonic()
        user, _ = USERS
        record = Record({user: site.start_caller(user, 0, (calls, LONG_MS, 0, "detached", 0))})
        nodes = list(site.made.nodelets)
        node_s = calls * LONG_MS / 1000 / SLOTS / len(nodes) / (len(nodes) + 1)  # between two
        while site.callers[user].poll() is None:
            time.sleep(LONG_EVERY_S)
            site.restart_scheduler()
            kills += 1
            if nodes and time.monotonic() > begun_s + node_s * (5 - len(nodes)):
                nodes.pop().kill()
                site.add_node()
        run = Run(_judge(site, watch, record), time.monotonic() - begun_s)
    return kills, run


@contextmanager
def watched(seed: int, directory: Path, needs: Needs) -> Iterator[tuple[Site, Watch]]:
    """Run a cluster, and see what its scheduler has on its disk."""
    store = directory / "settings" / "scheduler" / "store"
    with open_site(seed, directory, needs) as site, Watch(store) as watch:
        yield site, watch


def _judge(site: Site, watch: Watch, record: Record) -> Verdict:
    """Judge what users' programs have seen that have ended."""
    directory = site.made.directory
    for user, caller in site.callers.items():
        said = (directory / user / "err").read_text()
        assert caller.returncode == 0, f"{user} ended with {caller.returncode}: {said}"
        record.printed += (directory / user / "out").read_text().splitlines()
        if (refused := directory / user / "refused").exists():
            record.refused |= {f"{user} {number}" for number in refused.read_text().split()}
    for path in (directory / "effects").iterdir():
        record.effects += path.read_text().splitlines()
    verdict = judge(record)
    assert (verdict.lost, verdict.doubled, verdict.shared) == (0, 0, 0), verdict
    in_vain = unsafe(watch.safe_since(), record.effects, _kept(directory))
    assert not in_vain, f"its outcome was safe, and it was run again: {in_vain[:3]}"
    return verdict


def _kept(directory: Path) -> Kept:
    """Return whose the jobs in the store are, as users' programs have written it down."""
    kept = {}
    for path in directory.glob("*/kept"):
        for line in path.read_text().splitlines():
            number, job = line.split()
            kept[job] = path.parent.name, int(number)
    return kept


def _is_quiet(site: Site) -> bool:
    """Return whether no process that a job has used is left, but what waits for the next one."""
    alive = [one for one in site.made.nodelets if one.poll() is None]
    return all(len(site.made.workers(one)) <= 1 + 2 * SLOTS for one in alive)


HEAD = ("fault, again and again", "the caller sees", "runs", "lost", "doubled", "run again", "time")


def row(words: Sequence[object]) -> str:
    """Return a row of a table."""
    return f"| {' | '.join(map(str, words))} |"


def play_all(name: str, seeds: range) -> list[Run]:
    """Return the runs that went well; tell of the others."""
    runs = []
    for seed in seeds:
        with tempfile.TemporaryDirectory(prefix="b", dir="/tmp") as directory:
            try:
                runs.append(play(name, seed, Path(directory)))
            except AssertionError as error:
                print(f"FAILED {name!r}, seed {seed}: {error}", file=sys.stderr, flush=True)
    return runs


def tell(name: str, runs: Sequence[Run]) -> None:
    """Print the row of a fault."""
    verdicts = [run.verdict for run in runs]
    counts = [sum(v.lost for v in verdicts), sum(v.doubled for v in verdicts)]
    again = sum(v.repeated for v in verdicts)
    time_s = f"{median(run.seconds for run in runs):.1f} s"
    print(row([name, ALL[name].seen, len(runs), *counts, again, time_s]), flush=True)


def tell_long(calls: int) -> int:
    """Play a long detached job; tell what became of it."""
    with tempfile.TemporaryDirectory(prefix="b", dir="/tmp") as directory:
        kills, run = play_long(calls, Path(directory))
    again = f"{run.verdict.repeated} run again, none of them when its outcome was safe"
    print(f"{calls} calls, {kills} schedulers and 4 nodes killed: {again}; {run.seconds:.0f} s")
    return 0


def main(words: Sequence[str]) -> int:
    """Run what was asked for; print a table."""
    parser = argparse.ArgumentParser(prog="python -m chaos")
    parser.add_argument("faults", nargs="*", metavar="FAULT", help=f"of {', '.join(ALL)}")
    parser.add_argument("--seeds", type=int, default=10, help="runs of each (10)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (0)")
    parser.add_argument("--calls", type=int, help="one detached job of so many, instead")
    given = parser.parse_args(words)
    if given.calls:
        return tell_long(given.calls)
    if unknown := set(given.faults) - set(ALL):
        parser.error(f"there is no fault {', '.join(sorted(unknown))}")
    print(row(HEAD), row(["---"] * len(HEAD)), sep="\n")
    failed = 0
    for name in given.faults or ALL:
        if lack := lacks(ALL[name].needs):
            print(f"left out, for it needs {lack}: {name}", file=sys.stderr, flush=True)
            continue
        runs = play_all(name, range(given.first, given.first + given.seeds))
        failed += given.seeds - len(runs)
        if runs:
            tell(name, runs)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
