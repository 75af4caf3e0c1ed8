"""The single-threaded process that forks workers, reaps them, and outlives the agent.

It has imported what every worker needs, so a worker costs a fork and no import. As a subreaper it
is the parent of every orphan below it: nothing that user code starts gets away. When the agent
ends, however it ends, the zygote kills all its descendants, wipes the scratch directory and ends.

It must never import zmq, asyncio or uvloop, run user code, or have a second thread.
"""

import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from . import control as c, worker
from .folders import remove
from .fresh import Python, hide_seed
from .processes import (
    Wakeup,
    become_subreaper,
    children_of,
    kill,
    kill_group,
    kill_tree,
    parents,
)
from .slate import Memory

ROUND_MS = 5  # between two looks at what is still alive while a lease is ended
ENDING_S = 1.0  # after which what forks others is not kept: a job may have meddled with it
ORPHANS_MAX = 1024  # deaths remembered of processes that the agent has not named yet
FORBIDDEN = ("zmq", "asyncio", "uvloop")  # they bring threads or descriptors that forks inherit


def _leave_as_it_is() -> None:
    pass


def _share_nothing(directory: str) -> None:
    pass


def _has_no_files() -> bool:
    return True


class Zygote:
    """The state of the process, and its loop."""

    def __init__(
        self,
        control: socket.socket,
        agent: int,
        memory: Memory,
        scratch: str,
        confine: Callable[[], None] = _leave_as_it_is,
        share: Callable[[str], None] = _share_nothing,
        find_python: Callable[[], Python] | None = None,
        wipe: Callable[[], bool] = _has_no_files,
    ) -> None:
        """Serve the agent behind `control`.

        Args:
            control: orders and answers.
            agent: its pid; 0: we are the init of a sandbox.
            memory: the slates.
            scratch: a directory of ours.
            confine: what each worker calls before it does anything.
            share: lets workers write to a directory, where nothing can be written to else.
            find_python: of each worker that starts one of its own, after `confine`; as no seed of
                `hash()` is ours there, all do. None: it is ours.
            wipe: of a sandbox: removes what a lease has left, and returns whether nothing is.
        """
        self._confine, self._share = confine, share
        self._find_python, self._wipe_sandbox = find_python, wipe
        self._control = control
        self._agent = agent
        self._memory = memory
        self._scratch = scratch
        self._pages: dict[int, int] = {}  # worker's page -> pid
        self._workers: set[int] = set()  # pids the agent knows, not reaped
        self._orphans: dict[int, tuple[str, int]] = {}  # reaped, but not (yet) known to the agent
        self._preloader = 0  # the one of them that forks others; 0: none does
        self._ending: frozenset[int] | None = None  # pids to keep, while a lease is ended
        self._late_s = 0.0  # when that takes too long
        self._goes_on = False  # another lease can follow it here

    def run(self) -> NoReturn:
        """Serve the agent until it ends."""
        wakeup = Wakeup(self._control, self._agent)
        self._say(c.Ready())
        is_there = True
        while is_there and wakeup.owner_lives():
            if wakeup.wait(ROUND_MS if self._ending is not None else None):
                is_there = self._obey()
            self._reap()
            if self._ending is not None and is_there:
                self._end_round(self._ending)
        self._end(wakeup)

    # --- orders ---

    def _obey(self) -> bool:
        """Carry out one order; return False if the agent is gone."""
        try:
            data, fds, _, _ = socket.recv_fds(
                self._control, c.BYTES_MAX, 3, socket.MSG_CMSG_CLOEXEC
            )
        except OSError:
            return False
        if not data:
            return False
        match c.decode(data):
            case c.Fork(page, hash_seed):
                self._fork(page, hash_seed, (fds[0], fds[1], fds[2]))
            case c.Adopt(pid):
                self._adopt(pid)
            case c.Signal(pid, number):
                if pid in self._workers:
                    kill(pid, number)
            case c.Kill(pid):
                if pid in self._workers:
                    # a copy is below its template until the process between the two has ended
                    kill_tree(pid, spared=self._workers)
            case c.Share(directory):
                self._share(directory)
            case c.EndLease(kept, preloader):
                self._late_s, self._goes_on = time.monotonic() + ENDING_S, True
                self._preloader = self._pages.get(preloader, 0)
                self._ending = frozenset(self._pages[page] for page in kept if page in self._pages)
            case other:
                raise AssertionError(other)
        return True

    def _say(self, word: c.FromZygote) -> None:
        with suppress(OSError):  # the agent is gone: the loop sees it
            self._control.send(c.encode(word))

    def _fork(self, page: int, hash_seed: int | None, fds: tuple[int, int, int]) -> None:
        try:
            pid = os.fork()
        except OSError as error:
            self._say(c.NotForked(page, error.errno or 0))
            pid = -1
        if pid == 0 and hash_seed is not None:
            found = self._find_python
            worker.start_afresh(fds, self._memory.fd, page, hash_seed, self._confine, found)
        if pid == 0:
            worker.run(fds, self._memory, page, self._confine)
        for fd in fds:
            os.close(fd)
        if pid > 0:
            self._pages[page] = pid
            self._workers.add(pid)
            self._say(c.Forked(page, pid))

    def _adopt(self, pid: int) -> None:
        """Take note of a worker that a template has forked; it is, or becomes, our child."""
        if pid in self._orphans:
            self._say(c.Died(pid, *self._orphans.pop(pid)))
        else:
            self._workers.add(pid)

    # --- deaths ---

    def _reap(self) -> None:
        """Reap all that is dead, with what it leaves behind in its process group."""
        while True:
            try:
                dead = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if dead is None:
                return
            pid = dead.si_pid
            if pid in self._workers:
                kill_group(pid)  # before the reaping, so that the number is still its own
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)
            how = "exit" if dead.si_code == os.CLD_EXITED else "signal"
            if pid in self._workers:
                self._workers.discard(pid)
                self._pages = {page: one for page, one in self._pages.items() if one != pid}
                self._say(c.Died(pid, how, dead.si_status))
            else:
                self._orphans[pid] = (how, dead.si_status)
                if len(self._orphans) > ORPHANS_MAX:
                    del self._orphans[next(iter(self._orphans))]

    def _end_round(self, keep: frozenset[int]) -> list[int]:
        """Kill all but `keep`, and return what was there; say so when nothing else is left."""
        if time.monotonic() > self._late_s:
            keep = self._ending = keep - {self._preloader}
            self._goes_on = self._goes_on and bool(self._agent)
        if self._agent:
            left = self._kill_all_below(keep)
        elif self._goes_on:
            left = self._kill_others(keep)
        else:
            self._kill_namespace()
            left = []
        # a list read while children end may miss some: believe an empty one the second time
        left = left or [pid for pid in children_of(os.getpid()) if pid not in keep]
        if not left:
            self._ending = None
            self._orphans.clear()
            self._say(c.Ended(self._wipe()))
        return left

    def _kill_all_below(self, keep: frozenset[int]) -> list[int]:
        """Kill all that is below us but for `keep`; return what was there."""
        left = [pid for pid in children_of(os.getpid()) if pid not in keep]
        if self._preloader in keep and self._preloader in self._workers:
            left += children_of(self._preloader)  # what it has forked is there for a moment
        for pid in left:
            kill_tree(pid)
        return left

    def _kill_others(self, keep: frozenset[int]) -> list[int]:
        """Kill all in our namespace but us and `keep`; return what was there."""
        kept = {os.getpid(), *keep}
        if not parents().keys() - kept:
            return []
        with suppress(ProcessLookupError):
            os.kill(-1, signal.SIGSTOP)  # at one moment: nobody forks any more
        left = parents().keys() - kept
        for pid in left:
            kill(pid)
        for pid in keep:
            kill(pid, signal.SIGCONT)
        return [*left]

    def _kill_namespace(self) -> None:
        """Kill all in our namespace but us, and wait until they are gone."""
        with suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)  # at one moment: no fork is quicker
        with suppress(ChildProcessError):
            while True:
                os.waitpid(-1, 0)

    def _wipe(self) -> bool:
        """Remove the files of a lease; return whether another may begin here."""
        if not self._agent:
            try:
                return self._goes_on and self._wipe_sandbox()
            except OSError:  # then there is another sandbox for the next one
                return False
        entries: list[os.DirEntry[str]] = []
        with suppress(OSError):  # there is none
            entries = list(os.scandir(self._scratch))
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                remove(entry.path)
            else:
                with suppress(OSError):
                    os.unlink(entry.path)
        return True

    def _end(self, wakeup: Wakeup) -> NoReturn:
        """Kill everything below and go."""
        if not self._agent:
            os._exit(0)  # the kernel kills all that is in the namespace, and waits for it
        self._ending = frozenset()
        while self._ending is not None:
            wakeup.wait_ended(self._end_round(self._ending), ROUND_MS)
            self._reap()
        if self._scratch:
            remove(self._scratch)
        os._exit(0)


def refuse_forbidden() -> None:
    """Raise if something is loaded that must not be in a process that forks."""
    loaded = [name for name in FORBIDDEN if name in sys.modules]
    if loaded:
        raise RuntimeError(f"a process that forks must not import {loaded}")


def main(argv: list[str]) -> NoReturn:
    """Be the zygote of an agent: `CONTROL_FD SLATES_FD AGENT_PID SCRATCH [CONFINEMENT]`."""
    refuse_forbidden()
    control = socket.socket(fileno=int(argv[0]))
    memory = Memory(int(argv[1]))
    os.set_inheritable(memory.fd, False)
    hide_seed()
    become_subreaper()
    worker.prepare()
    if argv[4:]:
        from burla.nodelet.isolation.restrict import (
            seal,  # a private cluster does without, and without what it imports
        )

        seal(argv[3], argv[4])
    Zygote(control, int(argv[2]), memory, argv[3]).run()
