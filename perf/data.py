"""64 NumPy arrays of 8 MB: summed, and sent there and back."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from .functions import echo, total
from .measure import Options, Series, in_turn, summary
from .peers import started, variants

ARRAYS = 64
FLOATS = 1_000_000
CHUNKS = (1, 2, 4)


def measure(options: Options) -> Iterator[Series]:
    """Yield sum and echo."""
    dice = np.random.default_rng(8)
    arrays = [dice.random(FLOATS) for _ in range(options.scaled(ARRAYS))]
    sums = [float(array.sum()) for array in arrays]
    megabytes = sum(array.nbytes for array in arrays) / 1e6

    def check_sums(results: list[Any]) -> None:
        assert np.allclose(results, sums)

    def check_echo(results: list[Any]) -> None:
        assert len(results) == len(arrays)
        assert all(np.array_equal(a, b) for a, b in zip(results, arrays, strict=True))

    with started(options.contenders, options.workers) as contenders:
        for what, function, check in (("sum", total, check_sums), ("echo", echo, check_echo)):
            runs = variants(contenders, function, arrays, CHUNKS, check)
            series = in_turn(Series(f"data/{what}"), options.rounds, runs)
            rates = (
                f"{name} {megabytes / summary(seconds).median:,.0f}"
                for name, seconds in series.seconds.items()
            )
            series.notes.append(f"{len(arrays)} arrays of 8 MB; MB of input/s: " + "; ".join(rates))
            yield series
