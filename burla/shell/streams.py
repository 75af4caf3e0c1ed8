"""Whether stdout and stderr of the caller are one place: then their order is that of the writes.

A worker has a pipe for each, and two pipes keep no order between them. If both end in one terminal,
file or pipe anyway, nobody can tell them apart there, and a worker writes both into one pipe: what
is written by Python, C code and subprocesses then comes in the order in which it was written.
Where they are two (a notebook's, `2>errors.txt`), each has its order, and stays what it is.
"""

import io
import os
import sys


def has_one_output() -> bool:
    """Return whether `sys.stdout` and `sys.stderr` are one place now."""
    return is_one_place(sys.stdout, sys.stderr)


def is_one_place(one: object, other: object) -> bool:
    """Return whether what is written to either stream ends in the same file, pipe or terminal."""
    if one is other:
        return one is not None
    # any other class may do with what it is given as it likes, whatever its `fileno` says
    if type(one) is not io.TextIOWrapper or type(other) is not io.TextIOWrapper:
        return False
    try:
        first, second = os.fstat(one.fileno()), os.fstat(other.fileno())
    except (OSError, ValueError):  # closed, or of no descriptor
        return False
    # the null device too: nobody reads any order there
    return (first.st_dev, first.st_ino) == (second.st_dev, second.st_ino)


def is_written_in_pieces(file: object) -> bool:
    """Return whether a `print` may come as several writes, between which other threads write.

    A stream with a buffer takes a line as a whole. Without one (`python -u`, most containers), and
    in a notebook, each argument, blank and line end of a `print` goes out by itself.
    """
    return file is not None and (type(file) is not io.TextIOWrapper or file.write_through)
