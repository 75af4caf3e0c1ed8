"""Which packages a node may install, by version and hash: the text of a requirements file for pip.

Of a wheelhouse, what burla needs of it, and the hashes of the files there. From an index, the
versions that run here, and the hashes of the wheels that the index has of them today: pip on the
node takes no other file, whatever it is sent.
"""

import hashlib
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from email.parser import HeaderParser
from functools import cache as once
from itertools import groupby
from pathlib import Path

from burla.provisioning.core.machines import ProvisioningError, tail

ASK_S = 300.0
TOOL = "uv"  # with it nodes install packages that functions need, much faster than with pip
NEED = re.compile(r"\s*([A-Za-z0-9._-]+)\s*(?:\[[^]]*\])?([^;]*)(?:;(.*))?")
WORD = re.compile(r"\d+|[a-z]+")
# A node's C library decides which wheel it takes: pip is asked as an old one would, and a new one.
LIBCS = (17, 40)  # 2.17, 2.40
LEGACY = {5: "manylinux1", 12: "manylinux2010", 17: "manylinux2014"}
MACHINES = ("x86_64", "aarch64")


@dataclass(frozen=True)
class Pin:
    """A package that is needed."""

    version: str
    marker: str = ""  # where it is; empty: everywhere

    def line(self, name: str, hashes: Iterable[str]) -> str:
        """Return the line of a requirements file."""
        where = f" ; {self.marker}" if self.marker else ""
        return " ".join([f"{name}=={self.version}{where}", *(f"--hash=sha256:{h}" for h in hashes)])


@dataclass(frozen=True)
class Requirements:
    """What nodes may install."""

    text: str  # a requirements file; its first line has our wheel, whose place only the node knows
    warning: str = ""  # why it has no hashes


Look = Callable[[str], tuple[str, Iterable[str]] | None]  # name -> version, needs; None: not there


def canonical(name: str) -> str:
    """Return a name of a package as all its spellings become."""
    return re.sub(r"[-_.]+", "-", name).lower()


def closure(needs: Iterable[str], look: Look) -> dict[str, Pin]:
    """Return all that something needs, directly or not, as far as it is there; no extras."""
    markers: dict[str, set[str]] = {}
    versions: dict[str, str] = {}
    left = [(need, "") for need in needs]
    while left:
        need, outer = left.pop()
        match = NEED.fullmatch(need)
        if match is None or "extra" in (match[3] or ""):
            continue
        own = (match[3] or "").strip()
        marker = f"({outer}) and ({own})" if outer and own else outer or own
        name = canonical(match[1])
        if marker in markers.get(name, ()) or (found := look(name)) is None:
            continue
        markers.setdefault(name, set()).add(marker)
        versions[name] = found[0]
        left += [(need, marker) for need in found[1]]
    return {
        name: Pin(versions[name], "" if "" in where else " or ".join(sorted(where)))
        for name, where in sorted(markers.items())
    }


def of_wheelhouse(
    ours: str,
    needs: Iterable[str],
    wheels: Mapping[str, Path],
    digests: Mapping[str, str],
    python: str,
) -> Requirements:
    """Return what is installed of a folder of wheels, which may have more than is needed.

    Args:
        ours: sha256 of our wheel.
        needs: what that requires.
        wheels: the others, by file name.
        digests: sha256, by file name.
        python: minor version of the nodes.
    """
    found: dict[str, tuple[str, list[str]]] = {}  # name -> newest version, its files
    named = [parts for name in wheels if (parts := _parts(name)) is not None]
    fitting = [parts for parts in named if _fits(parts, python)]
    fitting.sort(key=lambda parts: (canonical(parts[0]), _order(parts[1])))
    for (name, version), files in groupby(fitting, lambda p: (canonical(p[0]), p[1])):
        found[name] = version, ["-".join(parts) + ".whl" for parts in files]

    def look(name: str) -> tuple[str, Iterable[str]] | None:
        if name not in found:
            return None
        version, files = found[name]
        return version, _needs_of(wheels[files[0]])

    pins = closure(needs, look)
    lines = [
        pin.line(name, [digests[file] for file in found[name][1]]) for name, pin in pins.items()
    ]
    return Requirements("\n".join([f"burla --hash=sha256:{ours}", *lines, ""]))


def of_index(
    ours: str, needs: Iterable[str], python: str, index: str, directory: Path
) -> Requirements:
    """Return the versions that run here, with the hashes that an index has for them.

    What pip was told is kept in `directory`: the file of a version never changes.

    Args:
        ours: sha256 of our wheel.
        needs: what that requires.
        python: minor version of the nodes.
        index: URL; empty: what pip here is configured to ask.
        directory: for what is kept.
    """
    needs = list(needs)
    if tool := closure([TOOL], _installed):
        with suppress(ProvisioningError):  # an index may lack it: pip does what it would do
            return _of_index(ours, {**closure(needs, _installed), **tool}, python, index, directory)
    pins = closure(needs, _installed)
    try:
        return _of_index(ours, pins, python, index, directory)
    except ProvisioningError as error:
        plain = [pin.line(name, ()) for name, pin in pins.items()]
        text = f"what nodes install is pinned by version only, not by hash: {error}"
        return Requirements("\n".join(["burla", *plain, ""]), text)


