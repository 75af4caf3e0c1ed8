"""Packages that a caller sent as its files, put where later leases of this user find them, too.

They are an environment as others are, under a name that only this node can make of whose they are
and what they are. It is done by a process of the workers' room, which alone reads what callers
pack.
"""

import hashlib
import os
import sys
import sysconfig
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from burla.nodelet.worker import fresh

from .input_files import Opened
from .installing import InstallError, run

SENT = ".sent"  # the folder of all of these
SECRET, SECRET_BYTES = ".secret", 32
NAME_BYTES = 16  # the list of files begins with their name: see values/own_modules.py


class CarriedFiles(NamedTuple):
    """Files of one user, in memory."""

    owner: bytes
    blobs: Sequence[Opened]  # the list of the files first; open as long as this is there
    sizes: Sequence[int]

    def key(self, root: str) -> str:
        """Return the name of their environment below `root`, which nobody else can guess or list.

        Raises:
            OSError: the secret of this folder cannot be read or made.
        """
        name = os.pread(self.blobs[0].fd, NAME_BYTES, 0)
        text = repr((self.owner, name, sys.implementation.cache_tag, sysconfig.get_platform()))
        folder = os.path.join(root, SENT)
        with suppress(FileExistsError):
            os.mkdir(folder, 0o711)
        os.chmod(folder, 0o711)  # whatever our umask is: jobs find only what they know the name of
        secret = _secret_of(folder)
        return f"{SENT}/{hashlib.blake2b(text.encode(), key=secret, digest_size=16).hexdigest()}"

    async def put_down(self, directory: str) -> None:
        """Write them into a new directory.

        Raises:
            InstallError: they cannot be written, or are nonsense.
        """
        fds = [blob.fd for blob in self.blobs]
        words = [f"{fd}:{size}" for fd, size in zip(fds, self.sizes, strict=True)]
        line = fresh.command("putting_down", directory, *words)
        said = await run(line, dict(os.environ), lambda line: None, inherited=fds)
        if said is not None:
            raise InstallError(said)


def _secret_of(folder: str) -> bytes:
    """Return what only nodelets of this user know, made at first use."""
    path = os.path.join(folder, SECRET)
    with suppress(FileNotFoundError), open(path, "rb") as file:
        return file.read()
    made = f"{path}-{os.getpid()}-{os.urandom(4).hex()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with open(os.open(made, flags, 0o600), "wb") as new:
        new.write(os.urandom(SECRET_BYTES))
    try:
        with suppress(FileExistsError):
            os.link(made, path)
    finally:
        os.unlink(made)
    with open(path, "rb") as file:
        return file.read()
