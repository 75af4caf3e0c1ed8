"""Descriptors: how many this process may open, and a few that only what must not fail may take.

libzmq ends the process when it runs out of them at the wrong moment, so whoever makes a context
looks first whether there is room.
"""

import contextlib
import os
import sys
from collections.abc import Iterator

if sys.platform != "win32":
    import resource

SPARE = 64  # a daemon leaves so many below its hard limit: see system/preparing.py
CONNECTION = 32  # of a context with a few sockets, and what is opened beside it


def limit() -> int:
    """Return how many descriptors this process may have now."""
    if sys.platform == "win32":  # sockets are no descriptors there
        return 1 << 30
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 30 if soft == resource.RLIM_INFINITY else soft


def opened() -> int:
    """Return how many descriptors are open, or, where that cannot be told, a guess."""
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:  # no descriptor is left for it, or there is no /proc
        file = -1
        with contextlib.suppress(OSError):
            file = os.dup(0)
            os.close(file)
        return limit() if file < 0 else file


def lack(count: int = CONNECTION) -> str:
    """Return why there is no room for so many more, with the remedy; empty: there is.

    The limit is raised as far as it may be before it is complained of.
    """
    if sys.platform == "win32":
        return ""
    has = opened()
    if has + count <= limit():
        return ""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    more = has + 2 * count if hard == resource.RLIM_INFINITY else min(has + 2 * count, hard)
    if more > soft:
        with contextlib.suppress(OSError, ValueError):  # a sandbox forbids it
            resource.setrlimit(resource.RLIMIT_NOFILE, (more, hard))
    if has + count <= limit():
        return ""
    return (
        f"too many open files: this process has {has} open and may have {limit()}, but {count} more"
        " are needed; raise the limit (ulimit -n), or close some"
    )


@contextlib.contextmanager
def spare() -> Iterator[None]:
    """Let what is done meanwhile have descriptors that nothing else in this process gets.

    A flood of connections takes all up to the limit: it is raised for this moment.
    """
    if sys.platform == "win32":
        raise AssertionError("daemons run on Linux")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    more = soft + SPARE if hard == resource.RLIM_INFINITY else min(soft + SPARE, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (more, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
