"""What is installed for this Python: distributions, their modules, requirements and files.

Only what is asked for is read, and kept as long as the directory that it is installed in has not
changed. Of several of one name the one that an import would find counts.
"""

import csv
import json
import os
import posixpath
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from importlib.machinery import EXTENSION_SUFFIXES, all_suffixes

from burla.protocol.package_messages import canonical

from .own_files import Listing, listing_of

_SUFFIXES = (".dist-info", ".egg-info")
_MODULES = tuple(sorted(all_suffixes(), key=len, reverse=True))
_HEADERS_MAX = 1 << 20  # of metadata: the description comes after them


@dataclass(eq=False)
class Distribution:
    """One that is installed."""

    name: str  # as all its spellings become
    version: str
    site: str  # the directory that it is installed in
    info: str  # where its metadata are: a directory, of old ones perhaps a file
    _facts: dict[str, object] = field(default_factory=dict)

    @cached_property
    def requirements(self) -> list[str]:
        """What it requires, as its metadata say."""
        text = _read(os.path.join(self.info, "METADATA")) or _read(
            os.path.join(self.info, "requires.txt")
        )
        if self.info.endswith(".egg-info"):
            return _of_requires_txt(text)
        headers = text.partition("\n\n")[0]
        name = "Requires-Dist:"
        return [x[len(name) :].strip() for x in headers.splitlines() if x.startswith(name)]

    @cached_property
    def files(self) -> list[str]:
        """The files that were installed, below `site`; none if nobody has noted them."""
        text = _read(os.path.join(self.info, "RECORD"))
        if text:
            found = [row[0] for row in csv.reader(text.splitlines()) if row]
        else:  # relative to the metadata
            text = _read(os.path.join(self.info, "installed-files.txt"))
            base = os.path.basename(self.info)
            found = [posixpath.normpath(f"{base}/{line}") for line in text.splitlines()]
        return [one for one in found if not os.path.isabs(one) and ".." not in one.split("/")]

    @cached_property
    def modules(self) -> frozenset[str]:
        """The names that an import of it may begin with."""
        names = set(_read(os.path.join(self.info, "top_level.txt")).split())
        for file in self.files:
            top, slash, _ = file.partition("/")
            if slash:
                if not top.endswith((*_SUFFIXES, ".data")) and top.isidentifier():
                    names.add(top)
            else:
                names.update(top[: -len(end)] for end in _MODULES if top.endswith(end))
        return frozenset(name for name in names if name.isidentifier())

    def has_module(self, name: str) -> bool:
        """Return whether it has a module of this name, or what is in one."""
        path = name.replace(".", "/")
        parent = path.rpartition("/")[0]
        for file in self.files:
            if file.startswith((f"{path}/", f"{path}.")):
                return True
            if parent and (file.startswith((f"{parent}.", f"{parent}/__init__."))):
                return True
        return False

    @cached_property
    def origin(self) -> str:
        """Where it was installed from, if that was no index; empty: it was."""
        try:
            said = json.loads(_read(os.path.join(self.info, "direct_url.json")))
            return "editable" if said.get("dir_info", {}).get("editable") else str(said["url"])
        except (ValueError, KeyError, AttributeError):
            return ""

    @cached_property
    def is_binary(self) -> bool:
        """Whether it has what only machines like this one can run."""
        ends = (*EXTENSION_SUFFIXES, ".so", ".dylib", ".dll", ".pyd")
        return any(file.endswith(ends) or ".so." in file for file in self.files)


def may_hold_distributions(directory: str) -> bool:
    """Return whether packages are installed, or are to be, into a directory."""
    if directory.endswith(("site-packages", "dist-packages")):
        return os.path.isdir(directory)
    listing = listing_of(directory)
    return any(name.endswith(_SUFFIXES) for name in (*listing.directories, *listing.files))


