"""Finding and killing processes: everything below a process, wherever it went."""

import ctypes
import math
import os
import select
import signal
import socket
import time
from collections.abc import Collection, Sequence
from contextlib import suppress

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


def become_subreaper() -> bool:
    """Let orphans below this process become its children; return whether the system can."""
    try:
        return bool(ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)
    except AttributeError:
        return False


class Wakeup:
    """Wakes a single-threaded parent: when a child ends, it is told something, or its owner ends.

    A process has one, which takes its signal handlers.
    """

    SIGNALS = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # those that it takes

    def __init__(self, control: socket.socket, owner: int) -> None:
        """Listen to `control`.

        Args:
            control: the owner's orders.
            owner: the parent; 0: it is outside of our pid namespace, in which we are the first.
        """
        self._owner = owner
        self._ended = False
        self._wake, waker = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(waker, False)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        if owner:  # else nobody within the namespace shall end us
            signal.signal(signal.SIGTERM, self._end)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self._control = control.fileno()
        self._poller = select.poll()
        self._poller.register(self._wake, select.POLLIN)
        self._poller.register(self._control, select.POLLIN)
        if owner:
            with suppress(AttributeError, OSError):  # no pidfd: the control socket's end tells it
                self._poller.register(os.pidfd_open(owner), select.POLLIN)

    def _end(self, number: int, frame: object) -> None:
        self._ended = True

    def owner_lives(self) -> bool:
        """Return whether we shall go on."""
        return not self._ended and os.getppid() == self._owner

    def wait(self, timeout_ms: int | None) -> bool:
        """Return, after a while or sooner, whether there is an order to read."""
        told = False
        for fd, _ in self._poller.poll(timeout_ms):
            if fd == self._wake:
                with suppress(BlockingIOError):
                    os.read(self._wake, 4096)
            elif fd == self._control:
                told = True
            else:
                self._ended = True
        return told and not self._ended

    def wait_ended(self, killed: Sequence[int], timeout_ms: int) -> None:
        """Return when these children have ended, or after a while; they are still to be reaped."""
        until_s = time.monotonic() + timeout_ms / 1000
        poller = select.poll()
        poller.register(self._wake, select.POLLIN)
        while any(map(_runs, killed)) and (left_s := until_s - time.monotonic()) > 0:
            if poller.poll(math.ceil(left_s * 1000)):
                os.read(self._wake, 4096)


def _runs(child: int) -> bool:
    try:
        return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except ChildProcessError:  # it is no child of ours, or reaped
        return False


def children_of(pid: int) -> list[int]:
    """Return the processes whose parent is `pid`, dead ones that nobody has reaped included."""
    children: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children") as file:
                children += map(int, file.read().split())
    except FileNotFoundError:
        if not os.path.exists(f"/proc/self/task/{os.getpid()}/children"):
            return [child for child, parent in parents().items() if parent == pid]
    except OSError:  # it ended meanwhile
        pass
    return children


def parents() -> dict[int, int]:
    """Return the parent of every process that can be seen."""
    found = {}
    with suppress(OSError):
        for name in os.listdir("/proc"):
            if name.isdigit():
                with suppress(OSError, ValueError), open(f"/proc/{name}/stat", "rb") as file:
                    # the name of the command, in brackets, may hold anything
                    found[int(name)] = int(file.read().rpartition(b")")[2].split()[1])
    return found


def descendants_of(pid: int, spared: Collection[int] = ()) -> list[int]:
    """Return all processes below `pid`, parents before their children.

    Those in `spared`, and what is below them, are left out.
    """
    found: list[int] = []
    todo = [pid]
    while todo:
        children = [child for child in children_of(todo.pop()) if child not in spared]
        found += children
        todo += children
    return found


def number_outside(init: int, inner: int) -> int:
    """Return the number here of process `inner` in the pid namespace of `init`; 0: it is gone."""
    for pid in (init, *descendants_of(init)):
        with suppress(OSError), open(f"/proc/{pid}/status") as file:
            line = next((line for line in file if line.startswith("NSpid:")), "0")
            if int(line.split()[-1]) == inner:
                return pid
    return 0


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    """Signal a process that may be gone or not ours."""
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def kill_tree(pid: int, spared: Collection[int] = ()) -> None:
    """Kill a process, its group, and all that is below it now but for `spared`."""
    below = descendants_of(pid, spared)
    kill_group(pid)
    for one in (pid, *below):
        kill(one)


def kill_group(pid: int) -> None:
    """Kill the process group that `pid` leads or led."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
