"""Unpacks the files of a container image into a directory of the node; run as a program.

Who made the image may be anybody, so nothing of it leads elsewhere: the directory is the root of
the process that writes there. No device is made, no file keeps a right of its own (setuid), and all
can be read by everybody: what runs in the image has no other rights, wherever it was installed.
"""

import contextlib
import os
import shutil
import stat
import sys
import tarfile
from importlib.machinery import BuiltinImporter, FrozenImporter
from typing import IO

from burla.nodelet.isolation import sandbox
from burla.nodelet.isolation.sandbox import Confinement

FILES_MAX = 4 << 20  # of one image, directories and links included
COPY_BYTES = 1 << 20


def main(argv: list[str]) -> None:
    """Do it: `DIRECTORY BYTES_MAX CONFINEMENT`; the files come on stdin, as a tar archive."""
    directory, most, confinement = argv
    try:
        os.umask(0o022)
        "".encode("latin-1"), "".encode("utf-8", "surrogateescape")  # imported while they are here
        sandbox.unshare(Confinement.parse(confinement))  # or an ordinary user has no such right
        # From here on modules would be those of the image, and this may have all rights.
        sys.meta_path[:] = [BuiltinImporter, FrozenImporter]
        os.chroot(directory)
        os.chdir("/")
        unpack(sys.stdin.buffer, int(most))
    except Exception as error:
        sys.exit(f"{type(error).__name__}: {error}")


def unpack(source: IO[bytes], bytes_max: int) -> None:
    """Write what an archive holds below the root of this process.

    Raises:
        OSError: it cannot be written.
        ValueError: there is too much of it.
    """
    left, files = bytes_max, 0
    directories: list[tuple[str, float]] = []
    with tarfile.open(fileobj=source, mode="r|") as archive:
        for member in archive:
            files += 1
            left -= member.size
            if left < 0 or files > FILES_MAX:
                raise ValueError(f"it has more than {bytes_max / 1e9:.1f} GB or {FILES_MAX} files")
            path = "/" + os.path.normpath("/" + member.name).lstrip("/")
            if path == "/" or path.split("/")[1] == ".burla":  # that is ours
                continue
            os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
            if member.isdir():
                with contextlib.suppress(FileExistsError):
                    os.mkdir(path, 0o755)
                directories.append((path, member.mtime))
            else:
                _write(archive, member, path)
    for path, changed_s in reversed(directories):
        with contextlib.suppress(OSError):
            os.utime(path, (changed_s, changed_s), follow_symlinks=False)


def _write(archive: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> None:
    if os.path.lexists(path) and not os.path.isdir(path):
        os.unlink(path)  # the later one counts
    if member.issym():
        os.symlink(member.linkname, path)
    elif member.islnk():
        os.link(os.path.normpath("/" + member.linkname), path, follow_symlinks=False)
    elif member.isreg():
        content = archive.extractfile(member)
        assert content is not None, member
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(path, flags, 0o600), "wb") as file:
            shutil.copyfileobj(content, file, COPY_BYTES)
            is_program = member.mode & (stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
            os.fchmod(file.fileno(), 0o755 if is_program else 0o644)
        os.utime(path, (member.mtime, member.mtime))
