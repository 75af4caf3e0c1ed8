"""Our own wheel, made from the burla that runs, and wheelhouses for machines without an index.

So the versions on both sides match exactly, whether burla was installed from an index, from a
wheel, or is a checkout; and no build tool is needed.
"""

import base64
import csv
import hashlib
import importlib.metadata
import io
import lzma
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from email.parser import HeaderParser
from functools import cache as once
from pathlib import Path

import burla
from burla.protocol import VERSION
from burla.provisioning.core.machines import ProvisioningError, tail
from burla.system.paths import cache_directory

from . import pins
from .stripping import stripped

WHEEL = f"burla-{VERSION}-py3-none-any.whl"
SUFFIXES = (
    ".py",
    ".sh",
    ".typed",
    ".md",
    ".json",
    ".html",
    ".css",
    ".js",
    ".svg",
    ".txt",
)  # of the files that make up the package
EPOCH = (1980, 1, 1, 0, 0, 0)  # the same files make the same wheel, byte for byte
INFO = f"burla-{VERSION}.dist-info"
DOWNLOAD_S = 600.0
KEPT_MAX = 4  # wheels for nodes, of 270 KB
COMPLETE = "complete"  # lies in a folder that has all
WHEEL_FILE = "Wheel-Version: 1.0\nGenerator: burla\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


@dataclass(frozen=True)
class Wheels:
    """Files to be shipped."""

    paths: dict[str, Path]  # by file name
    digests: dict[str, str]  # sha256, by file name
    is_wheelhouse: bool  # ours and all that it needs
    requirements: str = ""  # which packages are installed, with hashes: see pins.py
    warning: str = ""  # why they have none
    of_packages: dict[str, str] = field(
        default_factory=dict
    )  # as `digests`, of what jobs are given

    def with_packages(self, paths: Mapping[str, Path], digests: dict[str, str]) -> "Wheels":
        """Return these with what jobs are given."""
        return replace(self, paths={**paths, **self.paths}, of_packages=digests)


def gather(directory: Path, wheelhouse: str, python: str, index: str = "") -> Wheels:
    """Make our wheel in `directory` and gather what goes with it.

    Args:
        directory: on this machine; made if it is not there.
        wheelhouse: a folder of wheels; "auto": they are downloaded by pip here; "": no wheelhouse.
        python: minor version that wheels are downloaded for.
        index: URL that nodes install from without a wheelhouse; empty: as their pip is configured.

    Raises:
        ProvisioningError: the wheelhouse cannot be made.
    """
    directory.mkdir(parents=True, exist_ok=True)
    ours = directory / WHEEL
    _write(ours, make_wheel())
    found = [ours]
    if wheelhouse:
        folder = Path(wheelhouse)
        if wheelhouse == "auto":
            folder = _download(ours, directory, python)
        if not folder.is_dir():
            raise ProvisioningError(f"wheelhouse is {wheelhouse!r}: there is no such folder")
        found += [p for p in sorted(folder.glob("*.whl")) if not p.name.startswith("burla-")]
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in found}
    paths = {path.name: path for path in found}
    if wheelhouse:
        others = {name: path for name, path in paths.items() if name != WHEEL}
        pinned = pins.of_wheelhouse(digests[WHEEL], needs(), others, digests, python)
    else:
        pinned = pins.of_index(digests[WHEEL], needs(), python, index, directory)
    return Wheels(paths, digests, bool(wheelhouse), pinned.text, pinned.warning)


def needs() -> list[str]:
    """Return what burla requires."""
    return HeaderParser().parsestr(_metadata()[1]).get_all("Requires-Dist") or []


NOT_FOR_NODES = (
    *("burla/provisioning/", "burla/scheduler/", "burla/private/", "burla/dashboard/"),
    *("burla/commands/", "burla/cli.py", "burla/__main__.py"),
)


def make_wheel(*, compress: bool = True, for_node: bool = False) -> bytes:
    """Return a wheel of the burla that this process runs; the same files give the same bytes.

    Args:
        compress: the files in it.
        for_node: leave out what nodes are not asked to do, as to make machines or be a scheduler,
            and the command `burla`: it has to fit into what a cloud machine may be told.
    """
    method = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    return _packed(dict(_sources()), method, for_node=for_node)


def _packed(sources: Mapping[str, bytes], method: int, *, for_node: bool) -> bytes:
    without = NOT_FOR_NODES if for_node else ()
    files = {name: data for name, data in sources.items() if not name.startswith(without)}
    if for_node:
        files = {n: stripped(data) if n.endswith(".py") else data for n, data in files.items()}
    distribution, metadata = _metadata()
    files[f"{INFO}/METADATA"] = metadata.encode()
    files[f"{INFO}/entry_points.txt"] = _entry_points(distribution, for_node).encode()
    files[f"{INFO}/WHEEL"] = WHEEL_FILE.encode()
    record = io.StringIO()
    writer = csv.writer(record, lineterminator="\n")
    for name, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        writer.writerow([name, f"sha256={digest}", len(data)])
    writer.writerow([f"{INFO}/RECORD", "", ""])
    files[f"{INFO}/RECORD"] = record.getvalue().encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in files.items():
            info = zipfile.ZipInfo(name, EPOCH)
            info.compress_type, info.external_attr = method, 0o644 << 16
            archive.writestr(info, data)
    return buffer.getvalue()


