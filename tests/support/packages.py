"""Tiny packages, made without a build tool: as wheels in a folder, and as they are installed."""

import base64
import hashlib
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path


def files_of(
    name: str,
    version: str,
    modules: Mapping[str, str],
    requires: Sequence[str] = (),
    more: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Return the files of a package; `more` are of its metadata."""
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    needs = "".join(f"Requires-Dist: {one}\n" for one in requires)
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}\nIt is tiny.\n"
    wheel = "Wheel-Version: 1.0\nGenerator: burla\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files = {**modules, f"{info}/METADATA": metadata, f"{info}/WHEEL": wheel}
    files |= {f"{info}/{file}": text for file, text in (more or {}).items()}
    rows = [f"{path},{_digest(text)},{len(text.encode())}\n" for path, text in files.items()]
    return {**files, f"{info}/RECORD": "".join(rows) + f"{info}/RECORD,,\n"}


def make_wheel(
    folder: Path, name: str, version: str, modules: Mapping[str, str], requires: Sequence[str] = ()
) -> Path:
    """Put a wheel into a folder that is an index to installers."""
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in files_of(name, version, modules, requires).items():
            archive.writestr(path, text)
    return wheel


def install(
    site: Path,
    name: str,
    version: str,
    modules: Mapping[str, str],
    requires: Sequence[str] = (),
    more: Mapping[str, str] | None = None,
) -> None:
    """Put a package into a directory of an import path, as an installer does."""
    for path, text in files_of(name, version, modules, requires, more).items():
        file = site / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def _digest(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256={base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"
