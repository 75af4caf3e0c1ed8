"""The blobs of a job, as one of its workers has them: descriptors, mapped when they are needed.

What is mapped is shared with all workers of this node until somebody writes to it: then the writer
has a page of its own. Never imports msgspec: `Kind` says the same as protocol.messages.BlobKind.
"""

import os
from collections.abc import Sequence
from enum import IntEnum
from functools import partial

from burla.values.payloads import Arrived
from burla.values.shared_memory import map_part


class Kind(IntEnum):
    """What a blob is to the worker."""

    PART = 0  # of the function
    BYTES_PART = 1  # likewise, and it was a `bytes`
    NAMED = 2  # of the job


class JobBlobs:
    """The blobs that one LOAD message names."""

    def __init__(
        self, named: Sequence[tuple[bytes, int, int, str]], descriptors: list[int]
    ) -> None:
        """Take the descriptors of `named`, which have come, out of the list."""
        self._named = list(named)
        self._fds = descriptors[: len(named)]
        del descriptors[: len(named)]

    def parts(self) -> list[Arrived]:
        """Return the parts of the function, in order."""
        return [
            Arrived(digest, kind == Kind.BYTES_PART, partial(self._map, at))
            for at, (digest, _, kind, _) in enumerate(self._named)
            if kind != Kind.NAMED
        ]

    def named(self) -> dict[str, memoryview]:
        """Return the blobs of the job by their names. To be called before `close`."""
        return {
            name: self._map(at)
            for at, (_, _, kind, name) in enumerate(self._named)
            if kind == Kind.NAMED
        }

    def close(self) -> None:
        """Let go of the descriptors; what is mapped stays."""
        while self._fds:
            os.close(self._fds.pop())

    def _map(self, at: int) -> memoryview:
        if at >= len(self._fds):
            raise OSError("it did not come")
        return map_part(os.dup(self._fds[at]), self._named[at][1])
