"""What it takes to move a program of another system here, and how long each then runs.

    python -m perf.programs.compare [--rounds 5] [--python VENV/bin/python] [NAME ...]

A folder here is one program, in the manner of a public example of another system: theirs.py and
ours.py, which must print the same. They run alternately as whole processes, on the same two CPUs,
with two workers each, by a Python that has all of these systems; one that a system is missing in is
passed over. Prints a table in Markdown.
"""

import argparse
import difflib
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

HERE = Path(__file__).parent
RUN_S = 120.0  # of one program
CPUS = 2  # which theirs are told to use; ours take what there is
ORIGINAL = "original_quickstart"  # needs an account with others to run there


def main() -> None:
    """Compare the programs that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--python", default=sys.executable)
    options = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CPUS])
    known = sorted(path.parent.name for path in HERE.glob("*/theirs.py"))
    print("| program | lines | changed | theirs s | ours s | ours / theirs |")
    print("|---|---|---|---|---|---|", flush=True)
    for name in options.names or known:
        print(_row(name, options.python, options.rounds), flush=True)


def changed(name: str) -> tuple[int, int]:
    """Return how many lines of code a program has here, and how many of them are new."""
    theirs, ours = (_lines(HERE / name / f"{whose}.py") for whose in ("theirs", "ours"))
    new = [line for line in difflib.ndiff(theirs, ours) if line.startswith("+ ")]
    return len(ours), len(new)


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if line.strip()]


def _row(name: str, python: str, rounds: int) -> str:
    lines, new = changed(name)
    theirs_s, ours_s, ratios = [], [], []
    for _ in range(rounds if name != ORIGINAL else 0):
        their_s, they_said = _run(name, "theirs", python)
        our_s, we_said = _run(name, "ours", python)
        if they_said is None:
            break  # it is not installed
        assert they_said == we_said, (name, they_said, we_said)
        theirs_s.append(their_s)
        ours_s.append(our_s)
        ratios.append(our_s / their_s)
    if not ratios:
        return f"| `{name}` | {lines} | {new} | | | |"
    figures = f"{median(theirs_s):.2f} | {median(ours_s):.2f} | {median(ratios):.2f}"
    return f"| `{name}` | {lines} | {new} | {figures} |"


def _run(name: str, whose: str, python: str) -> tuple[float, str | None]:
    """Return how long a program takes, and what it prints; None: its system is missing."""
    environment = os.environ | {"BURLA_PROGRESS": "off", "PYTHONWARNINGS": "ignore"}
    began_s = time.perf_counter()
    done = subprocess.run(
        [python, f"{HERE / name / whose}.py"],
        capture_output=True,
        text=True,
        timeout=RUN_S,
        env=environment,
        check=False,
    )
    took_s = time.perf_counter() - began_s
    if done.returncode and "ModuleNotFoundError" in done.stderr and whose == "theirs":
        return took_s, None
    assert done.returncode == 0, (name, whose, done.stderr[-2000:])
    return took_s, done.stdout


if __name__ == "__main__":
    main()
