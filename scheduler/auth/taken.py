"""Which state of the table of keys a running scheduler has taken: for `burla auth` to say.

A symbolic link beside the table, whose target is the stamp of that state and the process that took
it. A link is made without a descriptor, of which there may be none left.
"""

import contextlib
import os
import time
from enum import Enum
from pathlib import Path

from .key_store import KeyStore, Stamp

LINK = ".keys.taken"
WAIT_S = 5.0  # a scheduler looks at its table four times a second
POLL_S = 0.02


class InForce(Enum):
    """Whether a change of the table counts."""

    YES = True
    NO = False  # a scheduler runs, but has not read it
    NO_SCHEDULER = None  # it counts for the next one


def note(directory: Path, stamp: Stamp | None) -> None:
    """Say that this process has taken this state of the table."""
    target = f"{os.getpid()} {_text(stamp)}"
    draft = directory / f"{LINK}.{os.getpid()}"
    with contextlib.suppress(OSError):  # a full disk: nobody can be told, but it counts
        draft.unlink(missing_ok=True)  # of one that had this process id
        os.symlink(target, draft)
        os.replace(draft, directory / LINK)


def forget(directory: Path) -> None:
    """Say that this process takes nothing more."""
    with contextlib.suppress(OSError):
        if os.readlink(directory / LINK).startswith(f"{os.getpid()} "):
            os.unlink(directory / LINK)


def wait_in_force(store: KeyStore, wait_s: float = WAIT_S) -> InForce:
    """Return whether the running scheduler has taken the table as it is, which it does at once."""
    until_s = time.monotonic() + wait_s
    while True:
        try:
            process, _, text = os.readlink(store.directory / LINK).partition(" ")
        except OSError:
            return InForce.NO_SCHEDULER
        if text == _text(store.stamp()):
            return InForce.YES
        if not _lives(process):
            return InForce.NO_SCHEDULER
        if time.monotonic() >= until_s:
            return InForce.NO
        time.sleep(POLL_S)


def _text(stamp: Stamp | None) -> str:
    return " ".join(map(str, stamp or ()))


def _lives(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, ValueError, OverflowError):
        return False
    except PermissionError:
        pass
    return True
