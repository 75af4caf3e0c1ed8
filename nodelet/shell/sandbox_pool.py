"""Where the workers of a lease live: one zygote for all leases, or a sandbox for each.

`current` is what serves the lease that runs, or the next one. Sandboxes are made ahead: one that
is not begun yet waits with its blanks while a lease runs, so that a sandbox costs nothing in the
way of a call. One that has served is used again only for a lease of the same session, and if it is
worth it for what was imported there. Before the first lease of all the one that is to follow has no
blanks: a node that starts, or waits for work, does not pay for two leases.
"""

import asyncio
import itertools
import logging
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import assert_never

from msgspec import Struct, field

from burla.nodelet.isolation.sandbox import JOB_FOLDER, Confinement
from burla.nodelet.isolation.tier import Tier
from burla.nodelet.worker import control as c
from burla.nodelet.worker.processes import kill

from .devices import Devices
from .launching import Launch, Launched, Process, launch_module, launch_supervisor
from .worker_pool import Owner, WorkerPool
from .zygote_client import UnusableImageError, ZygoteClient

WIPE_S = 3.0  # for a sandbox to be used again; else the next lease gets another one
REST_S = 0.02  # before its blanks are forked: that would be in the way of a call that comes now

log = logging.getLogger(__name__)


class Init(Struct):
    """The init of a sandbox, as the supervisor tells of it; stands in for a subprocess."""

    number: int
    pid: int = 0
    returncode: int | None = None
    why: str = ""  # there is none

    def poll(self) -> int | None:
        """Return how it ended; None: it has not, or something of it is left."""
        return self.returncode


class _Inits(Struct):
    """All that were asked for and are not gone."""

    by_number: dict[int, Init] = field(default_factory=dict)
    made: int = 0

    def make(self) -> Init:
        self.made += 1
        one = self.by_number[self.made] = Init(self.made)
        return one

    def take(self, word: c.FromSupervisor) -> None:
        """Take what the supervisor says."""
        match word:
            case c.Opened(number, pid):
                self.by_number[number].pid = pid
            case c.Failed(number, why):
                one = self.by_number.pop(number)
                one.why, one.returncode = why, 1
            case c.Gone(number, status):
                self.by_number.pop(number).returncode = status
            case c.Tried() | c.Ready():
                pass
            case _:
                assert_never(word)


