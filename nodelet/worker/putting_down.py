"""Writes packages that a caller sent as files into a folder of the node; run as a program.

It reads what the caller packed, so it believes nothing: no file lies elsewhere, and all of them
together are bounded.
"""

import os
import sys

from burla.values.own_modules import platform, put_down, unpack_own_modules
from burla.values.shared_memory import map_part

FILES_MAX = 1 << 20
BYTES_MAX = 4 << 30  # twice what a caller of ours sends


def main(argv: list[str]) -> None:
    """Do it: `DIRECTORY FD:SIZE ...`, of the list of the files first."""
    directory, *words = argv
    try:
        _write(directory, words)
    except Exception as error:  # whatever it is: workers of the lease try it themselves
        sys.exit(f"{type(error).__name__}: {error}")


def _write(directory: str, words: list[str]) -> None:
    pairs = [map(int, word.split(":")) for word in words]
    blobs = [map_part(os.dup(fd), size) for fd, size in pairs]
    own = unpack_own_modules(blobs[0])
    if own.extensions and own.platform != platform():
        raise ValueError(f"built for {own.platform}")
    if len(own.files) > FILES_MAX or sum(file.size for file in own.files) > BYTES_MAX:
        raise ValueError("too much")
    put_down(own, blobs[1:], directory)
