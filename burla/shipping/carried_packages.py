"""Packages that go along as the files that are installed here, for nodes that cannot have them.

They travel as the caller's own modules do: little with the job, more as blobs.
"""

import os
from collections.abc import Sequence
from hashlib import blake2b
from zlib import compress

import msgpack

from burla.values.own_modules import OwnFile, OwnModules, pack_own_modules, platform
from burla.values.packages import NAME

from .attachments import PACKAGES_MAX, Attachments, attach, join_small
from .distributions import Distribution

WARN_BYTES = 10_000_000  # more than this is told
BYTES_MAX = 2 << 30  # of all of them together
ALONE_BYTES_MIN = 64 << 10  # of a package that is a part of its own: the next job may have others
KEPT_MAX = 4  # of what was packed last
TOLD_MAX = 3

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
        attached = _packed[key] = _attach(chosen)
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


def _attach(chosen: Sequence[Distribution]) -> Attachments:
    sizes = {one.name: size_of(one) for one in chosen}
    if sum(sizes.values()) > BYTES_MAX:
        biggest = sorted(sizes, key=lambda name: -sizes[name])[:TOLD_MAX]
        told = ", ".join(f"{name} ({sizes[name] / 1e6:,.0f} MB)" for name in biggest)
        raise ValueError(
            f"packages that go along in files have {sum(sizes.values()) / 1e6:,.0f} MB, at most"
            f" {BYTES_MAX / 1e6:,.0f} MB can be sent; the biggest: {told}. Give the nodes an index"
            " that has them, or install them there"
        )
    contents, listed = [], []
    for one in chosen:
        files, content = _read(one)
        listed.append(files)
        contents.append(content)
    places, parts = join_small(contents, ALONE_BYTES_MIN, PACKAGES_MAX)
    own = OwnModules(
        name="",
        platform=platform(),
        files=[
            file._replace(part=part, start=start + file.start)
            for files, (part, start) in zip(listed, places, strict=True)
            for file in files
        ],
        packed=[True] * len(parts),
        tops=[],
        archives=[],
        extensions=[one.name for one in chosen if one.is_binary],
        refused={},
    )
    digest = blake2b(msgpack.packb(own), digest_size=16)
    for _, content in parts:
        digest.update(content)
    own = own._replace(name=digest.hexdigest())
    packed = [(f"{NAME}/{number}", compress(content, 1)) for number, content in parts]
    return attach([(NAME, pack_own_modules(own)), *packed])


def _read(one: Distribution) -> tuple[list[OwnFile], bytes]:
    """Return the files of a package, which all lie in one piece."""
    files, contents, start = [], [], 0
    for name in dict.fromkeys(files_of(one)):
        path = os.path.join(one.site, name)
        try:
            with open(path, "rb") as file:
                content = file.read()
        except FileNotFoundError:
            continue  # removed by hand; an import of it fails here, too
        except OSError as error:
            raise ValueError(f"{path} of {one.name} cannot be read: {error.strerror}") from None
        is_program = os.access(path, os.X_OK)
        files.append(OwnFile(os.fsencode(name), b"", 0, start, len(content), is_program))
        contents.append(content)
        start += len(content)
    return files, b"".join(contents)
