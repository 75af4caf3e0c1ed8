"""100,000 calls that print a line each: all lines out, once each, before the map returns."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .functions import line, print_line, print_line_now
from .measure import Options, Series, in_turn
from .peers import ALL, started, variants

CALLS = 100_000
CHUNKS = (100, 1_000, 10_000, 50_000)


@contextmanager
def stdout_to(path: Path) -> Iterator[None]:
    """Let this process, and whatever it starts, append its stdout to the file at `path`."""
    sys.stdout.flush()
    before = os.dup(1)
    file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(file, 1)
    os.close(file)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(before, 1)
        os.close(before)


def measure(options: Options) -> Iterator[Series]:
    """Yield the one series."""
    numbers = range(options.scaled(CALLS))
    lines = sorted(line(number) for number in numbers)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "stdout")

        def check(results: list[Any]) -> None:
            sys.stdout.flush()
            printed = path.read_text()
            os.truncate(path, 0)  # for the next one; everybody appends
            assert results == list(numbers)
            assert sorted(printed.splitlines()) == lines

        able = [name for name in options.contenders if ALL[name].prints]
        with stdout_to(path), started(able, options.workers) as contenders:
            runs = variants(contenders, print_line, numbers, CHUNKS, check, print_line_now)
            series = in_turn(Series("prints"), options.rounds, runs)
    series.notes.append("every line was there once at the return, from every contender")
    if unable := sorted(set(options.contenders) - set(able)):
        series.notes.append(f"left out, since their lines are not: {', '.join(unable)}")
    yield series
