"""Where the bytes of blobs lie: files without names, which go with the scheduler however it ends.

On disk and not in memory: what is used stays in the kernel's cache, and a head with little memory
serves big ones, too. What is sent to nodes waits here for its turn: a bounded part of it a turn of
the loop, so that nobody's small calls wait behind it.
"""

import os
import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

from burla.protocol.messages import BLOB_PIECE_BYTES, BlobPiece
from burla.scheduler.core.blob_table import NUMBER_MAX, STORE_BYTES_MAX
from burla.scheduler.core.effects import KeepBlob, SendBlob
from burla.transport import descriptors

TURN_BYTES = 2 << 20  # sent to all nodes in one turn of the loop
FREE_SHARE = 2  # one of so many parts of what is free on the disk at the start may be blobs
NUMBER_SHARE = 0.4  # of all descriptors may be blobs; connections have half: see door.py
DIRECTORY = "/var/tmp"  # on disk where /tmp is in memory

Lost = Callable[[int, str], None]


class BlobFiles:
    """The files, and what is to be sent of them."""

    def __init__(self, send: Callable[[bytes, BlobPiece, bytes], None], lost: Lost) -> None:
        """Start without files.

        Args:
            send: sends a piece to a peer.
            lost: is told of a blob that could not be kept, or not be read, and why.
        """
        self._send, self._lost = send, lost
        self._files: dict[int, int] = {}  # by number: descriptors
        self._waiting: dict[bytes, deque[SendBlob]] = {}  # by peer, whose turn it is first

    def __bool__(self) -> bool:
        """Return whether something waits to be sent."""
        return bool(self._waiting)

    def keep(self, what: KeepBlob) -> None:
        """Write bytes behind those that are there."""
        try:
            file = self._files.get(what.number)
            if file is None:
                file = self._files[what.number] = _new_file()
            at = what.start
            for frame in what.payload:
                left = memoryview(frame)
                while left:
                    written = os.pwrite(file, left, at)
                    at, left = at + written, left[written:]
        except OSError as error:
            self._lost(what.number, f"{error.strerror} ({directory()})")

    def drop(self, number: int) -> None:
        """Let go of a file, and of what was to be sent of it: who lacks that asks again."""
        for peer, pieces in list(self._waiting.items()):
            left = deque(each for each in pieces if each.number != number)
            if left:
                self._waiting[peer] = left
            else:
                del self._waiting[peer]
        if (file := self._files.pop(number, None)) is not None:
            os.close(file)

    def close(self) -> None:
        """Let go of all files."""
        for number in list(self._files):
            self.drop(number)

    def queue(self, what: SendBlob) -> None:
        """Send a piece when it is its turn."""
        self._waiting.setdefault(what.peer, deque()).append(what)

    def forget(self, peer: bytes) -> None:
        """Send nothing more to a peer: it is gone, and asks again if it comes back."""
        self._waiting.pop(peer, None)

    def send_some(self, is_busy: Callable[[bytes], bool]) -> None:
        """Send what may be sent in one turn, to one peer after the other; not to who is busy."""
        room = TURN_BYTES
        for peer in list(self._waiting):
            if room <= 0:
                return
            if is_busy(peer):
                continue
            pieces = self._waiting.pop(peer)
            what = pieces.popleft()
            if pieces:
                self._waiting[peer] = pieces  # behind the others
            start, stop = what.message.start, what.stop
            room -= stop - start
            try:
                data = self._read(what.number, start, stop)
            except OSError as error:
                self._lost(what.number, str(error))
                return
            self._send(what.peer, what.message, data)

    def frames_of(self, numbers: Sequence[int]) -> list[bytes]:
        """Return all of some blobs, in the frames in which a function is sent whole.

        Raises:
            OSError: they are not there.
        """
        frames = []
        for number in numbers:
            size = os.fstat(self._files[number]).st_size
            for at in range(0, size, BLOB_PIECE_BYTES):
                frames.append(self._read(number, at, min(size, at + BLOB_PIECE_BYTES)))
        return frames

    def _read(self, number: int, start: int, stop: int) -> bytes:
        file = self._files.get(number)
        if file is None:  # it was dropped since
            return b""
        data = os.pread(file, stop - start, start)
        if len(data) != stop - start:
            raise OSError(f"{stop - start} bytes of a blob came as {len(data)}")
        return data


def directory() -> str:
    """Return where the files are made: on disk, unless the administrator says otherwise."""
    named = os.environ.get("TMPDIR", "")
    return named or (DIRECTORY if os.access(DIRECTORY, os.W_OK) else tempfile.gettempdir())


def room() -> int:
    """Return how many bytes all blobs may have."""
    with suppress(OSError):
        disk = os.statvfs(directory())
        return min(STORE_BYTES_MAX, disk.f_bavail * disk.f_frsize // FREE_SHARE)
    return STORE_BYTES_MAX


def number_max() -> int:
    """Return how many blobs there may be: each takes a descriptor."""
    return min(NUMBER_MAX, int(descriptors.limit() * NUMBER_SHARE))


def _new_file() -> int:
    with tempfile.TemporaryFile(dir=directory(), buffering=0) as file:
        return os.dup(file.fileno())
