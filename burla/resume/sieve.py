"""Which inputs of a job that is resumed have a result already, and where the others have theirs.

Inputs that are called are numbered anew: the job knows nothing of those that are not. What lies
here finds the way back, from the number of an input in the job to its index among all.
"""

import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, starmap
from typing import Any

from burla.values.contents import DIGEST_BYTES, NO_DIGEST, Contents
from burla.values.leaves import is_sliceable_array

from .checkpoints import Checkpoint, Known

CHUNK = 4096  # inputs that are forgotten together
PAUSE_S = 0.05  # known inputs are passed over for so long before others have their turn
PAUSE_KNOWN = 1024  # and so many


class Numbers:
    """The inputs that are called: their indices and digests, until they have outcomes."""

    def __init__(self) -> None:
        """Start without inputs."""
        self.end = 0  # how many there are
        self._indices: dict[int, array[int]] = {}  # by chunk
        self._digests: dict[int, bytearray] = {}
        self._left: dict[int, int] = {}

    def add(self, index: int, digest: bytes) -> None:
        """Take the next one."""
        chunk = self.end // CHUNK
        if chunk not in self._indices:
            self._indices[chunk], self._digests[chunk] = array("q"), bytearray()
            self._left[chunk] = CHUNK
        self._indices[chunk].append(index)
        self._digests[chunk] += digest
        self.end += 1

    def fill(self, indices: Sequence[int], digests: bytes) -> None:
        """Take many at once, before any other."""
        assert not self.end
        for at in range(0, len(indices), CHUNK):
            chunk = at // CHUNK
            self._indices[chunk] = array("q", indices[at : at + CHUNK])
            part = digests[at * DIGEST_BYTES : (at + CHUNK) * DIGEST_BYTES]
            self._digests[chunk], self._left[chunk] = bytearray(part), CHUNK
        self.end = len(indices)

    def index_of(self, number: int) -> int:
        """Return the index of an input that has no outcome yet."""
        chunk, at = divmod(number, CHUNK)
        return self._indices[chunk][at] if chunk in self._indices else number

    def ranges(self, lo: int, hi: int) -> list[tuple[int, int, int]]:
        """Return the indices of [lo, hi) as ranges: number of the first, start, stop."""
        found: list[tuple[int, int, int]] = []
        while lo < hi:
            chunk, at = divmod(lo, CHUNK)
            stop = min(hi, (chunk + 1) * CHUNK)
            indices = self._indices[chunk][at : at + stop - lo]
            if indices[-1] - indices[0] == len(indices) - 1:  # they ascend
                _extend(found, lo, indices[0], indices[-1] + 1)
            else:
                for offset, index in enumerate(indices):
                    _extend(found, lo + offset, index, index + 1)
            lo = stop
        return found

    def digests(self, lo: int, hi: int) -> bytes:
        """Return the digests of [lo, hi)."""
        parts = []
        while lo < hi:
            chunk, at = divmod(lo, CHUNK)
            stop = min(hi, (chunk + 1) * CHUNK)
            parts.append(self._digests[chunk][at * DIGEST_BYTES : (at + stop - lo) * DIGEST_BYTES])
            lo = stop
        return b"".join(parts)

    def finish(self, lo: int, hi: int) -> None:
        """Forget what has outcomes, a chunk at a time."""
        while lo < hi:
            chunk = lo // CHUNK
            stop = min(hi, (chunk + 1) * CHUNK)
            self._left[chunk] -= stop - lo
            if not self._left[chunk]:
                del self._left[chunk], self._indices[chunk], self._digests[chunk]
            lo = stop


def _extend(found: list[tuple[int, int, int]], number: int, start: int, stop: int) -> None:
    if found and found[-1][2] == start:
        found[-1] = (*found[-1][:2], stop)
    else:
        found.append((number, start, stop))


def sift(
    inputs: Any, contents: Contents, checkpoint: Checkpoint, numbers: Numbers
) -> tuple[list[Known], Any]:
    """Return what is known of inputs that are all there, and those that are to be called."""
    is_array = is_sliceable_array(inputs)
    digests = contents.of_rows(inputs) if is_array else contents.of_each(inputs)
    known = checkpoint.take_each(digests)
    if not known:
        numbers.fill(range(len(inputs)), digests)
        return [], inputs
    gaps = list(_between(known, len(inputs)))
    left = list(chain.from_iterable(starmap(range, gaps)))
    parts = [digests[lo * DIGEST_BYTES : hi * DIGEST_BYTES] for lo, hi in gaps]
    numbers.fill(left, b"".join(parts))
    return known, inputs[left] if is_array else [inputs[index] for index in left]


def _between(known: Sequence[Known], total: int) -> Iterator[tuple[int, int]]:
    at = 0
    for index, count, _ in known:
        if at < index:
            yield at, index
        at = index + count
    if at < total:
        yield at, total


class Sieve(Iterator[Any]):
    """The inputs of an iterator that are to be called; those that are known are put aside.

    When others should have their turn it says that it is over, and `is_paused`: then it goes on.
    """

    def __init__(
        self, inputs: Iterator[Any], contents: Contents, checkpoint: Checkpoint, numbers: Numbers
    ) -> None:
        """Take nothing yet."""
        self.known: list[Known] = []  # to be taken
        self.count = 0  # inputs that were pulled
        self.is_paused = self.is_over = False
        self._inputs, self._contents, self._checkpoint = inputs, contents, checkpoint
        self._numbers = numbers

    def __next__(self) -> Any:
        until_s = 0.0
        self.is_paused = False
        for value in self._inputs:
            index, self.count = self.count, self.count + 1
            digest = self._contents.of(value)
            place = self._checkpoint.take(digest) if digest != NO_DIGEST else None
            if place is None:
                self._numbers.add(index, digest)
                return value
            self.known.append((index, 1, place))
            until_s = until_s or time.monotonic() + PAUSE_S
            if len(self.known) >= PAUSE_KNOWN or time.monotonic() > until_s:
                self.is_paused = True
                raise StopIteration
        self.is_over = True
        raise StopIteration

    def take_known(self) -> list[Known]:
        """Return what was known of the inputs since the last call."""
        known, self.known = self.known, []
        return known


Check = Callable[[Sequence[Any], int], None]


def checking(check: Check | None, numbers: Numbers) -> Check | None:
    """Return a check of inputs that are called, which names them by their index among all."""
    if check is None:
        return None

    def check_each(values: Sequence[Any], start: int) -> None:
        for number, lo, hi in numbers.ranges(start, start + len(values)):
            check(values[number - start : number - start + hi - lo], lo)

    return check_each
