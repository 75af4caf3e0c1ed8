"""`burla demo`: a first job, a million tiny calls, and real work, on one screen.

The functions that run on the cluster stand at the top and need nothing but the standard library;
workers import this module to find them, so it loads no more than that.
"""

import ast
import sysconfig
import time
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from burla.parallel_map import remote_parallel_map

if TYPE_CHECKING:
    from rich.console import Console

CALLS = 1_000_000
FILES_MAX = 600  # enough to be real work, and over in a few seconds on two cores
ROWS = 5  # of the table: the demo is to fit on a screen of 24 lines
COUNTED = ("lines", "functions", "classes", "imports")

KINDS = {
    ast.FunctionDef: "functions",
    ast.AsyncFunctionDef: "functions",
    ast.ClassDef: "classes",
    ast.Import: "imports",
    ast.ImportFrom: "imports",
}


def my_function(my_argument: int) -> int:
    """Print, and return twice the argument: the example of the README."""
    print(f"Running remote computer #{my_argument} in the cloud!")
    return my_argument * 2


def double(x: int) -> int:
    """Return twice `x`."""
    return x * 2


def count(path: str) -> dict[str, int]:
    """Return how many lines, functions, classes and imports the Python file at `path` has."""
    with open(path, "rb") as file:
        source = file.read()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a compiler would say of the file is no concern here
        tree = ast.parse(source, path)
    counts = dict.fromkeys(COUNTED, 0) | {"lines": source.count(b"\n")}
    for node in ast.walk(tree):
        if kind := KINDS.get(type(node)):
            counts[kind] += 1
    return counts


def standard_library(files_max: int = FILES_MAX) -> list[str]:
    """Return the paths of up to `files_max` modules of the running Python's standard library."""
    root = Path(sysconfig.get_paths()["stdlib"])
    left_out = {"test", "tests", "idlelib", "lib2to3", "site-packages", "dist-packages"}
    paths = (
        path
        for path in sorted(root.rglob("*.py"))
        if left_out.isdisjoint(path.relative_to(root).parts)
    )
    return [str(path) for path, _ in zip(paths, range(files_max), strict=False)]


def package_of(path: str) -> str:
    """Return the top-level module or package of the standard library that `path` belongs to."""
    first = Path(path).relative_to(sysconfig.get_paths()["stdlib"]).parts[0]
    return first.removesuffix(".py")


def by_package(
    paths: Iterable[str], counts: Iterable[dict[str, int]]
) -> list[tuple[str, dict[str, int]]]:
    """Return package and sums of its files' counts, the one with most lines first."""
    sums: dict[str, dict[str, int]] = {}
    for path, counted in zip(paths, counts, strict=True):
        total = sums.setdefault(package_of(path), dict.fromkeys(("files", *COUNTED), 0))
        total["files"] += 1
        for kind in COUNTED:
            total[kind] += counted[kind]
    return sorted(sums.items(), key=lambda item: -item[1]["lines"])


def run_demo(console: "Console", calls: int = CALLS, files_max: int = FILES_MAX) -> None:
    """Run the three parts and tell of them on `console`.

    Args:
        console: where it is told; what the example prints goes to this process's stdout.
        calls: how many tiny calls.
        files_max: how many files to parse at most.
    """
    _first_job(console)
    _tiny_calls(console, calls)
    _real_work(console, standard_library(files_max))


def main() -> None:
    """Run the demo on this terminal, or as plain text where there is none."""
    from rich.console import Console

    run_demo(Console(highlight=False))


def _first_job(console: "Console") -> None:
    console.print("[bold]1  A first job[/]  remote_parallel_map(my_function, [1, 2, 3, 4])")
    start = time.perf_counter()
    results = remote_parallel_map(my_function, [1, 2, 3, 4])
    took_s = time.perf_counter() - start
    console.print(
        f"return values: {results}  [dim]({took_s:.2f} s, the cluster's start included)[/]"
    )


def _tiny_calls(console: "Console", calls: int) -> None:
    inputs = list(range(calls))
    start = time.perf_counter()
    results = remote_parallel_map(double, inputs, spinner=False)
    took_s = time.perf_counter() - start
    start = time.perf_counter()
    expected = [double(x) for x in inputs]
    loop_s = time.perf_counter() - start
    if results != expected:
        raise AssertionError("the results differ from those of the same loop here")
    console.print(f"\n[bold]2  {calls:,} tiny calls[/]  def double(x): return x * 2")
    for what, seconds in (("remote_parallel_map", took_s), ("the same loop here", loop_s)):
        console.print(f"   {what:<20} {seconds:6.3f} s  {calls / seconds:>14,.0f} calls/s")


def _real_work(console: "Console", paths: Sequence[str]) -> None:
    from rich.table import Table

    start = time.perf_counter()
    counts = remote_parallel_map(count, paths, spinner=False)
    took_s = time.perf_counter() - start
    console.print(
        f"\n[bold]3  Python's own library[/]  {len(paths)} files parsed in {took_s:.2f} s, "
        "a call for each file"
    )
    packages = by_package(paths, counts)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 1))
    table.add_column("package")
    columns = ("files", *COUNTED)
    for column in columns:
        table.add_column(column, justify="right")
    for name, sums in packages[:ROWS]:
        table.add_row(f"  {name}", *(f"{sums[column]:,}" for column in columns))
    whole = (sum(sums[column] for _, sums in packages) for column in columns)
    table.add_row(f"  all {len(packages)}", *(f"{number:,}" for number in whole), style="bold")
    console.print(table)
