"""Functions whose calls are seen from outside: each leaves a line in a log, or waits for others."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def in_background(call: Callable[[], Any]) -> Iterator[Callable[[], Any]]:
    """Run `call` in a thread; yield what waits for its result."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(call)
        yield lambda: future.result(50)


def lines(directory: Path) -> list[str]:
    """Return what the calls have logged."""
    log = directory / "log"
    return log.read_text().splitlines() if log.exists() else []


def slow_and_logged(directory: Path, seconds: float) -> Callable[[int], int]:
    """Return a function that logs and returns its input, and takes `seconds`."""

    def f(x: int) -> int:
        import time

        with open(directory / "log", "ab", buffering=0) as log:
            log.write(b"%d\n" % x)
        time.sleep(seconds)
        return x

    return f
