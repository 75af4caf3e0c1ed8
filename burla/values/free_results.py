"""Files of results that nobody refers to any more, and that workers write anew.

Fresh memory costs four times as much as memory that is there. So when the caller takes a result,
its file is not removed but put aside, under a name of the caller's; when the caller lets go of the
result, it goes into a directory where workers find it. Who wants it renames it to a place of his
own, which one can do only; and writes to it only if nobody maps it, which the lock tells: a child
that the caller has forked may still have the result.

What no worker takes is removed after a while, and kept within bounds. The file is emptied first:
a worker that has it mapped still has none of its memory.
"""

import functools
import os
import threading
import time
from _queue import SimpleQueue
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import count
from typing import Any, NamedTuple

from .file_locks import LOCK_EX, LOCK_NB, LOCK_UN, flock
from .raw_memory import Window
from .shared_memory import empty_and_remove, write_into

# So long one waits, about. Between two maps of a loop others have their turn, which may last; cold
# memory then costs more than the whole map.
FREE_S = 30.0
LOOK_S = 2.5  # between two looks at what waits
FREE_BYTES_MAX = 1 << 30  # that wait
FREE_PART = 16  # nor more than this part of the file system, or of the memory
FREE_COUNT_MAX = 256  # files that wait; each costs a moment when a worker looks for one
FREE_FIT = 2  # a file is at most so much bigger than what is written to it
FREE_TRIES_MAX = 4  # files looked at for one result: each may be mapped still
WINDOWS_BYTES_MAX = 256 << 20  # of free files, that a worker keeps mapped


class HeldResults:
    """The files of the results that this process has taken. Thread-safe.

    What is done when a result goes must be safe wherever the garbage collector comes by: it takes
    no lock, renames, and tells a thread, which sees to the bounds.
    """

    def __init__(self, directory: str) -> None:
        """Put them aside in `directory`, that of the cluster."""
        self._held, self._free = os.path.join(directory, "held"), free_in(directory)
        self._directory = directory
        self._pid = os.getpid()
        self._numbers = count()
        self._news: SimpleQueue[bool] = SimpleQueue()  # something is free (True), or all is over
        self._is_watched = False  # the thread looks at what is free
        self._lock = threading.Lock()  # held while the thread is started
        self._thread: threading.Thread | None = None

    def hold(self, file: int, path: str) -> str | None:
        """Take a result away from where its worker has put it; None: it can only be removed.

        Args:
            file: the file, open and locked.
            path: its name.
        """
        if not self._is_begun():
            return None
        writer = os.path.basename(path).partition("-")[0]
        held = f"{self._held}/{next(self._numbers)}-{writer}-{os.fstat(file).st_size}"
        try:
            os.rename(path, held)
        except OSError:
            return None
        return held

    def give_back(self, held: str) -> None:
        """Leave a file to the workers, since the result is not referred to any more."""
        if os.getpid() != self._pid:
            return  # a forked child: its parent may have the result still
        with suppress(Exception):
            until_ms = int((time.monotonic() + FREE_S) * 1000)
            os.rename(held, f"{self._free}/{until_ms}-{os.path.basename(held)}")
            if not self._is_watched:
                self._news.put(True)

    def end(self) -> None:
        """Look after them no longer: the directory goes with its cluster."""
        self._news.put(False)

    def _is_begun(self) -> bool:
        if self._thread is not None or os.getpid() != self._pid:
            return os.getpid() == self._pid
        with self._lock:
            if self._thread is None:
                thread = threading.Thread(target=self._look_after, name="burla-memory", daemon=True)
                try:
                    for place in (self._held, self._free):
                        os.makedirs(place, 0o700, exist_ok=True)
                    thread.start()
                except (OSError, RuntimeError):  # no room, or there may be no more threads
                    return False
                self._thread = thread
        return True

    def _look_after(self) -> None:
        while True:
            self._is_watched = False
            if not self._remove_old() and not self._news.get():
                return
            self._is_watched = True
            time.sleep(LOOK_S)

    def _remove_old(self) -> bool:
        """Remove what has waited too long or is too much; return whether something still waits."""
        try:
            free = sorted(_free_files(self._free), key=_until_ms)
            bytes_max = free_bytes_max(self._free)
        except OSError:  # it went with its cluster
            return False
        size, now_ms = sum(one.size for one in free), time.monotonic() * 1000
        for at, one in enumerate(free):
            left = len(free) - at
            if size <= bytes_max and left <= FREE_COUNT_MAX and one.until_ms > now_ms:
                return True
            size -= one.size
            aside = f"{self._directory}/old-{next(self._numbers)}"
            with suppress(OSError):  # a worker has been quicker
                os.rename(f"{self._free}/{one.name}", aside)
                empty_and_remove(aside)
        return False


def free_in(directory: str) -> str:
    """Return where the free files of a cluster lie; no job is called so."""
    return os.path.join(directory, "free")


