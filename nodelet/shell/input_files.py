"""The memory of big inputs, taken again for others of the same lease.

New pages cost twice as much as what is written to them. So the file of an input that is done is
kept for a while, within bounds, and another input is put there when no worker has it any longer.
Each worker gets an opening of its own, on which there is a lock: that lasts for as long as the
worker, or a child of it, has the file open or mapped. A file that waits is of one lease, whose
inputs alone are put there, or of the one that takes over its processes: it goes with these.
"""

import fcntl
import os
import time
from collections.abc import Callable

KEPT_S = 15.0  # so long a file waits for another input
KEPT_BYTES_MAX = 1 << 30  # that wait
KEPT_PART = 16  # nor more than this part of the memory of the node
KEPT_MAX = 16  # files that wait: each is a descriptor
FIT_PART = 8  # an input leaves at most this part of its file empty

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW  # linux/fcntl.h
_ALL_SEALS = _SEALS | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


class Opened:
    """A descriptor that is open as long as somebody refers to this, as an unsent order may."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __del__(self) -> None:
        if (fd := getattr(self, "fd", -1)) >= 0:
            os.close(fd)


class InputFile(Opened):
    """A file in memory without a name, which only this process can write to."""

    def __init__(self, lease: bytes) -> None:
        flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
        super().__init__(os.memfd_create("burla-input", flags))
        os.fchmod(self.fd, 0o400)  # who has it to read does not open it to write
        self.lease = lease  # whose inputs it may have
        self.size = 0  # of the file, which does not change any more; 0: not all is there
        self.until_s = 0.0  # so long it waits
        self._is_shared = False  # somebody has our own opening

    def finish(self) -> None:
        """Let its length stay as it is."""
        if not self.size:
            self.size = os.fstat(self.fd).st_size
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, _SEALS)

    def lend(self) -> Opened:
        """Return an opening to be read, with a lock that ends with it and all that was mapped."""
        try:
            lent = Opened(os.open(f"/proc/self/fd/{self.fd}", os.O_RDONLY | os.O_CLOEXEC))
            fcntl.flock(lent.fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:  # there are no more descriptors: then it has this one input
            self._is_shared = True
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, _ALL_SEALS)
            return self
        return lent

    def is_whole(self) -> bool:
        """Return whether another input may be put there, when nobody has this one."""
        return self.size > 0 and not self._is_shared

    def is_free(self) -> bool:
        """Return whether nobody has it."""
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        fcntl.flock(self.fd, fcntl.LOCK_UN)
        return True


class SpareFiles:
    """Files of inputs that are done, of the lease that the workers of this node serve."""

    def __init__(self, ram: int, clock_s: Callable[[], float] = time.monotonic) -> None:
        """Have none; the node has so much memory."""
        self._bytes_max = min(KEPT_BYTES_MAX, ram // KEPT_PART)
        self._clock_s = clock_s
        self._lease = b""
        self._files: list[InputFile] = []  # the one that was given back last is the last

    def __len__(self) -> int:
        return len(self._files)

    def begin(self, lease: bytes, *, keep: bool) -> None:
        """Be of another lease; `keep`: the processes of the last one go on with it."""
        if not keep:
            self.clear()
        self._lease = lease
        for file in self._files:
            file.lease = lease

    def end(self) -> None:
        """Let go of all, and of what comes late: the workers end."""
        self.begin(b"", keep=False)

    def take(self, lease: bytes, size: int) -> InputFile:
        """Return a file for an input of so many bytes of a lease.

        Raises:
            OSError: there are no more descriptors.
        """
        for file in reversed(self._files if lease == self._lease else []):
            if size <= file.size <= size + size // FIT_PART and file.is_free():
                self._files.remove(file)
                return file
        self._keep_to(self._bytes_max - size)
        return InputFile(lease)

    def give_back(self, file: InputFile) -> None:
        """Take the file of an input that is done, or was given up."""
        if file.is_whole() and file.lease == self._lease:
            file.until_s = self._clock_s() + KEPT_S
            self._files.append(file)
            self._keep_to(self._bytes_max)

    def drop_old(self) -> None:
        """Let go of what has waited for too long. To be called now and then."""
        if self._files:
            now_s = self._clock_s()
            self._files = [file for file in self._files if file.until_s > now_s]

    def clear(self) -> None:
        """Let go of all: memory is short, or they are another lease's."""
        self._files.clear()

    def _keep_to(self, bytes_max: int) -> None:
        """Let go of the oldest until those that are left have so many bytes at most."""
        size = sum(file.size for file in self._files)
        while self._files and (size > bytes_max or len(self._files) > KEPT_MAX):
            size -= self._files.pop(0).size
