"""Files of the caller: what lies in a directory, what is in them, and whether that has changed.

What was read is kept by the state of the file, so that a loop of maps reads nothing twice. A file
that was changed a moment ago may change again within one tick of the clock that stamps it; so it is
read again until it has settled.
"""

import importlib.machinery
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import NamedTuple

SETTLED_NS = 20_000_000  # a change this long ago has another time stamp than the next one
FILES_MAX = 20_000  # of all own modules and packages
DEPTH_MAX = 16  # of directories in a package: a link may lead up again
KEPT_BYTES_MAX = 256 << 20  # of files whose content is kept here

State = tuple[int, int, int]


def state_of(path: str) -> State | None:
    """Return what is another when the content is; None: it is not there."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def are_same(paths: list[str], states: list[State]) -> bool:
    """Return whether all of them are as they were."""
    stat = os.stat
    try:
        return states == [(s.st_mtime_ns, s.st_size, s.st_ino) for s in map(stat, paths)]
    except (OSError, ValueError):
        return False


def is_settled(state: State, now_ns: int) -> bool:
    """Return whether a later change has another state."""
    return state[0] < now_ns - SETTLED_NS


class Content(NamedTuple):
    """What is in a file, and of when that is."""

    state: State
    data: bytes
    is_settled: bool


_contents: dict[str, Content] = {}
_kept_bytes = 0


def read(path: str) -> Content:
    """Return what is in a file now.

    Raises:
        OSError: it cannot be read.
    """
    global _kept_bytes
    found = os.stat(path)  # before it is read: a change since is seen by the next look
    state = found.st_mtime_ns, found.st_size, found.st_ino
    known = _contents.get(path)
    if known is not None and known.state == state and known.is_settled:
        return known
    settled = is_settled(state, time.time_ns())
    with open(path, "rb") as file:
        data = file.read()
    if known is not None and known.data == data:
        data = known.data  # the same object: what was made of it is known
    content = Content(state, data, settled)
    _kept_bytes += len(data) - (len(known.data) if known else 0)
    if _kept_bytes > KEPT_BYTES_MAX:
        _contents.clear()
        _kept_bytes = len(data)
    _contents[path] = content
    return content


class Listing(NamedTuple):
    """What lies in one directory."""

    state: State | None
    files: dict[str, int]  # names of plain files, links to such included, and their sizes
    directories: tuple[str, ...]
    is_settled: bool


_listings: dict[str, Listing] = {}
LISTINGS_MAX = 4096


def listing_of(directory: str) -> Listing:
    """Return what lies in a directory; nothing if it cannot be read."""
    state = state_of(directory)
    known = _listings.get(directory)
    if known is not None and known.state == state and known.is_settled:
        return known
    files: dict[str, int] = {}
    directories: list[str] = []
    with suppress(OSError), os.scandir(directory) as entries:
        for entry in sorted(entries, key=lambda one: one.name):
            with suppress(OSError):  # a link to nowhere
                if entry.is_dir():
                    directories.append(entry.name)
                elif entry.is_file():  # no pipe, socket or device
                    files[entry.name] = entry.stat().st_size
    settled = state is not None and is_settled(state, time.time_ns())
    listing = Listing(state, files, tuple(directories), settled)
    if len(_listings) >= LISTINGS_MAX:
        _listings.clear()
    _listings[directory] = listing
    return listing


SUFFIXES = (  # in the order in which `importlib` tries them
    *importlib.machinery.EXTENSION_SUFFIXES,
    *importlib.machinery.SOURCE_SUFFIXES,
    *importlib.machinery.BYTECODE_SUFFIXES,
)


def module_file(stem: str, names: Iterable[str]) -> str | None:
    """Return which of these names of files an import of `stem` takes."""
    return next((f"{stem}{suffix}" for suffix in SUFFIXES if f"{stem}{suffix}" in names), None)


def stems(names: Iterable[str]) -> list[str]:
    """Return the modules that files of these names could be."""
    found = (name.partition(".")[0] for name in names if name.endswith(SUFFIXES))
    return sorted({stem for stem in found if stem.isidentifier()})


def is_passed_over(directory: str, name: str) -> bool:
    """Return whether a directory in a package is none of its parts, but what tools keep there."""
    if name.startswith(".") or name in ("__pycache__", "node_modules"):
        return True
    return os.path.exists(os.path.join(directory, name, "pyvenv.cfg"))
