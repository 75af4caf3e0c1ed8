"""os.chmod, os.chown and os.utime for a process that may not do so by name: they open the file.

So modes, owners and times can be changed of what Landlock lets this process open, and of no more.
"""

import errno
import os
from collections.abc import Callable
from typing import Any


def install() -> None:
    """Replace the functions of `os`, for this process and its forks."""
    for name, act in (("chmod", os.fchmod), ("chown", os.fchown), ("utime", os.utime)):
        setattr(os, name, _opening(getattr(os, name), act))
    os.lchown = _opening(os.lchown, os.fchown, follow=False)


def is_installed() -> bool:
    """Return whether that was done."""
    return os.chmod.__module__ == __name__


def _opening(
    original: Callable[..., None], act: Callable[..., None], *, follow: bool = True
) -> Callable[..., None]:
    def changed(
        path: Any,
        *words: Any,
        dir_fd: int | None = None,
        follow_symlinks: bool = follow,
        **named: Any,
    ) -> None:
        if isinstance(path, int):
            act(path, *words, **named)
            return
        try:
            fd = _opened(path, dir_fd, follow_symlinks)
        except PermissionError:
            original(path, *words, **named)  # the error that people know
            raise
        except OSError as error:
            if error.errno == errno.ENXIO:
                return  # a socket cannot be opened; of a job's own, the scratch keeps others away
            raise
        try:
            act(fd, *words, **named)
        finally:
            os.close(fd)

    changed.__name__, changed.__doc__ = original.__name__, original.__doc__
    return changed


def _opened(path: Any, dir_fd: int | None, follow: bool) -> int:
    flags = os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    try:
        return os.open(path, flags | os.O_RDONLY, dir_fd=dir_fd)
    except PermissionError:  # it may be for writing only
        return os.open(path, flags | os.O_WRONLY, dir_fd=dir_fd)
