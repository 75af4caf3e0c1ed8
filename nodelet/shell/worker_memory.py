"""How much memory each worker uses: what it has of its own. Linux only.

Memory that a worker shares with the process it was forked from is there once, not once per worker.
There are two figures. The cheap one, resident memory less what came with the fork, takes
microseconds, and is too low once the worker writes to what it shared. The exact one makes the
kernel walk the page tables, which takes 18 ms per GB. So the cheap figure says who may use too
much, and the exact one whether it is so: nobody uses more than the limit by a guess.
"""

import os
import time
from collections.abc import Mapping

from msgspec import Struct

from burla.nodelet.worker.processes import children_of
from burla.system.procfs import parent_of

from .small_files import numbers_in, text_of

PAGE = os.sysconf("SC_PAGE_SIZE")
KB = 1024
SUSPECT_SHARE = 0.05  # of a core, for exact figures of one worker that seems to use too much
PATROL_SHARE = 0.005  # of a core, for those of all others
PATROL_S = 5.0  # what only an exact figure would show is looked for this often, or less
NO_LIMIT = 1 << 62


class _Seen(Struct):
    """What is known of a worker; bytes."""

    base: int  # that came with the fork
    seen_s: float  # when it was last looked at exactly, or found
    suspect_s: float = 0.0  # until then it is not looked at exactly, whatever it seems to use
    exact: int | None = None
    resident: int = 0  # when `exact` was found

    def guess(self, cheap: int, resident: int) -> int:
        """Return what it uses, by the last exact figure if there is one."""
        return cheap if self.exact is None else self.exact + max(0, resident - self.resident)


class WorkerMemory:
    """What was seen of the workers there are."""

    def __init__(self) -> None:
        """Have seen none."""
        self.limit = NO_LIMIT  # bytes that one worker may use
        self.is_summed = False  # the sum for all workers must be right, too
        self.exact_s = 0.0  # of this thread's time, for all exact figures so far
        self._seen: dict[int, _Seen] = {}  # by pid
        self._patrol_s = 0.0  # until then only who seems to use too much is looked at exactly

    def used(self, pids: Mapping[int, int], now_s: float) -> dict[int, int]:
        """Return the bytes that workers, and all processes below them, have of their own.

        Args:
            pids: by worker.
            now_s: on the caller's clock.
        """
        self._seen = {pid: self._seen[pid] for pid in pids.values() if pid in self._seen}
        return {number: self._used(pid, now_s) for number, pid in pids.items()}

    def _used(self, pid: int, now_s: float) -> int:
        tree = _tree(pid)
        seen = self._seen.get(pid)
        if seen is None:
            resident, shared = resident_of(parent_of(pid))
            seen = self._seen[pid] = _Seen(resident - shared, now_s)
        sizes = [resident_of(one) for one in tree]
        resident = sum([size for size, _ in sizes])
        cheap = max(0, resident - sum([shared for _, shared in sizes]) - seen.base)
        # a child shares what it had when it was forked: the cheap figure counts that twice
        is_wrong = self.is_summed and len(tree) > 1
        if resident <= self.limit and not is_wrong:
            return cheap
        guess = seen.guess(cheap, resident)
        if guess > self.limit or (is_wrong and seen.exact is None):
            is_due = now_s >= seen.suspect_s
        else:
            is_due = now_s >= max(self._patrol_s, seen.seen_s + PATROL_S)
        return self._look(seen, tree, resident, now_s) if is_due else min(guess, self.limit)

    def _look(self, seen: _Seen, tree: list[int], resident: int, now_s: float) -> int:
        """Return the exact figure, and put off the next ones for as long as it costs."""
        begun_s = time.thread_time()
        seen.exact, seen.resident, seen.seen_s = _exact(tree), resident, now_s
        cost_s = time.thread_time() - begun_s
        self.exact_s += cost_s
        seen.suspect_s = now_s + cost_s / SUSPECT_SHARE
        self._patrol_s = max(self._patrol_s, now_s + cost_s / PATROL_SHARE)
        return seen.exact


def resident_of(pid: int) -> tuple[int, int]:
    """Return the resident bytes of a process, and how many of them are of files or shared memory.

    Both 0: it is gone.
    """
    words = text_of(f"/proc/{pid}/statm").split()
    return (int(words[1]) * PAGE, int(words[2]) * PAGE) if len(words) > 2 else (0, 0)


def _tree(pid: int) -> list[int]:
    found = [pid]
    for one in found:  # it grows meanwhile
        found += children_of(one)
    return found


def _exact(tree: list[int]) -> int:
    """Return what processes have that no process beside them has; bytes."""
    total = 0
    for pid in tree:
        sizes = numbers_in(f"/proc/{pid}/smaps_rollup")
        if not sizes:  # an old kernel, or it is gone
            resident, shared = resident_of(pid)
            total += (resident - shared) // KB
        elif len(tree) == 1:
            total += sizes.get("Private_Clean", 0) + sizes.get("Private_Dirty", 0)
        else:  # what they share with each other counts, once
            total += sizes.get("Pss", 0)
    return total * KB
