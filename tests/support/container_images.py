"""Small container images, made from the Python that runs the tests and what that needs."""

import io
import os
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

LEFT_OUT = ("site-packages", "test", "tests", "__pycache__", "idlelib", "ensurepip", "lib2to3")


def files_of_python(prefix: str = "usr/local") -> dict[str, str]:
    """Return what a Python consists of, by its name in an image: where it is here."""
    base = sys.base_prefix
    minor = f"python{sys.version_info.major}.{sys.version_info.minor}"
    python = os.path.realpath(sys.executable)
    stdlib = sysconfig.get_path("stdlib", vars={"installed_base": base, "base": base})
    found = {f"{prefix}/bin/{minor}": python}
    for folder, names, files in os.walk(stdlib):
        names[:] = [n for n in names if n not in LEFT_OUT and not n.startswith("config-")]
        inside = os.path.join(prefix, "lib", minor, os.path.relpath(folder, stdlib))
        found |= {os.path.normpath(f"{inside}/{name}"): f"{folder}/{name}" for name in files}
    needed = [python, *(path for path in found.values() if path.endswith(".so"))]
    return found | {path.lstrip("/"): path for path in libraries_of(needed)}


def libraries_of(programs: Iterable[str]) -> set[str]:
    """Return the shared libraries that programs load, by the paths at which these look."""
    said = subprocess.run(
        ["ldd", *programs], capture_output=True, text=True, check=False
    ).stdout.split()
    return {word for word in said if word.startswith("/") and ".so" in word and word[-1] != ":"}


def write_archive(
    path: Path,
    files: Mapping[str, str],
    texts: Mapping[str, str] | None = None,
    links: Mapping[str, str] | None = None,
) -> None:
    """Write a tar archive of files that are here, of texts, and of symbolic links."""
    with tarfile.open(path, "w") as archive:
        for name, source in files.items():
            archive.add(os.path.realpath(source), name, recursive=False)
        for name, text in (texts or {}).items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(text.encode()), 0o755
            archive.addfile(member, io.BytesIO(text.encode()))
        for name, target in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            archive.addfile(member)
