"""Files that a call names: they are there in the folder of the job, under their relative names."""

import errno
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgpack

from burla.values.payloads import short_repr

from .attachments import join_small

FILES_BYTES_MAX = 1 << 30
FILES_MAX = 20_000
ALONE_BYTES_MIN = 256 << 10  # a file from here on is a part of its own
DEPTH_MAX = 32  # of folders in one: a link may lead up again
TOLD_MAX = 3  # of big files


class Shipped(NamedTuple):
    """One file."""

    name: str  # below the folder of the job
    path: str  # where it lies here


def find_files(named: object) -> list[Shipped]:
    """Return the files that the argument `files` names; folders come first, with a "/" at the end.

    Raises:
        TypeError: the argument is of a wrong kind.
        ValueError: a name leads out of the job's folder, or there is too much.
        OSError: something is not there, or cannot be read.
    """
    if named is None:
        return []
    found: dict[str, Shipped] = {}
    for name, path in _pairs(named):
        for one in _below(name, path, 0):
            other = found.setdefault(one.name, one).path
            if os.path.realpath(other) != os.path.realpath(one.path):
                raise ValueError(f"files: two things would be {one.name!r} in the job's folder")
            if len(found) > FILES_MAX:
                raise ValueError(
                    f"files: there are over {FILES_MAX:,} files in {path!r}; put them into an"
                    " archive, and let the function unpack it"
                )
    _check_places(found)
    return sorted(found.values(), key=lambda one: (not one.name.endswith("/"), one.name))


def _check_places(found: Collection[str]) -> None:
    """Raise ValueError where a file would be the job's folder, or one that others lie in."""
    for name in found:
        if name == ".":
            raise ValueError("files: a file needs a name in the job's folder, not '.'")
        above = os.path.dirname(name.rstrip("/"))
        while above:
            if above in found:
                raise ValueError(f"files: {above!r} would be a file, and a folder with {name!r}")
            above = os.path.dirname(above)


def dump_files(files: Sequence[Shipped]) -> list[tuple[str, bytes]]:
    """Return files as they are now, to be attached: what they are called, and their parts.

    Raises:
        ValueError: they are too big.
        OSError: one cannot be read.
    """
    sizes = {one.path: os.stat(one.path).st_size for one in files if not one.name.endswith("/")}
    if (total := sum(sizes.values())) > FILES_BYTES_MAX:
        biggest = sorted(sizes.items(), key=lambda one: -one[1])[:TOLD_MAX]
        told = ", ".join(f"{path} ({size:,})" for path, size in biggest)
        raise ValueError(
            f"files: these are {total:,} bytes, at most {FILES_BYTES_MAX:,} go with a call; the"
            f" biggest: {told}. Put big data where nodes can read it"
        )
    contents = [b"" if one.name.endswith("/") else _content(one.path) for one in files]
    places, parts = join_small(contents, ALONE_BYTES_MIN)
    told_files = [
        (os.fsencode(one.name), *place, len(content), _is_program(one))
        for one, place, content in zip(files, places, contents, strict=True)
    ]
    packed = [(f"files/{number}", data) for number, data in parts if data]
    return [("files", msgpack.packb(told_files)), *packed]


def _content(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _is_program(one: Shipped) -> bool:
    return not one.name.endswith("/") and os.access(one.path, os.X_OK)


def _pairs(named: Any) -> Iterator[tuple[str, str]]:
    """Yield the name that each thing has there, and where it lies here."""
    if isinstance(named, str | os.PathLike):
        named = [named]
    if isinstance(named, Mapping):
        for name, path in named.items():
            yield _inside(_text(name), is_given=True), _text(path)
    elif isinstance(named, Iterable) and not isinstance(named, bytes):
        for path in named:
            yield _inside(_text(path), is_given=False), _text(path)
    else:
        raise TypeError(
            "files must be paths of files or folders, or a mapping of names to such paths, not "
            + short_repr(named)
        )


def _text(path: object) -> str:
    text = os.fspath(path) if isinstance(path, str | os.PathLike) else None
    if not isinstance(text, str) or not text or "\0" in text:
        raise TypeError(f"files: {short_repr(path)} is not a path")
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        raise ValueError(f"files: {short_repr(path)} cannot be the name of a file") from None
    return text


def _inside(path: str, is_given: bool) -> str:
    """Return a path as a name below the folder of the job."""
    name = os.path.normpath(path)
    if os.path.isabs(name) and not is_given:
        folder, base = os.path.split(name)
        name = os.path.relpath(os.path.join(os.path.realpath(folder), base))
    there = name.replace(os.sep, "/")  # as nodes have it
    if os.path.isabs(name) or there == ".." or there.startswith("../"):
        place = "the job's folder" if is_given else f"your working directory, {os.getcwd()}"
        raise ValueError(
            f"files: {path!r} is outside of {place}: what is sent keeps its name in there; name it,"
            ' as in files={"model.bin": "/data/model.bin"}'
        )
    return there


def _below(name: str, path: str, depth: int) -> Iterator[Shipped]:
    if os.path.isdir(path):
        if name != ".":
            yield Shipped(f"{name}/", path)
        for inner in sorted(os.listdir(path)):
            below = os.path.join(path, inner)
            if depth < DEPTH_MAX and not _leads_up(below):
                yield from _below(inner if name == "." else f"{name}/{inner}", below, depth + 1)
    elif os.path.isfile(path):
        yield Shipped(name, path)
    elif depth == 0 and not os.path.exists(path):
        raise FileNotFoundError(errno.ENOENT, "files: there is no such file or folder", path)
    elif depth == 0:
        raise ValueError(f"files: {path!r} is neither a file nor a folder")


def _leads_up(path: str) -> bool:
    """Return whether this is a link to a folder that it lies in."""
    if not os.path.islink(path):
        return False
    whole = os.path.join(os.path.realpath(path), "")
    return os.path.join(os.path.realpath(os.path.dirname(path)), "").startswith(whole)
