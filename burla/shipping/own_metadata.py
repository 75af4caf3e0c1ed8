"""Metadata of the caller's own projects, which their code may ask for: what version am I?

An editable install has its metadata among installed packages, and says there which project it is
of; older ones have it beside the modules.
"""

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from urllib.parse import unquote, urlsplit

from .own_files import Listing, listing_of

TOLD = ("METADATA", "PKG-INFO", "entry_points.txt", "top_level.txt", "requires.txt")


def metadata_files(files: Iterable[str], path: Iterable[str]) -> dict[str, str]:
    """Return the files of metadata that go with own modules, by their path on the node.

    Args:
        files: of the modules.
        path: import path.
    """
    folders = {os.path.dirname(file) for file in files}
    if not folders:
        return {}
    found: dict[str, str] = {}
    for entry in path:
        for project, info in _editable_in(entry):
            root = os.path.join(project, "")
            if any(f"{folder}/".startswith(root) for folder in folders):
                found |= _told_in(info)
    for folder in sorted(folders):
        for name in listing_of(folder).directories:
            if name.endswith(".egg-info"):
                found |= _told_in(os.path.join(folder, name))
    return found


def _told_in(info: str) -> dict[str, str]:
    names = [name for name in listing_of(info).files if name in TOLD]
    return {f"{os.path.basename(info)}/{name}": os.path.join(info, name) for name in names}


_editable: dict[str, tuple[Listing, list[tuple[str, str]]]] = {}  # by directory, as it was


def _editable_in(directory: str) -> list[tuple[str, str]]:
    """Return the projects that are installed here as editable, and where their metadata are."""
    if not directory.endswith(("site-packages", "dist-packages")):
        return []
    listing = listing_of(directory)
    known = _editable.get(directory)
    if known is None or known[0] is not listing:
        known = _editable[directory] = listing, list(_look_for_editable(directory, listing))
    return known[1]


def _look_for_editable(directory: str, listing: Listing) -> Iterator[tuple[str, str]]:
    for name in listing.directories:
        info = os.path.join(directory, name)
        if not name.endswith(".dist-info"):
            continue
        with suppress(OSError, ValueError, AttributeError), open(f"{info}/direct_url.json") as file:
            said = json.load(file)
            url = urlsplit(said["url"]) if said.get("dir_info", {}).get("editable") else None
            if url is not None and url.scheme == "file":
                yield os.path.abspath(unquote(url.path)), info
