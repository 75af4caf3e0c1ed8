"""Packages that go along as the files that are installed here, for nodes that cannot have them.

They travel as the caller's own modules do: little with the job, more as blobs. The bytecode that is
beside a module here goes with it: else each node compiles all that it imports of them.
"""

import importlib.util
import os
import sys
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import NamedTuple
from zlib import compress

import msgpack

from burla.values.own_modules import OwnFile, OwnModules, pack_own_modules, platform
from burla.values.packages import NAME

from .attachments import PACKAGES_MAX, Attachments, Named, attach
from .distributions import Distribution
from .packed_files import PackedFiles

WARN_BYTES = 10_000_000  # more than this is told
BYTES_MAX = 2 << 30  # of all of them together
ALONE_BYTES_MIN = 64 << 10  # of a package that is a part of its own: the next job may have others
KEPT_MAX = 4  # of what was packed last
TOLD_MAX = 3
THREADS_MAX = 4  # that deflate, which needs no lock of the interpreter
UNCHECKED = (1).to_bytes(4, "little")  # flags of bytecode that is read whatever its source is
PYC_HEADER_BYTES = 16  # see PEP 552
TESTS = frozenset(("test", "tests"))  # hardly ever imported

_Key = tuple[tuple[str, str, str], ...]
_packed: dict[_Key, Attachments] = {}


def attach_packages(chosen: Sequence[Distribution]) -> Attachments:
    """Return how these go along.

    Raises:
        ValueError: they are too big, or cannot be read.
    """
    if not chosen:
        return Attachments()
    key = tuple(sorted((one.name, one.version, one.info) for one in chosen))
    attached = _packed.get(key)
    if attached is None:
        if len(_packed) >= KEPT_MAX:
            del _packed[next(iter(_packed))]
        attached = _packed[key] = attach(_pack(chosen))
    return attached


def warning_of(chosen: Sequence[Distribution]) -> str:
    """Return what the user should hear of packages that go along; empty: nothing."""
    sizes = {f"{one.name} {one.version}": size_of(one) for one in chosen}
    total = sum(sizes.values())
    if total <= WARN_BYTES:
        return ""
    biggest = sorted(sizes, key=lambda name: -sizes[name])
    told = ", ".join(biggest[:TOLD_MAX]) + (", ..." if len(biggest) > TOLD_MAX else "")
    return (
        f"burla: {total / 1e6:,.1f} MB of installed packages are sent in files, as a node cannot"
        f" have them from its index: {told}"
    )


def size_of(one: Distribution) -> int:
    """Return how many bytes the files of a package have."""
    total = 0
    for name in files_of(one):
        try:
            total += os.path.getsize(os.path.join(one.site, name))
        except OSError:
            continue  # removed by hand
    return total


def files_of(one: Distribution) -> list[str]:
    """Return the files that go along, below where it is installed."""
    return [file for file in one.files if "__pycache__" not in file and not file.endswith(".pyc")]


class _Part(NamedTuple):
    """Some packages, in one piece."""

    files: list[OwnFile]  # where each begins in it
    content: bytes  # deflated


def _pack(chosen: Sequence[Distribution]) -> Named:
    """Return them packed: each big one by itself, so that what has not changed is not sent again.

    Raises:
        ValueError: they are too big, or cannot be read.
    """
    sizes = _checked_sizes(chosen)
    by_size = sorted(chosen, key=lambda one: -sizes[one.name])
    alone = [one for one in by_size[: PACKAGES_MAX - 2] if sizes[one.name] >= ALONE_BYTES_MIN]
    names = {one.name for one in alone}
    small = [one for one in chosen if one.name not in names]
    # Once the main thread of a script has ended it cannot be imported: others may still call.
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(min(THREADS_MAX, os.cpu_count() or 1)) as threads:
        parts = [_part_of(small), *threads.map(_packed_or_kept, alone)]
    own = OwnModules(
        name="",
        platform=platform(),
        files=[file._replace(part=at) for at, part in enumerate(parts) for file in part.files],
        packed=[True] * len(parts),
        tops=[],
        archives=[],
        extensions=[one.name for one in chosen if one.is_binary],
        refused={},
    )
    digest = blake2b(msgpack.packb(own), digest_size=16)
    for part in parts:
        digest.update(part.content)
    own = own._replace(name=digest.hexdigest())
    named = [(f"{NAME}/{at}", part.content) for at, part in enumerate(parts)]
    return [(NAME, pack_own_modules(own)), *named]


