"""The functions that are measured: in a module, because the peers import them by name.

It imports nothing heavy itself: each fresh worker of burla pays for that in every call it serves.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import numpy.typing as npt


def double(x: int) -> int:
    """Return twice `x`."""
    return x * 2


def sleep(seconds: float) -> float:
    """Sleep, and return for how long."""
    time.sleep(seconds)
    return seconds


def total(array: npt.NDArray[np.float64]) -> float:
    """Return the sum: much goes in, little comes out."""
    return float(array.sum())


def echo(array: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the same: much goes in, much comes out."""
    return array


def give(count: int) -> bytes:
    """Return so many bytes."""
    return bytes(count)


def size(value: bytes) -> int:
    """Return how many bytes there are."""
    return len(value)


def echo_bytes(value: bytes) -> bytes:
    """Return the same bytes."""
    return value


def give_bytes(size: int) -> bytes:
    """Return so many bytes, none of them in a page that was never written to."""
    return b"\x01" * size


def size_of(value: bytes) -> int:
    """Return how many bytes these are."""
    return len(value)


def closure(data: bytes) -> Callable[[int], int]:
    """Return a function that takes `data` along."""
    return lambda x: x + len(data)


def heavy(array: npt.NDArray[np.float64]) -> Callable[[int], float]:
    """Return a function that takes `array` along."""
    return lambda x: float(array[x])


def line(number: int) -> str:
    """Return the line that call `number` prints."""
    return f"line {number} of the case that prints"


def print_line(number: int) -> int:
    """Print as a user of burla does."""
    print(line(number))
    return number


def print_line_now(number: int) -> int:
    """Print as a user of a pool must to get whole lines before the return.

    Without the flush lines stay behind in the worker; with the newline in a write of its own (as
    under PYTHONUNBUFFERED) two workers' lines run into each other.
    """
    print(f"{line(number)}\n", end="", flush=True)
    return number


def warm(x: Any) -> Any:
    """Return `x`, so that the workers are there when something is timed."""
    return x
