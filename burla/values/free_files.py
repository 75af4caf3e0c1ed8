"""Files of inputs that are not needed any more, and wait to be written anew by the caller.

Fresh memory costs four times as much as memory that is there, and memory that is mapped a third of
what a system call costs that writes. So a file that is written anew stays mapped by its writer.

Some are in use still: a worker has just had its outcome, or a result lies in it (views.py). They
are looked at until they are not: a file that is removed is emptied, as workers may have it mapped.
"""

import functools
import os
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from .free_results import FREE_COUNT_MAX, FREE_FIT, FREE_S, free_bytes_max
from .raw_memory import Window
from .shared_memory import empty_and_remove, is_awaited, is_used, rewrite

LOOK_S = 2.5  # between two looks at those that were in use
USED_COUNT_MAX = 1024  # of these; each look at one takes some microseconds
FREE_TRIES_MAX = 4  # files looked at for one leaf: each may be in use still


class FreeFiles:
    """Files of a cluster that are not needed and wait to be written anew. Thread-safe.

    They outlast their jobs for a moment: the next map of a loop finds memory that is there.
    """

    def __init__(self, directory: str) -> None:
        """Keep them in `directory`, that of the cluster."""
        self._directory = directory
        self._lock = threading.Lock()
        self._made = 0
        # Of each the one that was put there first comes first.
        self._free: list[File] = []
        self._used: list[File] = []  # they were, when they were looked at
        self._bytes = 0  # of those that are free: in the others is what the caller has
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
            self._put(old, is_used=True)
        return None

    def keep(self, file: "File") -> None:
        """Keep a file that nobody needs, instead of one that was kept for longer."""
        with self._lock:
            self._made += 1
            path = os.path.join(self._directory, f"free-{self._made}")
        try:
            os.rename(file.path, path)
            is_used = is_awaited(path)
        except OSError:  # it went with the cluster's directory, perhaps
            return
        self._put(File(path, file.size, file.window), is_used=is_used)

    def _take_fitting(self, size: int) -> Iterator["File"]:
        """Yield files that `size` bytes fit into, a few, each taken out before.

        First the one that was needed last, which is in caches; of those that were in use the one
        that was looked at for the longest time ago.
        """
        for _ in range(FREE_TRIES_MAX):
            with self._lock:
                if (file := _fitting(reversed(self._free), size)) is not None:
                    self._free.remove(file)
                    self._bytes -= file.size
                elif (file := _fitting(self._used, size)) is not None:
                    self._used.remove(file)
                else:
                    return
            yield file

    def _put(self, file: "File", *, is_used: bool) -> None:
        with self._lock:
            if is_used:
                self._used.append(file)
                while len(self._used) > USED_COUNT_MAX:
                    _remove(self._used.pop(0))
            else:
                self._add_free(file)
            self._see_to_timer()

    def _add_free(self, file: "File") -> None:
        file.until_s = time.monotonic() + FREE_S
        self._free.append(file)
        self._bytes += file.size
        while self._bytes > self._bytes_max or len(self._free) > FREE_COUNT_MAX:
            self._remove_first()

    @functools.cached_property
    def _bytes_max(self) -> int:
        """How much may wait; nothing if the directory went with its cluster."""
        try:
            return free_bytes_max(self._directory)
        except OSError:
            return 0

    def _remove_first(self) -> None:
        oldest = self._free.pop(0)
        self._bytes -= oldest.size
        _remove(oldest)

    def _see_to_timer(self) -> None:
        """Have the files looked at again when something is due, if there are any."""
        if self._timer is not None or not (self._free or self._used):
            return
        left_s = [LOOK_S] if self._used else []
        left_s += [one.until_s - time.monotonic() for one in self._free[:1]]
        self._timer = timer = threading.Timer(max(0.0, min(left_s)), self._look)
        timer.daemon = True
        try:
            timer.start()
        except RuntimeError:  # this process ends, or may have no more threads
            self._timer = None

    def _look(self) -> None:
        """Remove what nobody has needed for `FREE_S`, and find what is not in use any more."""
        with self._lock:
            now_s = time.monotonic()
            while self._free and self._free[0].until_s <= now_s:
                self._remove_first()
            used, self._used = self._used, []
            for file in used:
                try:
                    if is_used(file.path):
                        self._used.append(file)
                    else:
                        self._add_free(file)
                except OSError:  # somebody has removed it
                    continue
            self._timer = None
            self._see_to_timer()


def _fitting(files: Iterable["File"], size: int) -> "File | None":
    return next((file for file in files if size <= file.size <= FREE_FIT * size), None)


def _remove(file: "File") -> None:
    with suppress(OSError):  # it went with the cluster's directory, perhaps
        empty_and_remove(file.path)


class File:
    """A file of ours."""

    __slots__ = ("path", "size", "until_s", "window")

    def __init__(self, path: str, size: int, window: Window | None = None) -> None:
        """Remember what is there."""
        self.path, self.size = path, size
        self.window = window  # where it is mapped to be written to; None: it is not
        self.until_s = 0.0  # when it is removed, if it is free

    def open_window(self, file: int) -> Window | None:
        """Return where it is mapped, from now on; None: it cannot be."""
        if self.window is None:
            with suppress(OSError):
                self.window = Window(file, self.size)
        return self.window