class Installed:
    """All that is installed on an import path."""

    def __init__(self, path: Iterable[str]) -> None:
        """Look at what there is by its names; nothing is read yet."""
        self.by_name: dict[str, Distribution] = {}
        for directory in path:
            for one in _in_directory(directory):
                self.by_name.setdefault(one.name, one)

    def of_modules(self, names: Iterable[str]) -> dict[str, Distribution]:
        """Return the distributions that modules of these names are of, by name."""
        found: dict[str, Distribution] = {}
        for name in names:
            top = name.partition(".")[0]
            several = self._of_top(top)
            if len(several) > 1:  # they share a namespace
                several = [one for one in several if one.has_module(name)] or (
                    several if name == top and top not in sys.modules else []
                )
            found |= {one.name: one for one in several}
        return found

    def _of_top(self, top: str) -> list[Distribution]:
        guess = self.by_name.get(canonical(top))
        if guess is not None and top in guess.modules and not _is_space(top):
            return [guess]
        if self._tops is None:
            self._tops = {}
            for one in self.by_name.values():
                for name in one.modules:
                    self._tops.setdefault(name, []).append(one)
        return self._tops.get(top, [])

    _tops: dict[str, list[Distribution]] | None = None


def _is_space(name: str) -> bool:
    """Return whether a loaded module of this name may be of several distributions."""
    module = sys.modules.get(name)
    return module is not None and getattr(module, "__file__", None) is None


_known: dict[str, tuple[Listing, list[Distribution]]] = {}  # by directory, as it was


def _in_directory(directory: str) -> list[Distribution]:
    listing = listing_of(directory)
    known = _known.get(directory)
    if known is None or known[0] is not listing:
        known = _known[directory] = listing, list(_look(directory, listing))
    return known[1]


def _look(directory: str, listing: Listing) -> Iterator[Distribution]:
    for name in (*listing.directories, *listing.files):
        if not name.endswith(_SUFFIXES):
            continue
        stem = name.rpartition(".")[0]
        project, _, rest = stem.partition("-")
        version = rest.partition("-")[0] if name.endswith(".egg-info") else rest
        info = os.path.join(directory, name)
        if not version:
            version = _header(info, "Version")
        if version and project:
            yield Distribution(canonical(project), version, directory, info)


def _header(info: str, name: str) -> str:
    text = _read(os.path.join(info, "PKG-INFO")) or _read(os.path.join(info, "METADATA"))
    lines = text.partition("\n\n")[0].splitlines()
    return next((x.partition(":")[2].strip() for x in lines if x.startswith(f"{name}:")), "")


def _of_requires_txt(text: str) -> list[str]:
    """Return what an old one requires, without what belongs to an extra."""
    found = []
    for line in text.splitlines():
        if line.startswith("["):
            break
        if line.strip():
            found.append(line.strip())
    return found


def _read(path: str) -> str:
    with suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
        return file.read(_HEADERS_MAX if path.endswith("METADATA") else -1)
    return ""


def closure(
    roots: Mapping[str, Distribution], installed: Installed
) -> tuple[dict[str, Distribution], list[str]]:
    """Return these and all that they require, as far as it is there, and what is not, in words."""
    from packaging.markers import UndefinedEnvironmentName
    from packaging.requirements import InvalidRequirement, Requirement

    found = dict(roots)
    missing: dict[str, None] = {}
    extras: dict[str, set[str]] = {}
    todo = [(one, "") for one in roots.values()]
    while todo:
        one, extra = todo.pop()
        for text in one.requirements:
            try:
                needed = Requirement(text)
                if needed.marker and not needed.marker.evaluate({"extra": extra}):
                    continue
            except (InvalidRequirement, UndefinedEnvironmentName):
                continue
            name = canonical(needed.name)
            other = installed.by_name.get(name)
            if other is None:
                missing[f"{needed.name} (for {one.name})"] = None
                continue
            new = sorted(needed.extras - extras.setdefault(name, set()))
            extras[name].update(new)
            if name not in found:
                found[name] = other
                todo.append((other, ""))
            todo += [(other, each) for each in new]
    return found, list(missing)