def _checked_sizes(chosen: Sequence[Distribution]) -> dict[str, int]:
    sizes = {one.name: size_of(one) for one in chosen}
    if sum(sizes.values()) > BYTES_MAX:
        biggest = sorted(sizes, key=lambda name: -sizes[name])[:TOLD_MAX]
        told = ", ".join(f"{name} ({sizes[name] / 1e6:,.0f} MB)" for name in biggest)
        raise ValueError(
            f"packages that go along in files have {sum(sizes.values()) / 1e6:,.0f} MB, at most"
            f" {BYTES_MAX / 1e6:,.0f} MB can be sent; the biggest: {told}. Give the nodes an index"
            " that has them, or install them there"
        )
    return sizes


def _packed_or_kept(one: Distribution) -> _Part:
    """Return a package packed, as it was for an earlier job or script if nothing has changed."""
    kept, key = PackedFiles(), _state_of(one)
    found = kept.find(key)
    if found is not None:
        (_, files), (_, content) = found
        return _Part([OwnFile(*file) for file in msgpack.unpackb(files)], content)
    part = _part_of([one])
    kept.keep(key, [("files", msgpack.packb(part.files)), ("content", part.content)])
    return part


def _state_of(one: Distribution) -> bytes:
    """Return what is another when any file is: some are edited where they are installed."""
    about = (platform(), sys.version_info, one.name, one.version, one.info)
    state = blake2b(repr(about).encode(), digest_size=20)
    for name in files_of(one):
        try:
            found = os.stat(os.path.join(one.site, name))
        except OSError:
            continue  # removed by hand
        facts = (name, found.st_size, found.st_mtime_ns, found.st_ino, found.st_mode)
        state.update(repr(facts).encode())
    return state.digest()


def _part_of(packages: Sequence[Distribution]) -> _Part:
    files: list[OwnFile] = []
    contents: list[bytes] = []
    start = 0
    for one in packages:
        for name, data, is_program in _read(one):
            files.append(OwnFile(os.fsencode(name), b"", 0, start, len(data), is_program))
            contents.append(data)
            start += len(data)
    return _Part(files, compress(b"".join(contents), 1))


def _read(one: Distribution) -> Iterator[tuple[str, bytes, bool]]:
    """Yield the files of a package: name, content, whether it may be executed."""
    for name in dict.fromkeys(files_of(one)):
        path = os.path.join(one.site, name)
        try:
            with open(path, "rb") as file:
                content = file.read()
        except FileNotFoundError:
            continue  # removed by hand; an import of it fails here, too
        except OSError as error:
            raise ValueError(f"{path} of {one.name} cannot be read: {error.strerror}") from None
        yield name, content, os.access(path, os.X_OK)
        if name.endswith(".py"):
            yield from _bytecode_of(name, path, content)


def _bytecode_of(name: str, path: str, source: bytes) -> Iterator[tuple[str, bytes, bool]]:
    """Yield the file with the bytecode of a module, if there is one and it is of this source.

    It says when its source was changed here, which is not when a node has written that down: so it
    is made to say that there is nothing to compare, as those of read-only systems do.
    """
    folder, slash, file = name.rpartition("/")
    if sys.implementation.cache_tag is None or TESTS & set(folder.split("/")):
        return
    try:
        with open(importlib.util.cache_from_source(path, optimization=""), "rb") as opened:
            data = opened.read()
        changed_s = int(os.stat(path).st_mtime)
    except OSError:
        return  # it was never imported
    facts = (0, changed_s & 0xFFFFFFFF, len(source) & 0xFFFFFFFF)
    expected = b"".join(fact.to_bytes(4, "little") for fact in facts)
    if data[:PYC_HEADER_BYTES] != importlib.util.MAGIC_NUMBER + expected:
        return
    digest = importlib.util.source_hash(source)
    header = importlib.util.MAGIC_NUMBER + UNCHECKED + digest
    there = f"{folder}{slash}__pycache__/{file[: -len('.py')]}.{sys.implementation.cache_tag}.pyc"
    yield there, header + data[PYC_HEADER_BYTES:], False
