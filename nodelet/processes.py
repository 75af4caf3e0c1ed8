"""Finding and killing processes: everything below a process, wherever it went."""

import ctypes
import os
import signal
from contextlib import suppress

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


def become_subreaper() -> bool:
    """Let orphans below this process become its children; return whether the system can."""
    try:
        return bool(ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)
    except AttributeError:
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


def descendants_of(pid: int) -> list[int]:
    """Return all processes below `pid`, parents before their children."""
    found: list[int] = []
    todo = [pid]
    while todo:
        children = children_of(todo.pop())
        found += children
        todo += children
    return found


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    """Signal a process that may be gone or not ours."""
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def kill_tree(pid: int) -> None:
    """Kill a process, its group, and all that is below it now."""
    below = descendants_of(pid)
    kill_group(pid)
    for one in (pid, *below):
        kill(one)


def kill_group(pid: int) -> None:
    """Kill the process group that `pid` leads or led."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
