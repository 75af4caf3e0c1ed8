"""Reads the small files in which Linux tells numbers: of /proc and of control groups."""

import os

FILE_BYTES_MAX = 1 << 16


def numbers_in(path: str) -> dict[str, int]:
    """Return the lines "name number" or "name: number kB" of a file; none: it cannot be read."""
    found = {}
    for line in text_of(path).splitlines():
        words = line.split()
        if len(words) > 1 and words[1].isdigit():
            found[words[0].rstrip(":")] = int(words[1])
    return found


def text_of(path: str) -> str:
    """Return what a small file says; "": it cannot be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(fd, FILE_BYTES_MAX).decode("utf-8", "replace")
    except OSError:  # the process ended meanwhile
        return ""
    finally:
        os.close(fd)