def free_bytes_max(directory: str) -> int:
    """Return how many bytes of files in a directory may wait to be written anew.

    Raises:
        OSError: it is not there.
    """
    disk = os.statvfs(directory)
    return min(FREE_BYTES_MAX, min(disk.f_blocks * disk.f_frsize, memory_bytes()) // FREE_PART)


@functools.cache
def memory_bytes(root: str = "/") -> int:
    """Return how much memory this process can have: of the machine, or of its control groups."""
    sizes = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for line in _text_of(f"{root}/proc/self/cgroup").splitlines():
        _, kinds, group = line.split(":", 2)
        if not kinds:
            files = f"{root}/sys/fs/cgroup%s/memory.max"
        elif "memory" in kinds.split(","):
            files = f"{root}/sys/fs/cgroup/memory%s/memory.limit_in_bytes"
        else:
            continue
        while group:  # in a container it is the one outside, and ours is mounted at the base
            sizes += map(int, filter(str.isdecimal, _text_of(files % group).split()))
            group = group.rpartition("/")[0]
        sizes += map(int, filter(str.isdecimal, _text_of(files % "").split()))
    return min(sizes)


def _text_of(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except (OSError, ValueError):
        return ""


class _Free(NamedTuple):
    """What the name of a free file says."""

    name: str
    until_ms: int  # monotonic: then it is removed
    writer: int  # the process that wrote it last
    size: int


def _free_files(free: str) -> Iterator[_Free]:
    for name in os.listdir(free):
        with suppress(ValueError):  # a stranger's
            until_ms, _, writer, size = map(int, name.split("-"))
            yield _Free(name, until_ms, writer, size)


def _until_ms(one: _Free) -> int:
    return one.until_ms


_Key = tuple[int, int]  # device and number of a file, which its mapping keeps from being reused


class FreeResults:
    """What a worker makes of free files; it keeps those mapped that it has written to before."""

    def __init__(self) -> None:
        """Keep nothing mapped yet."""
        self._windows: dict[_Key, Window] = {}  # the one that was written to last is the last
        self._used_s: dict[_Key, float] = {}  # when that was
        self._bytes = 0  # of them
        self._pid = os.getpid()

    def write(
        self, directory: str, path: str, parts: Sequence[Any], size: int, *, keep: bool
    ) -> bool:
        """Turn a free file of the cluster into one of `parts` at `path`; False: there is none.

        Args:
            directory: of the cluster.
            path: where nothing is yet, and nobody else puts anything.
            parts: what is written.
            size: of all parts.
            keep: the file may be mapped by this process, and stay so.

        Raises:
            OSError: it cannot be written; nothing is left of it.
        """
        free = free_in(directory)
        for name in _fitting(free, size):
            with suppress(FileNotFoundError):  # another worker was quicker
                os.rename(f"{free}/{name}", path)
                if self._rewrite(path, parts, size, keep):
                    return True
                os.rename(path, f"{free}/{name}")  # somebody maps it still
        return False

    def _rewrite(self, path: str, parts: Sequence[Any], size: int, keep: bool) -> bool:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            try:
                flock(file, LOCK_EX | LOCK_NB)
            except BlockingIOError:
                return False
            try:
                write_into(file, parts, self._window(file, size) if keep else None)
            except BaseException:
                with suppress(OSError):
                    os.unlink(path)
                raise
            finally:
                flock(file, LOCK_UN)  # a child forked meanwhile has the descriptor, too
            return True
        finally:
            os.close(file)

    def _window(self, file: int, size: int) -> Window | None:
        if self._pid != os.getpid():  # in a forked child they are not there
            self._windows, self._used_s, self._bytes = {}, {}, 0
            self._pid = os.getpid()
        status, now_s = os.fstat(file), time.monotonic()
        key = (status.st_dev, status.st_ino)
        window = self._windows.pop(key, None)
        if window is None:
            if self._bytes + status.st_size > WINDOWS_BYTES_MAX:
                self._drop_old(now_s)
            if self._bytes + status.st_size > WINDOWS_BYTES_MAX:
                return None
            try:
                window = Window(file, status.st_size)
            except OSError:
                return None
            self._bytes += window.size
        self._windows[key], self._used_s[key] = window, now_s
        return window if window.size >= size else None

    def _drop_old(self, now_s: float) -> None:
        """Let go of what was not written to for so long that others may have it by now."""
        for key, window in list(self._windows.items()):
            if self._used_s[key] + FREE_S > now_s:
                return
            del self._windows[key], self._used_s[key]
            self._bytes -= window.size


def _fitting(free: str, size: int) -> list[str]:
    """Return the names of a few files that so many bytes fit into, the best first.

    These are those that this process has written, and of these the one that waits for the least
    time: what is not needed grows old.
    """
    me = os.getpid()
    try:
        fit = [one for one in _free_files(free) if size <= one.size <= FREE_FIT * size]
    except FileNotFoundError:
        return []
    fit.sort(key=lambda one: (one.writer != me, -one.until_ms))
    return [one.name for one in fit[:FREE_TRIES_MAX]]
