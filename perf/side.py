"""One commit's side of `python -m perf compare`: measures what it is asked for, and says it.

It is run with that commit's `burla` first on the path, and with this folder as `perf`: both sides
are measured in the same way, whatever the commits have here.
"""

import json
import os
import statistics
import sys
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from . import clusters, cold
from .functions import closure, double, echo_bytes, print_line
from .latency import AFTER_PAUSES, pause
from .measure import Options, settled, timed
from .peers import BURLA

SMALL_MAPS = 20  # of a small map in a row; the median of them is one measurement
CALLS = 1_000_000
LAZY_CALLS = 200_000
PRINTS = 20_000
CLOSURE_BYTES = 3_000_000
ECHOED, ECHOED_BYTES = 16, 8_000_000
MADE: dict[str, Callable[[Options], AbstractContextManager[object]]] = {
    "private": lambda options: nullcontext(),
    "ipc": lambda options: clusters.running(options.workers, 1),
    "tcp": lambda options: clusters.keyed_cluster(options.workers),
}  # what the calls run on

Measured = Callable[[Options], Callable[[], float]]


def _map(function: Callable[..., Any], inputs: Iterable[Any]) -> list[Any]:
    from burla import remote_parallel_map

    return remote_parallel_map(function, inputs, spinner=False)


def _small(function: Callable[[int], int], count: int, options: Options) -> Callable[[], float]:
    inputs = list(range(count))
    expected = [function(x) for x in inputs]
    maps = max(3, options.scaled(SMALL_MAPS))

    def once() -> float:
        seconds, results = timed(lambda: _map(function, inputs))
        assert results == expected
        return seconds

    return lambda: statistics.median(once() for _ in range(maps))


def _paused(options: Options) -> Callable[[], float]:
    calls = max(3, options.scaled(AFTER_PAUSES))

    def once() -> float:
        pause()
        seconds, results = timed(lambda: _map(double, [21]))
        assert results == [double(21)]
        return seconds

    return lambda: statistics.median(once() for _ in range(calls))


def _tiny(inputs: Callable[[int], Any], calls: int, options: Options) -> Callable[[], float]:
    calls = options.scaled(calls)
    expected = [x * 2 for x in range(calls)]

    def once() -> float:
        given = inputs(calls)
        seconds, results = timed(lambda: _map(double, given))
        assert results == expected
        return seconds

    return once


def _generator(options: Options) -> Callable[[], float]:
    calls = options.scaled(LAZY_CALLS)
    expected = [x * 2 for x in range(calls)]

    def work() -> list[int]:
        from burla import remote_parallel_map

        results = remote_parallel_map(double, range(calls), generator=True, spinner=False)
        return list(results)

    def once() -> float:
        seconds, results = timed(work)
        assert sorted(results) == expected
        return seconds

    return once


def _prints(options: Options) -> Callable[[], float]:
    numbers = range(options.scaled(PRINTS))

    def once() -> float:
        os.truncate(1, 0)  # a file: see `main`
        seconds, results = timed(lambda: _map(print_line, numbers))
        sys.stdout.flush()
        assert results == list(numbers)
        lines = Path("/proc/self/fd/1").read_text().splitlines()
        assert len(lines) == len(numbers), (len(lines), len(numbers))
        return seconds

    return once


def _echo(options: Options) -> Callable[[], float]:
    values = [os.urandom(max(1, options.scaled(ECHOED_BYTES))) for _ in range(ECHOED)]

    def once() -> float:
        seconds, results = timed(lambda: _map(echo_bytes, values))
        assert results == values
        return seconds

    return once


def _cold(options: Options) -> Callable[[], float]:
    script = Path("cold_script.py")
    script.write_text(cold.SCRIPT.format(imported=cold.IMPORTS[BURLA], call=cold.CALLS[BURLA]))
    return lambda: cold.run_script(script)[1]


CASES: dict[str, tuple[str, Measured]] = {
    "call": ("one warm call", lambda o: _small(double, 1, o)),
    "pause": ("one warm call after a pause", _paused),
    "loop": ("a map of 8 inputs", lambda o: _small(double, 8, o)),
    "range": ("1,000,000 tiny calls, range in", lambda o: _tiny(range, CALLS, o)),
    "list": ("the same, list of ints in", lambda o: _tiny(lambda n: list(range(n)), CALLS, o)),
    "iterator": (
        "200,000 tiny calls, iterator in",
        lambda o: _tiny(lambda n: iter(range(n)), LAZY_CALLS, o),
    ),
    "generator": ("200,000 tiny calls, generator=True", _generator),
    "prints": ("20,000 calls that print a line", _prints),
    "closure": (
        "a map of 8 inputs, closure of 3 MB",
        lambda o: _small(closure(bytes(CLOSURE_BYTES)), 8, o),
    ),
    "echo": ("16 times 8 MB there and back", _echo),
    "cold": ("a script from start to end", _cold),
    "import": ("`import burla` in a new process", lambda o: lambda: cold.import_s(BURLA)),
}
USUAL = ("call", "loop", "range", "list", "iterator", "generator", "prints")


def main() -> None:
    """Be a side: `OVER SCALE TREE`, then one name of a case per line of stdin."""
    over, scale, tree = sys.argv[1:]
    import burla

    assert Path(burla.__file__).is_relative_to(tree), burla.__file__
    options = Options((BURLA,), 1, len(os.sched_getaffinity(0)), float(scale))
    # What calls print goes to a file; nobody else writes where the answers go.
    answers = os.fdopen(os.dup(1), "w")
    printed = os.open("printed", os.O_CREAT | os.O_RDWR | os.O_APPEND, 0o600)
    os.dup2(printed, 1)
    made: dict[str, Callable[[], float]] = {}
    with MADE[over](options):
        for name in map(str.strip, sys.stdin):
            if name not in made:
                made[name] = CASES[name][1](options)
                made[name]()  # what must be warm
            print(json.dumps(settled(made[name])), file=answers, flush=True)


if __name__ == "__main__":
    main()