def _of_index(
    ours: str, pins: Mapping[str, Pin], python: str, index: str, directory: Path
) -> Requirements:
    """Return these versions, with the hashes that an index has for them.

    Raises:
        ProvisioningError: it cannot be asked, or lacks one of the versions.
    """
    plain = [pin.line(name, ()) for name, pin in pins.items()]
    key = hashlib.sha256(repr((plain, python, index, platform.machine())).encode()).hexdigest()
    kept = directory / f"hashes-{key[:24]}.json"
    try:
        hashes = json.loads(kept.read_text())
    except (OSError, ValueError):
        hashes = _ask(pins, python, index)
        directory.mkdir(parents=True, exist_ok=True)
        new = kept.with_suffix(f".{os.getpid()}")
        new.write_text(json.dumps(hashes))
        new.replace(kept)  # another run may be reading it
    lines = [pin.line(name, hashes[name]) for name, pin in pins.items()]
    return Requirements("\n".join([f"burla --hash=sha256:{ours}", *lines, ""]))


def why_open(index: str) -> str:
    """Return what is wrong with the address of an index; empty: nothing."""
    if not index.startswith("http://"):
        return ""
    return (
        f"index is {index!r}: without https whoever is on the way can change what nodes are sent,"
        " and see passwords in it; set it to an https:// address"
    )


@once
def _installed(name: str) -> tuple[str, tuple[str, ...]] | None:
    try:
        found = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return None
    return found.version, tuple(found.requires or ())


# --- wheels ---


def _parts(file: str) -> list[str] | None:
    """Return name, version, perhaps a build, and three tags of a wheel's file name."""
    parts = file.removesuffix(".whl").split("-")
    return parts if len(parts) in (5, 6) else None


def _fits(parts: list[str], python: str) -> bool:
    minor = int(python.partition(".")[2])
    for tag in parts[-3].split("."):
        if tag in ("py3", f"py3{minor}", f"cp3{minor}"):
            return True
        if "abi3" in parts[-2] and tag.startswith("cp3") and tag[3:].isdigit():
            return int(tag[3:]) <= minor
    return False


def _order(version: str) -> list[tuple[int, int, str]]:
    """Return what sorts versions: a release comes after its candidates and before its repairs."""
    words: Iterator[str] = iter(WORD.findall(version.lower()))
    order = [
        (2, int(word), "") if word.isdigit() else (3 if word == "post" else 0, 0, word)
        for word in words
    ]
    return [*order, (1, 0, "")]


def _needs_of(wheel: Path) -> list[str]:
    """Return what a wheel says that it requires.

    Raises:
        ProvisioningError: it is none.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            name = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
            text = archive.read(name).decode()
    except (OSError, zipfile.BadZipFile, StopIteration, UnicodeError) as error:
        raise ProvisioningError(f"{wheel} is no wheel that can be read: {error}") from error
    return HeaderParser().parsestr(text).get_all("Requires-Dist") or []


# --- the index ---


def _ask(pins: Mapping[str, Pin], python: str, index: str) -> dict[str, list[str]]:
    """Return the hashes of the wheels that pip would take, on any kind of machine that it can.

    Raises:
        ProvisioningError: it cannot be asked, or lacks one of the versions.
    """
    lines = "".join(f"{name}=={pin.version}\n" for name, pin in pins.items() if not pin.marker)
    where = "".join(f"{pin.line(name, ())}\n" for name, pin in pins.items() if pin.marker)
    kinds = [(machine, libc) for machine in MACHINES for libc in LIBCS]
    with tempfile.TemporaryDirectory() as directory:
        wanted = Path(directory, "wanted.txt")
        wanted.write_text(lines + where)
        with ThreadPoolExecutor(2) as pool:
            asked = [pool.submit(_ask_pip, wanted, python, index, *kind) for kind in kinds]
            answers = [one.exception() or one.result() for one in asked]
    found: dict[str, set[str]] = {name: set() for name in pins}
    is_known = False
    for answer in answers:
        if isinstance(answer, ProvisioningError):
            continue
        assert isinstance(answer, dict)
        is_known = True
        for name, digest in answer.items():
            found[name].add(digest)
    if not is_known:
        raise next(answer for answer in answers if isinstance(answer, Exception))
    return {name: sorted(hashes) for name, hashes in found.items()}


def _ask_pip(wanted: Path, python: str, index: str, machine: str, libc: int) -> dict[str, str]:
    """Let pip find out what it would install on one kind of machine; nothing is."""
    with tempfile.TemporaryDirectory() as target:
        line = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--dry-run",
            "--ignore-installed",
        ]
        line += ["--no-deps", "--only-binary", ":all:", "--python-version", python]
        line += ["--target", target, "--report", "-", "--disable-pip-version-check", "--no-input"]
        for minor in range(libc, 4, -1):
            line += ["--platform", f"manylinux_2_{minor}_{machine}"]
            if minor in LEGACY:
                line += ["--platform", f"{LEGACY[minor]}_{machine}"]
        line += ["--platform", f"linux_{machine}", "-r", str(wanted)]
        line += ["--isolated", "--index-url", index] if index else []
        try:
            done = subprocess.run(line, capture_output=True, text=True, timeout=ASK_S, check=False)
        except subprocess.TimeoutExpired:
            raise ProvisioningError(f"pip has found no index for {ASK_S:.0f} s") from None
    if done.returncode != 0:
        raise ProvisioningError(f"pip cannot find the versions that run here: {tail(done.stderr)}")
    try:
        items = json.loads(done.stdout)["install"]
        return {
            canonical(item["metadata"]["name"]): item["download_info"]["archive_info"]["hashes"][
                "sha256"
            ]
            for item in items
        }
    except (ValueError, KeyError, TypeError) as error:
        raise ProvisioningError(
            f"pip tells no hashes here ({error!r}): it may be too old"
        ) from None
