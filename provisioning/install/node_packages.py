"""Which packages nodes are given once for all: the versions, found out once for all nodes.

The versions are those that pip finds on this machine, for Linux on this kind of processor and with
the C library of what is widely used; a node has them whenever it is made. With a wheelhouse, the
wheels are shipped.
"""

import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from burla.provisioning.core.machines import BadConfig, ProvisioningError, tail

from .pins import LEGACY, canonical

RESOLVE_S = 600.0
LIBC = 28  # 2.28: of Debian 10, Ubuntu 20.04, RHEL 8 and all that is newer
COMPLETE = "complete"  # lies in a folder that has all
_NO_PIP = re.compile(r"No module named pip")
_AWAY = re.compile(
    r"(?i)retrying \(|connection (?:refused|error)|name or service not known|name resolution|"
    r"network is unreachable|timed out"
)


@dataclass(frozen=True)
class NodePackages:
    """What nodes are given."""

    pins: tuple[str, ...] = ()  # requirements; exact ones, if they could be found out
    paths: dict[str, Path] = field(default_factory=dict)  # wheels that are shipped, by file name
    digests: dict[str, str] = field(default_factory=dict)  # sha256, by file name
    warning: str = ""  # why the versions are not known here


def find(
    asked: Sequence[str], known: Sequence[str], python: str, index: str, house: str, directory: Path
) -> NodePackages:
    """Return what nodes are given.

    Args:
        asked: requirements, as the operator has put them.
        known: what was found for them before; empty: nothing yet.
        python: minor version of the nodes.
        index: URL; empty: what pip here is configured to ask.
        house: as `wheelhouse` of a cluster: a folder, "auto", or empty.
        directory: for wheels that are fetched, on this machine.

    Raises:
        BadConfig: one of them cannot be had.
        ProvisioningError: they cannot be fetched.
    """
    if not asked:
        return NodePackages()
    wanted = list(known) or list(asked)
    if house == "auto":
        return _fetched(wanted, python, index, directory)
    if house:
        return _of_folder(wanted, python, Path(house))
    if known:
        return NodePackages(tuple(known))
    try:
        return NodePackages(tuple(sorted(_resolved(wanted, python, _of_index(index)))))
    except ProvisioningError as error:
        if isinstance(error, BadConfig):
            raise
        text = f"each node finds the versions of its packages by itself, as {error}"
        return NodePackages(tuple(asked), warning=text)


def _of_index(index: str) -> list[str]:
    return ["--isolated", "--index-url", index] if index else []


def _fetched(wanted: list[str], python: str, index: str, directory: Path) -> NodePackages:
    """Return the wheels of an index, fetched unless they are here."""
    key = hashlib.sha256(repr((sorted(wanted), python, index, platform.machine())).encode())
    folder = directory / f"packages-{python}-{key.hexdigest()[:16]}"
    if not (folder / COMPLETE).exists():
        folder.mkdir(parents=True, exist_ok=True)
        line = ["download", "--quiet", "--dest", str(folder), *_platforms(python)]
        _pip([*line, *_of_index(index)], wanted)
        (folder / COMPLETE).touch()
    files = {path.name: path for path in sorted(folder.glob("*.whl"))}
    pins = {f"{canonical(n[0])}=={n[1]}" for name in files if (n := name.split("-"))[1:]}
    return _shipped(sorted(pins), files)


def _of_folder(wanted: list[str], python: str, folder: Path) -> NodePackages:
    """Return the wheels of a folder that are needed."""
    if not folder.is_dir():
        raise ProvisioningError(f"wheelhouse is {str(folder)!r}: there is no such folder")
    found = _resolved(wanted, python, ["--no-index", "--find-links", str(folder)])
    return _shipped(sorted(found), {name: folder / name for name in found.values()})


def _shipped(pins: Sequence[str], files: dict[str, Path]) -> NodePackages:
    digests = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
    return NodePackages(tuple(pins), files, digests)


def _resolved(wanted: Sequence[str], python: str, source: Sequence[str]) -> dict[str, str]:
    """Return exact requirements, and the file of each."""
    with tempfile.TemporaryDirectory() as target:
        line = ["install", "--quiet", "--dry-run", "--ignore-installed", "--target", target]
        said = _pip([*line, "--report", "-", *_platforms(python), *source], wanted)
    try:
        found = {}
        for item in json.loads(said)["install"]:
            about, url = item["metadata"], item["download_info"]["url"]
            file = os.path.basename(unquote(urlsplit(url).path))
            found[f"{canonical(about['name'])}=={about['version']}"] = file
        return found
    except (ValueError, KeyError, TypeError) as error:
        raise ProvisioningError(
            f"pip here is too old to say which it would take: {error!r}"
        ) from None


def _platforms(python: str) -> list[str]:
    """Return for pip what nodes are."""
    machine = platform.machine()
    line = ["--only-binary", ":all:", "--python-version", python]
    for minor in range(LIBC, 4, -1):
        line += ["--platform", f"manylinux_2_{minor}_{machine}"]
        line += ["--platform", f"{LEGACY[minor]}_{machine}"] if minor in LEGACY else []
    return [*line, "--platform", f"linux_{machine}"]


def _pip(line: Sequence[str], wanted: Sequence[str]) -> str:
    """Return what pip says.

    Raises:
        BadConfig: there is no such package.
        ProvisioningError: it cannot say.
    """
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory, "requirements.txt")
        file.write_text("".join(f"{one}\n" for one in wanted))
        begun = [sys.executable, "-m", "pip", *line, "--disable-pip-version-check", "--no-input"]
        try:
            done = subprocess.run(
                [*begun, "-r", str(file)],
                capture_output=True,
                text=True,
                timeout=RESOLVE_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ProvisioningError(f"pip here has not ended for {RESOLVE_S:.0f} s") from None
    if done.returncode == 0:
        return done.stdout
    if _NO_PIP.search(done.stderr):
        raise ProvisioningError("there is no pip here to ask")
    lines = [line for line in done.stderr.splitlines() if "Retrying (" not in line]
    said = tail("\n".join(lines))
    if _AWAY.search(done.stderr):
        raise ProvisioningError(f"pip here finds no index: {said}")
    raise BadConfig(f"node.packages cannot be had as they are ({', '.join(wanted)}): {said}")
