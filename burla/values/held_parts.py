"""Parts of functions that were sent lately: what is in a loop of maps again is not sent again.

Whether a part was sent before is found out by its content, in one pass over it at the speed of
memory: by a 128-bit hash (XXH3) under a seed of this process. That is no proof against somebody who
looks for collisions, and need be none: nobody but the caller chooses what is compared here. Where
parts are sent, they are named by SHA-256, once for each content.

Who sends a part needs its bytes as they were, for as long as its job is open: a copy, in a file in
memory if the workers are on this machine, which map it. Copies are kept a little longer than they
are needed, for the next map: bounded in bytes and time.
"""

import hashlib
import os
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from .parts import FunctionPieces, Part, refer_first, take_parts
from .shared_memory import create, refer_to_part

KEPT_BYTES_MAX = 1 << 30  # that no open job needs
KEPT_S = 60.0  # since a job needed them
FREE_SHARE = 4  # of a file system in memory one part is left free, for the caller's own

_SEED = int.from_bytes(os.urandom(8), "big")


@dataclass(eq=False)
class HeldPart:
    """The bytes of a part as they were when it was taken."""

    key: bytes
    size: int
    content: Any = None  # bytes-like; None: they lie in a file
    digest: bytes = b""  # SHA-256 of the content; empty: it lies in a file
    path: str = ""
    jobs: int = 0  # that need it
    used_s: float = 0.0


@dataclass
class HeldFunction:
    """A function as it is sent; `release` when its job is over."""

    frames: list[bytes]  # with references to parts that lie in files; others follow them
    parts: list[tuple[HeldPart, bool]] = field(default_factory=list)  # and whether it was a `bytes`
    _held: "HeldParts | None" = None
    _needed: list[HeldPart] = field(default_factory=list)

    def release(self) -> None:
        """Take note that the parts are not needed any more. May be said again."""
        needed, self._needed = self._needed, []
        if self._held is not None:
            self._held.release(needed)


class HeldParts:
    """All parts of one place: this process, or a directory in memory."""

    def __init__(self, directory: str | None = None) -> None:
        """Keep parts in `directory`, which goes with the cluster; None: in this process."""
        self._directory = directory
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._parts: OrderedDict[bytes, HeldPart] = OrderedDict()  # by key; the one used last last
        self._made = 0
        self._timer: threading.Timer | None = None

    def hold(self, part: Part) -> HeldPart:
        """Return a part that stays until it is released.

        Raises:
            OSError: there is no room for it.
        """
        view = part.view.cast("B") if part.view.format != "B" or part.view.ndim != 1 else part.view
        key = key_of(view)
        with self._lock:
            if (known := self._take(key)) is not None:
                return known
        made = self._copy(view)
        with self._lock:
            if (known := self._take(made.key)) is None:
                self._parts[made.key] = known = made
                made.jobs = 1
                self._trim()
            else:
                _drop(made)
            return known

    def release(self, parts: Sequence[HeldPart]) -> None:
        """Take note that a job does not need these any more."""
        if self._pid != os.getpid():
            return  # this is a forked child: they are its parent's
        with self._lock:
            now_s = time.monotonic()
            for part in parts:
                part.jobs -= 1
                part.used_s = now_s
            self._trim()

    def _take(self, key: bytes) -> HeldPart | None:
        known = self._parts.get(key)
        if known is None:
            return None
        if known.path and not os.path.exists(known.path):  # somebody has removed it
            del self._parts[key]
            return None
        self._parts.move_to_end(key)
        known.jobs += 1
        return known

    def _copy(self, view: memoryview) -> HeldPart:
        """Return a copy; what it holds is looked at there, for the original may be changing."""
        size = len(view)
        if self._directory is None:
            whole = type(view.obj) is bytes and len(view.obj) == size
            content: Any = view.obj if whole else bytes(view)
            return HeldPart(key_of(content), size, content, hashlib.sha256(content).digest())
        os.makedirs(self._directory, 0o700, exist_ok=True)
        disk = os.statvfs(self._directory)
        if disk.f_bavail * disk.f_frsize - size <= disk.f_blocks * disk.f_frsize // FREE_SHARE:
            raise OSError("there is no room for it in memory")
        with self._lock:
            self._made += 1
            path = os.path.join(self._directory, f"{self._pid}-{self._made}")
        create(path, [view])
        return HeldPart(_key_of_file(path), size, path=path)

    def _trim(self) -> None:
        """Let go of what no job needs: the oldest first, down to the bounds."""
        now_s = time.monotonic()
        idle = [part for part in self._parts.values() if not part.jobs]
        idle_bytes = sum(part.size for part in idle)
        for part in idle:
            if idle_bytes <= KEPT_BYTES_MAX and now_s < part.used_s + KEPT_S:
                break
            idle_bytes -= part.size
            del self._parts[part.key]
            _drop(part)
        if idle_bytes and self._timer is None:
            self._timer = threading.Timer(KEPT_S, self._on_time)
            self._timer.daemon = True
            with suppress(RuntimeError):  # the interpreter is about to end
                self._timer.start()

    def _on_time(self) -> None:
        with self._lock:
            self._timer = None
            self._trim()


def hold(pieces: FunctionPieces, directory: str | None) -> HeldFunction:
    """Return a function as it is sent.

    Args:
        pieces: of it.
        directory: in memory, which the workers share; None: they do not.

    Raises:
        TooLargeError: it cannot be sent.
    """
    apart = take_parts(pieces)
    if apart is None:
        return HeldFunction(pieces.cut())
    held = held_in(directory)
    function = HeldFunction([], _held=held)
    try:
        for part in apart.parts:
            function._needed.append(held.hold(part))
    except OSError:  # no room
        function.release()
        return HeldFunction(pieces.cut()) if directory is not None else hold(pieces, None)
    except BaseException:
        function.release()
        raise
    found = list(zip(function._needed, apart.parts, strict=True))
    if directory is None:
        function.frames, function.parts = [apart.first], [(p, o.is_bytes) for p, o in found]
    else:
        references = [refer_to_part(p.path, p.size, is_bytes=o.is_bytes) for p, o in found]
        function.frames = [refer_first(apart.first), *references]
    return function


def key_of(view: Any) -> bytes:
    """Return what is the same for the same content."""
    try:
        from xxhash import xxh3_128_digest  # small functions do without

        return len(view).to_bytes(8, "big") + xxh3_128_digest(view, _SEED)
    except ImportError:  # an installation that was put together by hand
        return hashlib.sha256(view).digest()


def _key_of_file(path: str) -> bytes:
    import mmap

    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        return key_of(mapped)


def _drop(part: HeldPart) -> None:
    part.content = None
    if part.path:
        with suppress(OSError):  # it went with the cluster's directory, perhaps
            os.unlink(part.path)


_places: dict[str | None, HeldParts] = {}
_making = threading.Lock()


def held_in(directory: str | None) -> HeldParts:
    """Return the parts of one place."""
    with _making:
        for gone in [path for path in _places if path and not os.path.isdir(os.path.dirname(path))]:
            del _places[gone]  # the cluster that it belonged to has ended
        return _places.setdefault(directory, HeldParts(directory))


def _forget_in_child() -> None:
    """Begin anew in a forked child: files are its parent's, and a lock may be held for ever."""
    global _places, _making
    _places, _making = {}, threading.Lock()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_forget_in_child)
