"""Starting what forks, a zygote or a supervisor: its process, the socket to it, and the slates.

Apart from who then speaks with it, since a private cluster starts its zygote before it imports
anything else: the two Pythons start at the same time.
"""

import fcntl
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from burla.nodelet.worker import fresh
from burla.nodelet.worker.dumps import BYTES as DUMPS_BYTES
from burla.nodelet.worker.processes import become_subreaper
from burla.nodelet.worker.slate import make_memory

from .left_over import own_name

SCRATCH = "burla-node-"  # and whose it is
FD_ABOVE = 10  # descriptors it inherits are not 0, 1 or 2, which the agent may have found closed


class Process(Protocol):
    """What was started: `subprocess.Popen` is one."""

    @property
    def pid(self) -> int:
        """Return its number, as we see it; 0: not known yet."""

    @property
    def returncode(self) -> int | None:
        """Return how it ended, as far as `poll` has seen it."""

    def poll(self) -> int | None:
        """Return how it ended; None: it has not."""


Launch = Callable[[Sequence[int]], Process]  # with the descriptors that it inherits


@dataclass(slots=True)
class Launched:
    """What was started; whether it serves, it says on `control`."""

    process: Process
    control: socket.socket
    slates: int = -1  # descriptor of the memory of a zygote's workers; -1: it has none


def make_scratch(base: str) -> str:
    """Return a new directory below `base`, for an agent of this process and its workers.

    Raises:
        OSError: it cannot be made.
    """
    path = os.path.join(base, own_name(SCRATCH))
    os.mkdir(path, 0o700)
    return path


def launch_zygote(launch: Launch) -> Launched:
    """Start what forks workers.

    Raises:
        OSError: it cannot be.
    """
    slates = make_memory(behind=DUMPS_BYTES)
    try:
        launched = begin(launch, slates)
    except BaseException:
        os.close(slates)
        raise
    launched.slates = slates
    return launched


def launch_supervisor(
    hash_seed: int, scratch: str, confinement: str, *, tries: bool = False
) -> Launched:
    """Start what makes sandboxes.

    Args:
        hash_seed: of the workers in them.
        scratch: goes with it.
        confinement: how they are to be, as text.
        tries: finds out first which can be had, and says so; then it is told how they are to be.

    Raises:
        OSError: it cannot be.
    """
    words = (scratch, confinement, *["try"] * tries)
    return begin(launch_module("supervisor", hash_seed, *words))


def begin(launch: Launch, *inherited: int) -> Launched:
    """Start something; the descriptors may be closed afterwards.

    Raises:
        OSError: it cannot be.
    """
    become_subreaper()  # should the zygote die, its workers fall to us
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    given = [_lift(theirs.fileno()), *map(_lift, inherited)]
    theirs.close()
    try:
        process = launch(given)
    except BaseException:
        ours.close()
        raise
    finally:
        for fd in given:
            os.close(fd)
    ours.setblocking(False)
    return Launched(process, ours)


def _lift(fd: int) -> int:
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, FD_ABOVE)


def launch_module(module: str, hash_seed: int, *arguments: str) -> Launch:
    """Return what starts `main` of a module of the workers' room in a fresh Python.

    Its arguments are the descriptors that it inherits, our pid, and `arguments`.
    """

    def start(inherited: Sequence[int]) -> Process:
        # None: descriptor 2 was closed when we started, and may be something else by now
        has_stderr = sys.__stderr__ is not None
        return subprocess.Popen(
            fresh.command(module, *inherited, os.getpid(), *arguments),
            env=fresh.variables(hash_seed),
            pass_fds=inherited,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=None if has_stderr else subprocess.DEVNULL,
            start_new_session=True,
        )

    return start
