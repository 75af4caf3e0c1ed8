"""`python -m perf compare COMMIT [COMMIT]`: the same measurements of two commits, in turn.

By hand, before a change lands: each round measures both, one right after the other, and what counts
is the ratio within a round, which tells more than two runs of which each had its own luck.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from .report import WIDTH, told
from .side import CASES, MADE, USUAL

ROOT = Path(__file__).resolve().parents[1]
ROUNDS = 15
END_S_MAX = 20.0  # until a side and its cluster are gone
WORKING_TREE = "working tree"
SURE = 0.95


class SideEndedError(Exception):
    """A side ended before it had measured all; it has said why on stderr."""


@dataclass
class Pairs:
    """One case of both commits; seconds, one pair per round."""

    case: str
    before: list[float] = field(default_factory=list)
    after: list[float] = field(default_factory=list)

    @property
    def ratios(self) -> list[float]:
        """Return after over before, ascending; under 1: it got faster."""
        return sorted(b / a for a, b in zip(self.before, self.after, strict=True))


def median_range(values: Sequence[float]) -> tuple[float, float]:
    """Return between which of the sorted `values` the median of all that could be lies.

    So it is with a probability of SURE at least, whatever the distribution: the number of values
    below a median is binomial. With less than 6 values all can be said is least and greatest.
    """
    n, below, k = len(values), 0.0, 0
    while True:
        below += math.comb(n, k) / 2**n
        if below > (1 - SURE) / 2:
            break
        k += 1
    k = max(k, 1)
    return values[k - 1], values[n - k]


def paired(
    cases: Sequence[str],
    rounds: int,
    before: Callable[[str], float],
    after: Callable[[str], float],
) -> Iterator[Pairs]:
    """Yield each case when it has all rounds; every other one begins with the other side."""
    for case in cases:
        pairs = Pairs(case)
        for turn in range(rounds):
            sides = [(before, pairs.before), (after, pairs.after)]
            for measure, seconds in sides if turn % 2 == 0 else reversed(sides):
                seconds.append(measure(case))
        yield pairs


# --- the two sides ---


def name_of(commit: str) -> str:
    """Return the short hash of a commit.

    Raises:
        ValueError: there is none of this name.
    """
    line = ["git", "-C", str(ROOT), "rev-parse", "--short", "--verify", f"{commit}^{{commit}}"]
    done = subprocess.run(line, capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"{commit!r} is no commit here: {done.stderr.strip()}")
    return done.stdout.strip()


def take_out(commit: str, folder: Path) -> Path:
    """Return `folder`, into which the files of a commit were written; the repository stays."""
    folder.mkdir()
    line = ["git", "-C", str(ROOT), "archive", commit]
    with subprocess.Popen(line, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
            archive.extractall(folder, filter="data")
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, line)
    return folder


@contextmanager
def side(tree: Path, folder: Path, over: str, scale: float) -> Iterator[Callable[[str], float]]:
    """Run the code in `tree` in a process of its own; yields what measures a case there."""
    folder.mkdir()
    tools = folder / "tools"
    tools.mkdir()
    (tools / "perf").symlink_to(ROOT / "perf")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("BURLA_")}
    environment["PYTHONPATH"] = f"{tools}{os.pathsep}{tree}"
    line = [sys.executable, "-P", "-m", "perf.side", over, str(scale), str(tree)]
    with subprocess.Popen(
        line, cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        stdin, stdout = process.stdin, process.stdout
        assert stdin is not None
        assert stdout is not None

        def measure(case: str) -> float:
            print(case, file=stdin, flush=True)
            answer = stdout.readline()
            if not answer:
                raise SideEndedError(f"perf compare: {case} failed in {tree}, see above")
            return float(json.loads(answer))

        try:
            yield measure
        finally:
            with suppress(BrokenPipeError):  # it has ended, and said why
                stdin.close()
            try:
                process.wait(END_S_MAX)
            except subprocess.TimeoutExpired:
                process.kill()


# --- the command ---


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(
        prog="python -m perf compare",
        description="Measure two commits in turn, each in a process and a cluster of its own.",
        epilog="Cases: " + "; ".join(f"{name}: {what}" for name, (what, _) in CASES.items()) + ". "
        f"The ratio is the median of after over before in the same round; the median of very many "
        f"rounds lies in the range beside it, {SURE:.0%} sure. What includes 1.00 shows nothing.",
    )
    made.add_argument("before", metavar="COMMIT")
    made.add_argument("after", metavar="COMMIT", nargs="?", help="default: the working tree")
    made.add_argument(
        "--cases", nargs="+", choices=list(CASES), default=USUAL, metavar="CASE",
        help=f"default: {' '.join(USUAL)}",
    )  # fmt: skip
    made.add_argument("--rounds", type=int, default=ROUNDS, help=f"of each case ({ROUNDS})")
    made.add_argument("--over", choices=list(MADE), default="private", help="the cluster (private)")
    made.add_argument("--scale", type=float, default=1.0, help="of the number of inputs (1.0)")
    made.add_argument("--json", type=Path, metavar="FILE", help="write every measurement")
    return made


def main(arguments: Sequence[str]) -> int:
    """Compare two commits and return the exit code."""
    command = parser()
    given = command.parse_args(arguments)
    if given.rounds < 1:
        command.error("--rounds: at least 1")
    try:
        names = [name_of(given.before), name_of(given.after) if given.after else WORKING_TREE]
    except ValueError as error:
        command.error(str(error))
    try:
        all_pairs = compare(names, given)
    except SideEndedError as error:
        print(error, file=sys.stderr)
        return 1
    table(all_pairs, names)
    if given.json:
        facts = {"before": names[0], "after": names[1], "over": given.over, "scale": given.scale}
        cases = {pairs.case: [pairs.before, pairs.after] for pairs in all_pairs}
        given.json.write_text(json.dumps({**facts, "seconds": cases}, indent=1) + "\n")
    return 0


def compare(names: Sequence[str], given: argparse.Namespace) -> list[Pairs]:
    """Return all cases of both sides; each is told when it is there.

    Raises:
        SideEndedError: a case failed.
    """
    all_pairs = []
    with ExitStack() as ends:
        folder = Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="perf-")))
        measures = []
        for place, name in zip(("before", "after"), names, strict=True):
            tree = ROOT if name == WORKING_TREE else take_out(name, folder / f"{place}-tree")
            made = side(tree, folder / place, given.over, given.scale)
            measures.append(ends.enter_context(made))
        for pairs in paired(given.cases, given.rounds, *measures):
            all_pairs.append(pairs)
            print(line_of(pairs), file=sys.stderr, flush=True)
    return all_pairs


def line_of(pairs: Pairs) -> str:
    """Return one case in short, for who waits."""
    low, high = median_range(pairs.ratios)
    return f"{pairs.case}: {statistics.median(pairs.ratios):.3f} ({low:.3f} to {high:.3f})"


def table(all_pairs: Sequence[Pairs], names: Sequence[str]) -> None:
    """Print all cases."""
    rows = Table(box=None, title_justify="left", title=f"{names[0]} -> {names[1]}")
    rows.add_column("case")
    for column in (*names, "after / before", f"{SURE:.0%} range", "rounds"):
        rows.add_column(column, justify="right")
    for pairs in all_pairs:
        low, high = median_range(pairs.ratios)
        rows.add_row(
            f"{pairs.case}: {CASES[pairs.case][0]}",
            told(statistics.median(pairs.before)),
            told(statistics.median(pairs.after)),
            f"{statistics.median(pairs.ratios):.3f}",
            f"{low:.3f} to {high:.3f}",
            str(len(pairs.before)),
        )
    Console(width=WIDTH + 10, highlight=False).print(rows)