def _sources() -> Iterator[tuple[str, bytes]]:
    """Yield name and content of every file of the package, in order; links are followed."""
    home = os.path.dirname(os.path.abspath(burla.__file__))
    for folder, folders, names in os.walk(home, followlinks=True):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        for name in sorted(names):
            if name.endswith(SUFFIXES):
                path = Path(folder, name)
                yield f"burla/{path.relative_to(home).as_posix()}", path.read_bytes()


def _metadata() -> tuple[importlib.metadata.Distribution, str]:
    """Return what is said about the installed burla; a checkout may lie beside it on the path."""
    for name in ("METADATA", "PKG-INFO"):
        for distribution in importlib.metadata.distributions(name="burla"):
            text = distribution.read_text(name)
            if text and "Requires-Dist:" in text:
                return distribution, text
    raise ProvisioningError(
        "cannot tell what burla needs, because it is not installed here: `pip install` it first"
    )


def _entry_points(distribution: importlib.metadata.Distribution, for_node: bool) -> str:
    here = ("burla-nodelet",) if for_node else tuple(e.name for e in distribution.entry_points)
    told = (e for e in distribution.entry_points if e.name in here)
    lines = [f"{e.name} = {e.value}" for e in told]
    return "\n".join(["[console_scripts]", *sorted(lines), ""])


def _download(wheel: Path, directory: Path, python: str) -> Path:
    """Let pip of this machine fetch what our wheel needs, for the nodes' Python, if it has not."""
    needs = "".join(line for line in _metadata()[1].splitlines() if line.startswith("Requires-"))
    folder = directory / f"{python}-{hashlib.sha256(needs.encode()).hexdigest()[:12]}"
    if (folder / COMPLETE).exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    line = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(folder), str(wheel)]
    line += ["--only-binary", ":all:", "--python-version", python]
    done = subprocess.run(line, capture_output=True, text=True, timeout=DOWNLOAD_S, check=False)
    if done.returncode != 0:
        raise ProvisioningError(
            f"pip cannot download a wheelhouse: {tail(done.stderr)}. Make one yourself"
            " (`pip download -d FOLDER burla`) and set wheelhouse=FOLDER"
        )
    (folder / COMPLETE).touch()
    return folder


def cache() -> Path:
    """Return the folder that keeps wheels for later runs.

    Raises:
        ProvisioningError: there is no HOME for it.
    """
    directory = cache_directory()
    if directory is None:
        raise ProvisioningError("cannot find a place for wheels (no HOME): set XDG_CACHE_HOME")
    return Path(directory) / "wheels"


def _write(path: Path, data: bytes) -> None:
    """Write a file at once: another run may be reading it."""
    if path.exists() and path.read_bytes() == data:
        return
    descriptor, new = tempfile.mkstemp(dir=path.parent)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
        os.replace(new, path)
    except BaseException:
        os.unlink(new)
        raise


# --- for nodes that are told all at once ---


@once
def wheel_for_node() -> bytes:
    """Return our wheel as it is packed for nodes."""
    return lzma.decompress(xz_for_node())


@once
def xz_for_node() -> bytes:
    """Return that wheel, compressed: kept for later runs, by a digest of what it is made of."""
    sources, (distribution, metadata) = dict(_sources()), _metadata()
    made_of = hashlib.sha256(metadata.encode())
    for name, data in [("", _entry_points(distribution, True).encode()), *sources.items()]:
        made_of.update(f"{name} {len(data)}\n".encode() + data)
    kept: Path | None = None
    with suppress(ProvisioningError, OSError, EOFError, lzma.LZMAError):
        kept = cache() / f"node-{made_of.hexdigest()[:24]}.xz"
        data = kept.read_bytes()
        lzma.decompress(data)  # who wrote it may have had a full disk
        with suppress(OSError):  # it may be a cache that is only read
            kept.touch()
        return data
    wheel = lzma.compress(_packed(sources, zipfile.ZIP_STORED, for_node=True), preset=9)
    if kept is not None:
        with suppress(OSError):  # there it is for later runs only
            _keep(kept, wheel)
    return wheel


def _keep(path: Path, data: bytes) -> None:
    """Write a kept wheel; delete those used longest ago, of which a checkout makes many."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(path, data)
    kept = sorted(path.parent.glob("node-*.xz"), key=lambda one: one.stat().st_mtime)
    for old in kept[:-KEPT_MAX]:
        old.unlink(missing_ok=True)


@once
def pinned_for_node(python: str, index: str) -> pins.Requirements:
    """Return what a node installs that is not shipped anything but our wheel."""
    ours = hashlib.sha256(wheel_for_node()).hexdigest()
    return pins.of_index(ours, needs(), python, index, cache())


@once
def packed_wheel(part_max: int) -> list[str]:
    """Return our wheel for a node, packed, as texts of at most `part_max` characters."""
    text = base64.b85encode(xz_for_node()).decode()
    return [text[begin : begin + part_max] for begin in range(0, len(text), part_max)]
