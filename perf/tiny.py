"""A million tiny calls, over a range and over a list of ints."""

from collections.abc import Iterator
from typing import Any

from .functions import double
from .measure import Options, Series, in_turn, timed
from .peers import started, variants

CALLS = 1_000_000
CHUNKS = (1_000, 10_000, 62_500, 125_000, 250_000, 500_000)


def measure(options: Options) -> Iterator[Series]:
    """Yield one series for each kind of inputs."""
    calls = options.scaled(CALLS)
    expected = [x * 2 for x in range(calls)]

    def check(results: list[Any]) -> None:
        assert results == expected[: len(results)]

    with started(options.contenders, options.workers) as contenders:
        for what, inputs in (("range", range(calls)), ("list of ints", list(range(calls)))):
            series = Series(f"tiny/{what}")
            chunks = [max(1, round(chunk * calls / CALLS)) for chunk in CHUNKS]
            runs = variants(contenders, double, inputs, chunks, check, tiny=True)
            in_turn(series, options.rounds, runs)
            loop_s, _ = timed(lambda inputs=inputs: [double(x) for x in inputs])  # type: ignore[misc]
            series.notes.append(f"{calls:,} calls; the same loop in this process: {loop_s:.3f} s")
            yield series
