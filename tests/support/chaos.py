"""Faults without end, on real clusters: what callers see of them, in a table, by hand.

    PYTHONPATH=.:tests/support python -m chaos [FAULT ...] [--seeds N] [--first N]

Each run is a cluster of its own over TCP with keys, every party behind a line that can be
disturbed, and programs of two users on it, with attached and detached jobs; a seed says what they
do, and when which fault happens to whom. Then chaos_record.py judges what was recorded. A run that
fails is told with its seed. Faults for which this machine lacks something are named and left out.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import psutil
from chaos_faults import ALL
from chaos_record import Record, Verdict, judge
from chaos_site import SLOTS, USERS, Site, lacks, open_site
from waiting import wait_until

END_S = 100.0  # a run takes some seconds, and what the faults add
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
    with open_site(seed, directory, fault.needs) as site:
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
        for user, caller in site.callers.items():
            said = (directory / user / "err").read_text()
            assert caller.returncode == 0, f"{user}: {said}"
            record.printed += (directory / user / "out").read_text().splitlines()
        for path in (directory / "effects").iterdir():
            record.effects += path.read_text().splitlines()
        verdict = judge(record)
        assert (verdict.lost, verdict.doubled, verdict.shared) == (0, 0, 0), verdict
        assert fault.repeats or not verdict.repeated, verdict
        wait_until(lambda: _is_quiet(site), "nothing of the jobs is left")
        used = psutil.Process(site.made.scheduler.pid).memory_info().rss
        assert used < SCHEDULER_BYTES_MAX, f"the scheduler uses {used >> 20} MiB"
    return Run(verdict, seconds)


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


def main(words: Sequence[str]) -> int:
    """Run what was asked for; print a table."""
    parser = argparse.ArgumentParser(prog="python -m chaos")
    parser.add_argument("faults", nargs="*", metavar="FAULT", help=f"of {', '.join(ALL)}")
    parser.add_argument("--seeds", type=int, default=10, help="runs of each (10)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (0)")
    given = parser.parse_args(words)
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
