"""The bytes of blobs and big inputs in this node's memory: once, however many workers map them.

A blob is a file in memory without a name. Its descriptor goes to the workers of the leases that
need it, and to nobody else: so it can be read in every tier, and only there. When all of it is here
the kernel lets nobody write to it any more; what a function writes is in pages of its own. The
memory is free when the node has let go of the blob and the last worker that maps it has ended. That
of an input may then be another's of the same lease (input_files.py).
"""

import errno
import fcntl
import os
from collections.abc import Callable, Sequence

from burla.nodelet.core.blobs import IDLE_MAX
from burla.nodelet.core.effects import KeepBlob
from burla.transport import descriptors

from .input_files import InputFile, Opened, SpareFiles

# linux/fcntl.h; Python names them from 3.8 on only where libc does
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE

_PASSING = (errno.EMFILE, errno.ENFILE)  # others may close some the next moment

IDLE_SHARE = 4  # one of so many descriptors, at most, is a blob's that no lease needs


def idle_max() -> int:
    """Return how many blobs that no lease needs are kept at most."""
    return min(IDLE_MAX, descriptors.limit() // IDLE_SHARE)


class BlobFile(Opened):
    """A file in memory without a name."""

    def __init__(self) -> None:
        super().__init__(os.memfd_create("burla-blob", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))

    def finish(self) -> None:
        """Let nobody write to it any more."""
        fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, _SEALS)

    def lend(self) -> Opened:
        """Return what workers may have."""
        return self


class BlobMemory:
    """The blobs and big inputs of this node, by number."""

    def __init__(self, failed: Callable[[int, str, bool], None], ram: int = 0) -> None:
        """Start empty.

        Args:
            failed: is told of what cannot be kept, why, and if that may pass.
            ram: of the node; a part of it may wait for other inputs.
        """
        self._failed = failed
        self.spare = SpareFiles(ram)
        self._files: dict[int, BlobFile | InputFile] = {}
        self._broken: set[int] = set()  # what lacks bytes: what follows these is not kept either

    def keep(self, what: KeepBlob) -> None:
        """Write bytes behind those that are there."""
        if what.start == 0:
            self._broken.discard(what.number)
        elif what.number in self._broken:
            return
        try:
            if what.number not in self._files:
                file_ = self.spare.take(what.lease, what.size) if what.size else BlobFile()
                self._files[what.number] = file_
            file, at = self._files[what.number].fd, what.start
            for frame in what.payload:
                left = memoryview(frame)
                while left:
                    written = os.pwrite(file, left, at)
                    at, left = at + written, left[written:]
        except OSError as error:  # no memory, no descriptor
            self._broken.add(what.number)
            self._files.pop(what.number, None)
            self._failed(what.number, os.strerror(error.errno or 0), error.errno in _PASSING)

    def finish(self, number: int) -> None:
        """Let nobody else write to it any more."""
        if (file := self._files.get(number)) is not None:
            file.finish()

    def drop(self, number: int) -> None:
        """Let go of it; who maps it has it still."""
        file = self._files.pop(number, None)
        self._broken.discard(number)
        if isinstance(file, InputFile):
            self.spare.give_back(file)

    def files(self, numbers: Sequence[int]) -> list[Opened]:
        """Return all of these, for workers; what is dropped meanwhile stays as it is.

        Raises:
            LookupError: one is not there, as it could not be kept.
        """
        return [self._files[number].lend() for number in numbers]
