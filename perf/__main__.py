"""`python -m perf`: run cases, each in a process of its own, and tell who was faster."""

import argparse
import json
import multiprocessing
import os
import platform
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

from . import compare, peers, results
from .measure import Options, Series, run_case
from .peers import ALL, BURLA, EXTRAS, installed
from .report import chart, table

BESIDE_PEERS = ("tiny", "latency", "loop", "cold", "uneven", "data", "prints", "executor")
# No peer does the same.
ALONE = ("loop_heavy", "broadcast", "big", "cluster", "balance", "shares", "loss", "scale")
USUAL = BESIDE_PEERS + ALONE
BY_NAME = ("linear", "curve", "wire", "up")  # alone, too; some minutes each
CASES = USUAL + BY_NAME
ROUNDS = 5
# Each contender that never rests is measured apart from the others here, who start all of them
# once; `cold` starts each anew, and the other cases have no such contenders.
APART = ("tiny", "latency", "loop", "uneven", "data")
OTHER_ROUNDS = {
    **{"big": 2, "cluster": 3, "shares": 2, "loss": 3, "scale": 1, "balance": 3},
    "tiny": 11,  # so short that single ones tell little
}
# Seconds on two quiet CPUs, with all peers and the usual number of rounds and inputs.
LAST_S = {
    **{"tiny": 110, "latency": 30, "loop": 20, "cold": 35, "uneven": 70, "data": 55},
    **{"prints": 40, "executor": 10, "loop_heavy": 10, "broadcast": 15, "big": 45},
    **{"cluster": 30, "balance": 15, "shares": 30, "loss": 30, "scale": 40},
}


def estimate(cases: Sequence[str]) -> str:
    """Return how long these take, for people."""
    known = sum(LAST_S.get(case, 0) for case in cases)
    unknown = [case for case in cases if case not in LAST_S]
    words = [f"at most {max(1, round(known / 60))} min"] * bool(known)
    words += [f"some minutes each for {', '.join(unknown)}"] * bool(unknown)
    return f"perf: {len(cases)} case(s) on a quiet machine: {', and '.join(words)}"


def in_fresh_process(case: str, options: Options) -> list[Series]:
    """Run `case` where nobody has started a thread yet, so that pools can fork."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        return executor.submit(run_case, case, options).result()


def in_groups(case: str, options: Options) -> list[Series]:
    """Run `case`, for contenders that disturb others by themselves; return one series of all."""
    groups = peers.groups(options.contenders) if case in APART else [options.contenders]
    first, *others = (in_fresh_process(case, replace(options, contenders=one)) for one in groups)
    for series in (series for measured in others for series in measured):
        next(one for one in first if one.name == series.name).join(series, BURLA)
    return first


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    others = [name for name in ALL if name != BURLA]
    made = argparse.ArgumentParser(
        prog="python -m perf",
        description="Measure burla beside its peers: all in turn, in one run, on this machine.",
        epilog="Least, median, greatest over the rounds. The ratio is the median of burla's time "
        "over the contender's in the same round; under 1, burla is faster. "
        "`python -m perf results ...` writes perf/RESULTS.md as well; "
        "`python -m perf compare COMMIT [COMMIT]` compares two commits of burla.",
    )
    made.add_argument(
        "cases",
        nargs="*",
        metavar="CASE",
        help=f"beside peers: {', '.join(BESIDE_PEERS)}; burla alone: {', '.join(ALONE)} (default: "
        f"all of these); and, each some minutes: {', '.join(BY_NAME)}",
    )
    other = ", ".join(f"{case}: {rounds}" for case, rounds in OTHER_ROUNDS.items())
    made.add_argument(
        "--rounds", type=int, help=f"how often each contender runs ({ROUNDS}; {other})"
    )
    made.add_argument("--peers", nargs="*", choices=others, default=others, help="default: all")
    made.add_argument("--without", action="append", choices=list(ALL), default=[])
    made.add_argument("--scale", type=float, default=1.0, help="of the number of inputs (1.0)")
    made.add_argument("--json", type=Path, metavar="FILE", help="write every measurement")
    made.add_argument("--chart", type=Path, metavar="FILE.png", help="draw the medians")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the cases and return the exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    if words[:1] == ["compare"]:
        return compare.main(words[1:])
    command = parser()
    writes_results = words[:1] == ["results"]
    before = results.look() if writes_results else results.Before()
    given = command.parse_args(words[1:] if writes_results else words)
    if unknown := sorted(set(given.cases) - set(CASES)):
        command.error(f"no such case: {', '.join(unknown)}; there are {', '.join(CASES)}")
    if given.rounds is not None and given.rounds < 1:
        command.error("--rounds: at least 1")
    wanted = [name for name in (BURLA, *given.peers) if name not in given.without]
    names = tuple(installed(wanted))
    for name in set(wanted) - set(names):
        extra = EXTRAS[name][1]
        print(
            f"perf: {name} is not installed, left out (pip install '.[{extra}]')", file=sys.stderr
        )
    rounds = given.rounds or ROUNDS
    options = Options(names, rounds, len(os.sched_getaffinity(0)), given.scale)
    measured: list[Series] = []
    cases = given.cases or USUAL
    print(estimate(cases), file=sys.stderr)
    for case in cases:
        begun_s = time.monotonic()
        rounds = given.rounds or OTHER_ROUNDS.get(case, ROUNDS)
        for series in in_groups(case, replace(options, rounds=rounds)):
            table(series, sys.stdout)
            measured.append(series)
        print(f"perf: {case} took {time.monotonic() - begun_s:.0f} s", file=sys.stderr)
        if writes_results:  # after each case: who breaks off has those before
            results.PATH.write_text(results.markdown(measured, options, before))
    if given.json:
        facts = {
            "machine": f"{platform.machine()}, {options.workers} CPUs, {platform.system()}",
            "python": platform.python_version(),
            "options": asdict(options),
            "series": [asdict(series) for series in measured],
        }
        given.json.write_text(json.dumps(facts, indent=1) + "\n")
    if given.chart:
        chart(measured, given.chart)
    return 0


if __name__ == "__main__":
    sys.exit(main())
