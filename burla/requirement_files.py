"""Files that list packages: requirements files, pyproject.toml, uv.lock."""

import os
import tomllib
from collections.abc import Iterator
from typing import Any

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
    return list(_of_requirements(path, 0)), False


def _toml(path: str) -> dict[str, Any]:
    with open(path, "rb") as file:
        try:
            return tomllib.load(file)
        except (tomllib.TOMLDecodeError, UnicodeError) as error:
            raise ValueError(f"{path} is no TOML: {error}") from None


def _of_requirements(path: str, depth: int) -> Iterator[str]:
    if depth > DEPTH_MAX:
        raise ValueError(f"{path}: files that name each other")
    with open(path, encoding="utf-8") as file:
        text = file.read().replace("\\\n", " ")
    for line in text.splitlines():
        line = line.strip() if line.startswith("#") else line.partition(" #")[0].strip()
        if not line or line.startswith("#"):
            continue
        option, _, rest = line.partition(" ")
        if option in ("-r", "--requirement"):
            yield from _of_requirements(
                os.path.join(os.path.dirname(path), rest.strip()), depth + 1
            )
        elif line.startswith("-"):
            if option in ("-e", "--editable"):
                raise ValueError(
                    f"{path}: {line!r} is not for nodes to install: install it here, and leave"
                    " packages out"
                )
        else:
            yield line.partition(" --")[0].strip()


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
