"""Files of inputs that are not needed any more, and wait to be written anew by the caller.

Fresh memory costs four times as much as memory that is there, and memory that is mapped a third of
what a system call costs that writes. So a file that is written anew stays mapped by its writer.

Some wait that are in use: a worker has just had its outcome, or a result lies in it (views.py).
"""

import functools
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from .free_results import FREE_COUNT_MAX, FREE_FIT, free_bytes_max
from .raw_memory import Window
from .shared_memory import empty_and_remove, is_awaited, rewrite

FREE_S = 10.0  # so long one waits
FREE_TRIES_MAX = 4  # of those, looked at for one leaf: each may be mapped still


class FreeFiles:
    """Files of a cluster that are not needed and wait to be written anew. Thread-safe.

    They outlast their jobs for a moment: the next map of a loop finds memory that is there.
    """

    def __init__(self, directory: str) -> None:
        """Keep them in `directory`, that of the cluster."""
        self._directory = directory
        self._lock = threading.Lock()
        self._made = 0
        self._files: list[File] = []  # the one that waits for the longest time comes first
        self._bytes = 0
        self._timer: threading.Timer | None = None  # there is one while there are files

    def write(self, path: str, parts: Sequence[Any], size: int) -> "File | None":
        """Turn a fitting file that nobody maps into one of `parts` at `path`; None: there is none.

        Raises:
            OSError: it cannot be written.
        """
        for old in self._take_fitting(size):
            try:
                if rewrite(old.path, path, parts, old.open_window):
                    return File(path, old.size, old.window)
            except FileNotFoundError:  # somebody has removed it
                continue
            old.was_in_use = True
            self._put(old)
        return None

    def keep(self, file: "File") -> None:
        """Keep a file that nobody needs, instead of one that was kept for longer."""
        with self._lock:
            self._made += 1
            path = os.path.join(self._directory, f"free-{self._made}")
        try:
            os.rename(file.path, path)
            kept = File(path, file.size, file.window)
            kept.was_in_use = is_awaited(path)
        except OSError:  # it went with the cluster's directory, perhaps
            return
        self._put(kept)

    def _take_fitting(self, size: int) -> Iterator["File"]:
        """Yield files that `size` bytes fit into, a few, each taken out before.

        First the one that was needed last, which is in caches; of those that were in use when they
        were looked at the one for which that is the longest time ago.
        """
        for _ in range(FREE_TRIES_MAX):
            with self._lock:
                fit = [file for file in self._files if size <= file.size <= FREE_FIT * size]
                if not fit:
                    return
                file = next((one for one in reversed(fit) if not one.was_in_use), fit[0])
                self._files.remove(file)
                self._bytes -= file.size
            yield file

    def _put(self, file: "File") -> None:
        with self._lock:
            file.until_s = time.monotonic() + FREE_S
            self._files.append(file)
            self._bytes += file.size
            while self._bytes > self._bytes_max or len(self._files) > FREE_COUNT_MAX:
                self._remove_first()
            if self._timer is None:
                self._start_timer(FREE_S)

    @functools.cached_property
    def _bytes_max(self) -> int:
        """How much may wait; nothing if the directory went with its cluster."""
        try:
            return free_bytes_max(self._directory)
        except OSError:
            return 0

    def _remove_first(self) -> None:
        oldest = self._files.pop(0)
        self._bytes -= oldest.size
        with suppress(OSError):  # it went with the cluster's directory, perhaps
            empty_and_remove(oldest.path)

    def _start_timer(self, seconds: float) -> None:
        self._timer = timer = threading.Timer(seconds, self._expire)
        timer.daemon = True
        try:
            timer.start()
        except RuntimeError:  # this process ends, or may have no more threads
            self._timer = None

    def _expire(self) -> None:
        """Remove what nobody has needed for `FREE_S`."""
        with self._lock:
            now_s = time.monotonic()
            while self._files and self._files[0].until_s <= now_s:
                self._remove_first()
            self._timer = None
            if self._files:
                self._start_timer(self._files[0].until_s - now_s)


class File:
    """A file of ours."""

    __slots__ = ("path", "size", "until_s", "was_in_use", "window")

    def __init__(self, path: str, size: int, window: Window | None = None) -> None:
        """Remember what is there."""
        self.path, self.size = path, size
        self.window = window  # where it is mapped to be written to; None: it is not
        self.until_s = 0.0  # when it is removed, if it waits
        self.was_in_use = False  # when it was looked at

    def open_window(self, file: int) -> Window | None:
        """Return where it is mapped, from now on; None: it cannot be."""
        if self.window is None:
            with suppress(OSError):
                self.window = Window(file, self.size)
        return self.window
