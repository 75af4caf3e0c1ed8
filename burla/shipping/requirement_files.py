"""Files that list packages: requirements files, pyproject.toml, uv.lock."""

import importlib.metadata
import os
import re
import tomllib
from collections.abc import Iterator, Sequence
from typing import Any

from burla.protocol.package_messages import HASH_OPTION, split_hashes

_COMMENT = re.compile(r"(^|\s+)#.*$")
_OTHER_FILE = re.compile(r"(?:-r|--requirement(?=[\s=]))\s*=?\s*(\S.*)")
_OPTIONS = re.compile(r"\s+--.*$")  # of one requirement
_HASH = re.compile(r"\s--hash(?:=|\s+)(\S+)")
_EXACT = re.compile(r"===?\s*[^\s*,]+\s*$")
NO_INDEX = frozenset(("git", "path", "directory", "url"))  # sources in a lock file
WITHOUT_EFFECT = ("--prefer-binary", "--only-binary")  # nodes take wheels anyway
DEPTH_MAX = 8  # of requirements files that name others


def read_file(path: str) -> tuple[list[str], bool]:
    """Return the requirements that a file lists, and whether they are all, with exact versions.

    Raises:
        ValueError: it is none of these files, or asks for what nodes cannot have.
        OSError: it cannot be read.
    """
    name = os.path.basename(path)
    if name == "uv.lock":
        return list(_of_lock(_toml(path), path)), True
    if name.endswith(".toml"):
        project = _toml(path).get("project")
        if not isinstance(project, dict):
            raise ValueError(f"{path} has no table [project]")
        listed = project.get("dependencies", [])
        if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
            raise ValueError(f"{path}: project.dependencies is no list of requirements")
        return listed, False
    listed = list(_of_requirements(path, 0))
    return listed, are_hashed(listed, path)


def _toml(path: str) -> dict[str, Any]:
    with open(path, "rb") as file:
        try:
            return tomllib.load(file)
        except (tomllib.TOMLDecodeError, UnicodeError) as error:
            raise ValueError(f"{path} is no TOML: {error}") from None


def _of_requirements(path: str, depth: int) -> Iterator[str]:
    if depth > DEPTH_MAX:
        raise ValueError(f"{path}: files that name each other")
    with open(path, encoding="utf-8-sig") as file:
        text = file.read().replace("\\\n", " ")
    for line in text.split("\n"):
        line = _COMMENT.sub("", line).strip()
        if not line:
            continue
        if (other := _OTHER_FILE.fullmatch(line)) is not None:
            yield from _of_requirements(os.path.join(os.path.dirname(path), other[1]), depth + 1)
        elif line.startswith("-"):
            _check_option(line, path)
        else:
            yield _OPTIONS.sub("", line) + "".join(
                f"{HASH_OPTION}{digest}" for digest in _HASH.findall(line)
            )


def are_hashed(listed: Sequence[str], where: str) -> bool:
    """Return whether requirements have hashes; then, as for pip, these are all of them.

    Raises:
        ValueError: only some have, or one takes several versions.
    """
    if not any(HASH_OPTION in one for one in listed):
        return False
    for one in listed:
        bare, hashes = split_hashes(one)
        if hashes and _EXACT.search(bare.partition(";")[0]):
            continue
        lacks = "names no exact version with ==" if hashes else "has no --hash"
        raise ValueError(
            f"{where}: {bare!r} {lacks}, and others have hashes: then all must, with what they"
            " require; `uv pip compile --generate-hashes` writes such a file. Or take all hashes"
            " out"
        )
    return True


def _check_option(line: str, path: str) -> None:
    """Refuse what would change what is installed, for nodes do not follow it."""
    if line.startswith(WITHOUT_EFFECT):
        return
    if line.startswith(("-e", "--editable")):
        raise ValueError(
            f"{path}: {line!r} is not for nodes to install: install it here, and leave packages out"
        )
    if line.startswith(("-c", "--constraint")):
        raise ValueError(
            f"{path}: {line!r} is not read: put the versions into the requirements, or leave"
            " packages out: then nodes have those that are installed here"
        )
    raise ValueError(
        f"{path}: {line!r} is not followed: nodes have an index of their own, as their pip is told,"
        " and take only wheels; take the line out"
    )


def _check_source(one: dict[str, Any], path: str) -> None:
    """Refuse what an index does not have, unless its files are here and can go along."""
    kinds = NO_INDEX & set(one.get("source", {}))
    name, version = str(one.get("name")), one.get("version")
    if not kinds:
        return
    try:
        here = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        here = None
    if here is None or here != version:
        raise ValueError(
            f"{path}: {name} {version or ''} comes from no index (its source is {min(kinds)}): "
            "install that version here, and its files go along"
        )


def _of_lock(lock: dict[str, Any], path: str) -> Iterator[str]:
    """Yield what a project needs that a lock file is of, for this platform."""
    from packaging.markers import Marker

    entries = [one for one in lock.get("package", []) if isinstance(one, dict)]
    by_name: dict[str, list[dict[str, Any]]] = {}
    for one in entries:
        by_name.setdefault(str(one.get("name")), []).append(one)
    own = [one for one in entries if {"editable", "virtual"} & set(one.get("source", {}))]
    if not own:
        raise ValueError(f"{path} is of no project")
    todo: list[tuple[dict[str, Any], tuple[str, ...]]] = [(one, ()) for one in own]
    seen: set[tuple[str, str, tuple[str, ...]]] = set()
    said: dict[str, None] = {}
    while todo:
        one, extras = todo.pop()
        key = (str(one.get("name")), str(one.get("version")), extras)
        if key in seen:
            continue
        seen.add(key)
        if one not in own:
            _check_source(one, path)
            said[f"{key[0]}=={key[1]}"] = None
        needs = list(one.get("dependencies", []))
        for extra in extras:
            needs += one.get("optional-dependencies", {}).get(extra, [])
        for need in needs:
            marker = need.get("marker")
            if marker and not Marker(marker).evaluate({"extra": ""}):
                continue
            for other in by_name.get(need["name"], []):
                if need.get("version") in (None, other.get("version")):
                    todo.append((other, tuple(need.get("extra", ()))))
    yield from said