class SandboxPool:
    """The workers of this machine, lease after lease."""

    def __init__(
        self,
        owner: Owner,
        scratch: Path,
        tier: Tier = Tier.PROCESS,
        confinement: Confinement | None = None,
        *,
        hash_seed: int,
        gpus: Sequence[str] = (),
        is_private: bool = False,
    ) -> None:
        """Tell `owner` what happens; without `confinement` workers are as we are.

        Args:
            owner: of the pool.
            scratch: a directory of ours.
            tier: how far leases are shut in.
            confinement: in what.
            hash_seed: of the workers.
            gpus: ids of the devices, which each lease in turn may have.
            is_private: all leases are one program's.
        """
        self._is_private = is_private
        self._gpus = gpus
        self._hash_seed = hash_seed
        self._owner = owner
        self._scratch = scratch
        self._tier = tier
        self._confinement = str(confinement) if confinement is not None else ""
        self.job_folder = JOB_FOLDER if tier.is_sandboxed() else str(scratch / "job")
        self._numbers = itertools.count(1)
        self._blanks = 0
        self._inits = _Inits()
        self._spare: asyncio.Task[WorkerPool] | None = None
        self._has_served = False  # a lease has begun
        self._supervisor: ZygoteClient | None = None
        self._has_current = False
        self._has_supervisor = False
        self.current: WorkerPool
        self._tried: set[str] = set()  # images in which workers have run
        self._outside: WorkerPool | None = None  # next, while a lease runs in an image

    async def start(self, launched: Launched | None = None) -> None:
        """Start what forks, unless it was `launched` already, and wait until it serves.

        Raises:
            RuntimeError: it does not; what it said is on stderr.
        """
        if not self._tier.is_sandboxed():
            words = [str(self._scratch), *filter(None, [self._confinement])]
            self.current = self._pool(launch_module("zygote", self._hash_seed, *words))
            await self.current.start(launched)
            self._has_current = True
            return
        try:
            await self._start_supervisor(launched)
            self.current = await self._make()
            self._has_current = True
        except BaseException:
            await self.close()
            raise
        self._begin_spare()

    async def _start_supervisor(self, launched: Launched | None) -> None:
        self._supervisor = ZygoteClient(
            asyncio.get_running_loop(),
            self._inits.take,
            self._on_supervisor_end,
        )
        if launched is None:
            launched = launch_supervisor(self._hash_seed, str(self._scratch), self._confinement)
        await self._supervisor.start(launched)
        self._has_supervisor = True

    async def close(self) -> None:
        """End the lease, if there is one, and all that there is."""
        if self._spare is not None:
            self._spare.cancel()
            with suppress(asyncio.CancelledError, RuntimeError):
                await (await self._spare).close()
        if self._has_current:
            await self.current.close()
        if self._outside is not None:
            await self._outside.close()
        if self._supervisor is not None:
            await self._supervisor.close()

    def begin_lease(self) -> None:
        """Make the folder of a lease, and see that the next one will find blanks."""
        if not self._tier.is_sandboxed():  # a sandbox has one, which goes with it
            with suppress(OSError):  # the disk is full: the job works elsewhere
                os.mkdir(self.job_folder, 0o700)
        elif not self._has_served:
            self._has_served = True
            asyncio.get_running_loop().call_later(REST_S, self._prepare_spare)

    def prepare(self, blanks: int) -> None:
        """Keep so many blanks ready for the next lease, now and after each lease."""
        self._blanks = blanks
        self.current.prepare(blanks)

    async def end_lease(self, *, is_followed: bool = False) -> None:
        """Kill all processes of the lease; return when they are gone, with all that they left.

        Without a lease: end what was kept for one that was to follow.

        Args:
            is_followed: by one of the same program, for which what was only imported may stay.
        """
        if self._supervisor is None:
            if not (is_followed or self._is_private):
                self.current.preloading.forget()
            await self.current.end_lease()
            return
        if self._outside is not None:
            await self.current.close()
            self.current, self._outside = self._outside, None
            return
        if is_followed and self.current.preloading.is_worth_keeping():
            try:
                async with asyncio.timeout(WIPE_S):
                    if await self.current.end_lease():
                        return
            except TimeoutError:
                await self.current.close(at_once=True)
        assert self._spare is not None
        self.current.prepare(0)
        await self.current.close()
        self._has_current = False
        self.current = await self._spare
        self._has_current = True
        self.current.prepare(self._blanks)
        self._begin_spare()

    async def make_in_image(self, place: str, shown: Sequence[str]) -> WorkerPool:
        """Return a sandbox with the files of an image, for one lease.

        Args:
            place: a directory with those.
            shown: directories that workers see besides, under the same names.

        Raises:
            RuntimeError: there is none to be had; the text says why.
        """
        workers = await self._make(place, shown)
        self._tried.add(place)
        return workers

    def enter(self, inside: WorkerPool) -> None:
        """Have the next lease begin there; the one after it begins where it would have."""
        assert self._outside is None, "one lease at a time"
        self._outside, self.current = self.current, inside

    def _begin_spare(self) -> None:
        self._spare = asyncio.create_task(self._make_spare())
        self._spare.add_done_callback(self._on_spare)

    def _on_spare(self, spare: asyncio.Task[WorkerPool]) -> None:
        if not spare.cancelled() and (error := spare.exception()) is not None:
            log.error("%s", error)
            self._owner.on_zygote_death()

    def _pool(self, launch: Launch) -> WorkerPool:
        devices = Devices(self._gpus)
        return WorkerPool(self._owner, launch, self._numbers, devices)

    async def _make_spare(self) -> WorkerPool:
        """Return a new sandbox; its blanks are forked after a while.

        Raises:
            RuntimeError: there is none to be had.
        """
        workers = await self._make()
        if self._has_served:
            asyncio.get_running_loop().call_later(REST_S, lambda: workers.prepare(self._blanks))
        return workers

    def _prepare_spare(self) -> None:
        """Have the blanks of a spare forked that was made before the first lease."""
        spare = self._spare
        if spare is not None and spare.done() and not spare.cancelled() and not spare.exception():
            spare.result().prepare(self._blanks)

    async def _make(self, image: str = "", shown: Sequence[str] = ()) -> WorkerPool:
        """Return a new sandbox, ready to fork; perhaps with the files of an image.

        Raises:
            RuntimeError: there is none to be had.
        """
        init = self._inits.make()
        order = c.OpenSandbox(init.number, image, list(shown), image in self._tried)
        workers = self._pool(lambda fds: self._open(init, order, fds))
        try:
            await workers.start()
        except UnusableImageError:
            raise
        except RuntimeError as error:
            raise RuntimeError(f"cannot make a sandbox: {init.why or error}") from None
        except BaseException:
            if init.pid:
                kill(init.pid)
            raise
        return workers

    def _on_supervisor_end(self) -> None:
        """End all sandboxes, of which nobody else tells us any more."""
        self._has_supervisor = False
        for init in self._inits.by_number.values():
            if init.pid:
                kill(init.pid)
            init.returncode = -signal.SIGKILL
        self._inits.by_number.clear()
        self._owner.on_zygote_death()

    def _open(self, init: Init, order: c.OpenSandbox, fds: Sequence[int]) -> Process:
        assert self._supervisor is not None
        if self._has_supervisor:
            self._supervisor.send(order, fds=tuple(fds))
        else:
            init.why, init.returncode = "the supervisor has died", 1
        return init
