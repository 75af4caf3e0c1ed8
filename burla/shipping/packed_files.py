"""What was packed to go along, kept on this computer for the next process that sends the same.

To pack a hundred MB of installed files takes a second, and to look whether they have changed a
fiftieth. What is read here is looked through before it is used; without a place for it all goes on,
and is packed each time.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256

import msgpack

from burla.system.paths import cache_directory

from .attachments import Named

FOLDER = "packed"  # in the cache directory
KEPT_BYTES_MAX = 2 << 30
FREE_SHARE = 8  # they take at most one of so many parts of what is free
DIGEST_BYTES = 32
NEW = ".new-"


class PackedFiles:
    """The folder of these."""

    def __init__(self, folder: str | None = None) -> None:
        """Use a folder, which need not be there; None: the user's."""
        home = cache_directory()
        self._folder = folder or (home and os.path.join(home, FOLDER))

    def find(self, key: bytes) -> Named | None:
        """Return what was kept under a key; None: nothing, or not what it was."""
        if not self._folder:
            return None
        path = os.path.join(self._folder, key.hex())
        try:
            with open(path, "rb") as file:
                digest, data = file.read(DIGEST_BYTES), file.read()
        except (OSError, MemoryError):
            return None
        if sha256(data).digest() != digest:
            with suppress(OSError):
                os.unlink(path)
            return None
        with suppress(OSError):
            os.utime(path)  # it was used
        return [(name, content) for name, content in msgpack.unpackb(data)]

    def keep(self, key: bytes, named: Named) -> None:
        """Keep something under a key, if there is room; the one used longest ago goes first."""
        if not self._folder:
            return
        import shutil  # with all that compresses: few calls need it

        size = sum(len(content) for _, content in named)
        new = os.path.join(self._folder, f"{NEW}{os.getpid()}-{os.urandom(4).hex()}")
        try:
            os.makedirs(self._folder, 0o700, exist_ok=True)
            free = shutil.disk_usage(self._folder).free
            if size > free // FREE_SHARE or size > KEPT_BYTES_MAX:
                return
            self.prune(min(KEPT_BYTES_MAX, free // FREE_SHARE) - size)
            data = msgpack.packb([list(one) for one in named])
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
            with open(os.open(new, flags, 0o600), "wb") as file:
                file.write(sha256(data).digest())
                file.write(data)
            os.replace(new, os.path.join(self._folder, key.hex()))
        except (OSError, MemoryError, ValueError):  # more than the format holds, too
            with suppress(OSError):
                os.unlink(new)

    def prune(self, bytes_max: int) -> list[int]:
        """Remove those used longest ago until so many bytes are left; return the sizes of these."""
        kept = sorted(self._all())
        total = sum(size for _, size, _ in kept)
        gone = []
        for _, size, path in kept:
            if total <= bytes_max:
                break
            with suppress(OSError):
                os.unlink(path)
                gone.append(size)
                total -= size
        return gone

    def _all(self) -> Iterator[tuple[float, int, str]]:
        """Yield of each when it was used, its size and its path."""
        with suppress(OSError), os.scandir(self._folder or "") as entries:
            for entry in entries:
                with suppress(OSError):
                    found = entry.stat(follow_symlinks=False)
                    yield found.st_mtime, found.st_size, entry.path
