"""What makes a process fit for a daemon, before it opens or starts anything. Imports little."""

import contextlib
import logging
import os
import signal
import sys
import warnings

from . import logs
from .exit_codes import EXIT_CONFIG

if sys.platform != "win32":
    import resource


DESCRIPTORS_WANTED = 65536  # one per peer and worker pipe; libzmq spins when it runs out of them
DESCRIPTORS_MIN = 56  # below, not even an idle daemon can live
PRIVATE_LEVEL = logging.WARNING  # a private daemon says only what is wrong

log = logging.getLogger(__name__)


def prepare(name: str, level: int = logging.INFO, descriptors_spare: int = 0) -> None:
    """Make this process fit for a daemon; `descriptors_spare`: see `prepare_descriptors`."""
    limit = prepare_descriptors(descriptors_spare)
    warnings.simplefilter("default")  # the user's PYTHONWARNINGS=error is not meant for us
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", closefd=False, errors="backslashreplace")
    logs.set_up(name, level)
    if limit < DESCRIPTORS_MIN:
        log.error(
            "the limit of open files, %d, is too low: at least %d are needed (ulimit -n 1024; in a"
            " unit of systemd, LimitNOFILE=)",
            limit,
            DESCRIPTORS_MIN,
        )
        raise SystemExit(EXIT_CONFIG)


def prepare_descriptors(spare: int = 0) -> int:
    """Do what is also good for what this process starts, which inherits it; return their limit.

    `spare`: so many below the hard limit are left, for what must not fail when others have taken
    all.
    """
    for number in range(3):  # else the next socket becomes 2, and what C code prints goes into it
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    return _limit_descriptors(spare)


def _limit_descriptors(spare: int) -> int:
    """Raise the limit of descriptors as far as is useful; return what it is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return DESCRIPTORS_WANTED
    most = max(soft, DESCRIPTORS_WANTED)
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard - (spare if hard >= 4 * spare else 0))
    with contextlib.suppress(OSError, ValueError):  # macOS refuses what exceeds its own limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 1 << 30)
