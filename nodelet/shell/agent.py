"""The nodelet shell: line to the scheduler, clock and workers around the core. Decides nothing.

Everything happens in one loop: the task in `serve` waits for the scheduler and the clock; what
workers do comes by `tell`. Whatever has come in one turn is fed to the core, which then decides
once what follows.
"""

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import assert_never

from burla.nodelet.config import NodeletConfig, usable_ram
from burla.nodelet.core import effects as e
from burla.nodelet.core.events import Stolen, WorkerEvent, WorkersEnded
from burla.nodelet.core.nodelet import Nodelet
from burla.nodelet.isolation.tier import Tier
from burla.nodelet.worker.control import LoadSettings
from burla.nodelet.worker.folders import SHARED_VARIABLE, VARIABLE as FOLDER_VARIABLE, remove
from burla.nodelet.worker.fresh import SEED_VARIABLE
from burla.nodelet.worker.pipes import CUT_SIGNAL
from burla.protocol import VERSION, messages as m
from burla.protocol.blob_messages import BLOBS
from burla.protocol.fields import FOLLOWS, POLICIES
from burla.protocol.image_messages import IMAGES
from burla.protocol.input_messages import INPUTS
from burla.protocol.key_messages import KEYS
from burla.protocol.package_messages import PACKAGES, are_files
from burla.system.dump import dump_on_signal
from burla.transport.clock import AwakeClock
from burla.transport.direct import DirectEnd, Said

from . import blob_memory
from .blob_memory import BlobMemory
from .carried_files import CarriedFiles
from .environments import Environments, Store
from .image_leases import ImageLeases
from .input_files import Opened
from .installing import Installer
from .launching import SCRATCH, Launched, make_scratch
from .lease_log import LeaseLog
from .left_over import is_left
from .line import DirectLine, Line, SocketLine
from .refusals import NotAcceptedError, NotAuthorisedError
from .sandbox_pool import SandboxPool
from .worker_pool import WorkerPool

LEAVE_SIGNAL = signal.SIGUSR1  # finish what runs, take nothing more, end
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"

log = logging.getLogger(__name__)


def remove_left(directory: str) -> None:
    """Remove empty scratch directories of this user's nodelets that were killed."""
    names: list[str] = []
    with contextlib.suppress(OSError):  # who makes one there tells why that cannot be
        names = [name for name in os.listdir(directory) if name.startswith(SCRATCH)]
    for name in names:
        path = Path(directory, name)
        with contextlib.suppress(OSError):
            if is_left(name, SCRATCH) and path.stat().st_uid == os.geteuid():
                path.rmdir()


async def run(
    config: NodeletConfig,
    direct: DirectEnd | None = None,
    begun: tuple[str, Launched | None] | None = None,
) -> None:
    """Offer this machine to the scheduler until cancelled or done leaving; leave nothing behind.

    Args:
        config: what to offer, and to which scheduler.
        direct: the end of a line to that scheduler, if it is in this process.
        begun: the scratch directory and what forks, as far as they are there already.

    Raises:
        NotAcceptedError: the scheduler refuses it.
        RuntimeError: workers cannot be had (any more).
    """
    remove_left(config.scratch)
    made, launched = begun or (make_scratch(config.scratch), None)
    scratch = Path(made)
    clock_s = AwakeClock()
    line: Line = SocketLine(config, clock_s) if direct is None else DirectLine(direct)
    agent = Agent(config, line, scratch, clock_s)
    try:
        asyncio.get_running_loop().add_signal_handler(LEAVE_SIGNAL, agent.leave)
        if config.state_file is not None:
            dump_on_signal(config.state_file, agent.snapshot)
        await agent.serve(launched)
    except asyncio.CancelledError:
        agent.say_last_word()
        raise
    finally:
        if config.ready_file is not None:
            config.ready_file.unlink(missing_ok=True)
        await agent.close()
        remove(str(scratch))  # Landlock lets only its content be removed
        line.close()


def _environments_of(config: NodeletConfig, agent: "Agent") -> Environments:
    root = config.packages or config.scratch
    installer = Installer(f"{root}-cache", config.sources)
    return Environments(Store(root), installer, agent, config.standing_place)


class Agent:
    """Drives a core with what the scheduler says and what the workers do."""

    def __init__(
        self,
        config: NodeletConfig,
        line: Line,
        scratch: Path,
        clock_s: Callable[[], float],
    ) -> None:
        """Serve the scheduler at the other end of `line`."""
        self._images = ImageLeases(config)
        features = (
            KEYS,
            BLOBS,
            INPUTS,
            POLICIES,
            FOLLOWS,
            *([PACKAGES] if config.packages else []),
        )
        features += (IMAGES,) if self._images.can_be else ()
        hello = m.NodeHello(
            m.PROTOCOL,
            VERSION,
            PYTHON,
            os.urandom(16),
            config.name,
            config.cpus,
            config.ram,
            (),
            isolation=config.tier,
            features=features,
            gpus=tuple(gpu.model for gpu in config.gpus),
        )
        self._config = config
        self._line, self._clock_s = line, clock_s
        self._core = Nodelet(
            hello, self._config.reconnect_timeout_s, blobs_max=blob_memory.idle_max()
        )
        self._budget = config.ram if config.ram < usable_ram() else 0  # bytes for all workers
        self._hash_seed = config.hash_seed_of_workers()
        self._sandboxes = SandboxPool(
            self,
            scratch,
            config.tier,
            config.confinement,
            hash_seed=self._hash_seed,
            gpus=[gpu.id for gpu in config.gpus],
            is_private=config.is_private,
        )
        self._blobs = BlobMemory(self._blob_failed, config.ram)
        self._environments = _environments_of(config, self)
        self._images.begin(self._core, self._sandboxes, self._settle)
        self._lease_log = LeaseLog()
        self._due_s = 0.0  # when the core must settle again
        self._is_settling = False
        self._has_news = False  # fed to the core since it began to settle
        self._wake_s: float | None = None  # when `serve` looks at the clock; None: it does not wait
        self._failure: Exception | None = None
        self._left = False  # it was asked to leave, and is done
        self._ending: asyncio.Task[None] | None = None
        self._closes = False  # all workers are ended, whatever is decided of them

    async def serve(self, launched: Launched | None = None) -> None:
        """Take, decide, carry out; until cancelled.

        Args:
            launched: what forks, if it was started already.

        Raises:
            NotAcceptedError: the scheduler refuses it.
            RuntimeError: workers cannot be had (any more).
        """
        await self._sandboxes.start(launched)
        self._line.begin(self._hear)
        try:
            self._core.start(self._clock_s())
            self._settle()
            self._line.connect()
            while self._failure is None and not self._left:
                self._wake_s = self._due_s
                await self._line.wait(self._due_s - self._clock_s())
                self._wake_s = None
                self._line.attend()
                if self._line.refusal is not None:
                    self._fail(NotAuthorisedError(self._line.refusal))
                if self._clock_s() >= self._due_s:
                    self._blobs.spare.drop_old()
                    self._settle()
            if self._failure is not None:
                raise self._failure
        finally:
            self._line.end()

    def say_last_word(self) -> None:
        """Tell the scheduler that this ends because it was told to."""
        for effect in self._core.last_word():
            self._line.say(effect.message, effect.payload)

    async def close(self) -> None:
        """End all workers; what they have written still goes out."""
        self._closes = True
        if self._ending is not None:
            await asyncio.wait([self._ending])
        await self._environments.close()
        await self._images.close()
        await self._sandboxes.close()

    @property
    def _workers(self) -> WorkerPool:
        return self._sandboxes.current

    def _hear(self, said: Iterable[Said]) -> None:
        """Feed the core with what the scheduler says, and carry out what follows."""
        has_news = False
        for message, payload in said:
            has_news = True
            if isinstance(message, (m.EndLease, m.StartLease)):
                self._lease_log.told(message)
            self._core.receive(message, payload, self._clock_s())
        if has_news:
            self._settle()

    # --- what workers do: see worker_pool.Owner ---

    def tell(self, events: Sequence[WorkerEvent]) -> None:
        """Take what has happened, in order."""
        now_s = self._clock_s()
        for event in events:
            self._core.take(event, now_s)
        self._settle()

    def busy(self) -> Collection[int]:
        """Return the workers that have something to run."""
        return self._core.busy()

    def snapshot(self) -> dict[str, object]:
        """Return what it knows, for people; times are of `now_s`'s clock."""
        return {"now_s": self._clock_s(), **self._core.snapshot()}

    def on_zygote_death(self) -> None:
        """End: no worker can be had any more."""
        self._fail(RuntimeError("the process that forks workers has died"))

    # --- what the core decides ---

    def _settle(self) -> None:
        """Carry out what follows from what the core was fed with, and set the timer once."""
        self._has_news = True
        if self._is_settling:  # it goes on by itself
            return
        self._is_settling = True
        try:
            while self._has_news:
                self._has_news = False
                for effect in self._core.settle(self._clock_s()):
                    self._carry_out(effect)
        finally:
            self._is_settling = False
        self._due_s = self._core.next_deadline_s()
        if self._wake_s is not None and self._due_s < self._wake_s:
            self._wake_s = self._due_s
            self._line.hurry(self._due_s - self._clock_s())

    def _carry_out(self, effect: e.Effect) -> None:
        match effect:
            case e.BeginLease() | e.EndWorkers() if self._closes:
                pass
            case e.Send():
                self._line.say(effect.message, effect.payload)
            case e.AssignSpan():
                files = self._files_of(effect.files) if effect.files else ()
                self._workers.assign(effect, files)
            case e.Steal():
                self._steal(effect)
            case e.CutStride():
                self._workers.signal(effect.worker, CUT_SIGNAL)
            case e.KeepBlanks():
                self._sandboxes.prepare(effect.count)
            case e.BeginLease():
                self._lease_log.began(effect.start, self._clock_s())
                self._begin_lease(effect)
            case e.KeepBlob():
                self._blobs.keep(effect)
            case e.FinishBlob():
                self._blobs.finish(effect.number)
            case e.DropBlob():
                self._blobs.drop(effect.number)
            case e.DropSpare():
                self._blobs.spare.clear()
            case e.GetPackages():
                self._environments.get(effect.lease, effect.packed, effect.image)
            case e.GetFiles():
                self._get_files(effect)
            case e.LetGoOfPackages():
                self._environments.let_go(effect.lease)
            case e.GetImage() | e.EnterImage() | e.LetGoOfImage():
                self._images.see_to(effect)
            case e.LoadWorker():
                self._workers.load_worker()
            case e.MakeTemplate():
                self._workers.make_template(effect.worker)
            case e.ForkWorker():
                self._workers.fork_worker(effect.template)
            case e.PauseReading():
                self._workers.pause_reading(effect.worker)
            case e.ResumeReading():
                self._workers.resume_reading(effect.worker)
            case e.Interrupt():
                self._workers.signal(effect.worker, signal.SIGINT)
            case e.Expire():
                self._workers.signal(effect.worker, CUT_SIGNAL, expired=effect.index)
            case e.Kill():
                self._workers.kill(effect.worker, effect.why)
            case e.EndWorkers():
                self._lease_log.ended(self._clock_s())
                self._blobs.spare.end()
                self._ending = asyncio.create_task(self._end_workers(effect.is_followed))
            case e.Note():
                log.info("%s", effect.text)
            case e.Quit():
                kind = NotAuthorisedError if effect.not_authorised else NotAcceptedError
                self._fail(kind(effect.reason))
            case e.Heard():
                self._note_heard()
            case e.Leave():
                self._left = True
                self._line.wake()
            case _:
                assert_never(effect)

    def _note_heard(self) -> None:
        """Make or touch the file by which others see that the scheduler answers."""
        if self._config.ready_file is not None:
            with contextlib.suppress(OSError):  # a full disk is no reason to stop working
                self._config.ready_file.touch(mode=0o600)

    def leave(self) -> None:
        """Take no more work, and end when what was begun is done and delivered."""
        self._core.leave()
        self._settle()

    def _begin_lease(self, effect: e.BeginLease) -> None:
        start, config = effect.start, self._config
        self._blobs.spare.begin(start.lease, keep=effect.keep)
        variables = {"BURLA_JOB_ID": start.job.hex(), "BURLA_NODE": config.name}
        variables[FOLDER_VARIABLE] = self._sandboxes.job_folder
        if shared := self._core.shared:
            variables[SHARED_VARIABLE] = shared
        if effect.enters:
            self._images.enter(start.lease)
        # what an operator gives all jobs is not meant for images
        places = (effect.files, effect.packages, "" if start.image else config.standing_place)
        packages = os.pathsep.join(filter(None, places))
        listed = list(zip(start.blobs, effect.blobs, strict=False))
        if effect.files:  # workers need not put them down
            listed = [(blob, number) for blob, number in listed if not are_files(blob.name)]
        if packages:  # what calls start finds them, too
            path = (packages, "" if start.image else os.environ.get("PYTHONPATH", ""))
            variables["PYTHONPATH"] = os.pathsep.join(filter(None, path))
        if not effect.keep:  # else the files are kept as well
            self._sandboxes.begin_lease()
        hash_seed = start.hash_seed
        if hash_seed is not None:  # the caller set it; what calls start is to have it, too
            variables[SEED_VARIABLE] = str(hash_seed)
        seed = self._hash_seed if hash_seed is None else hash_seed
        is_ours = seed == self._hash_seed
        settings = LoadSettings(
            unpack=start.unpack,
            environment=start.environment,
            variables=variables,
            func_cpu=start.func_cpu,
            node=config.name,
            fragments=start.fragments,
            blobs=[(blob.digest, blob.size, int(blob.kind), blob.name) for blob, _ in listed],
            timeout_s=0.0 if start.policy is None else start.policy.timeout_s,
            packages=packages,
            func_ram=start.func_ram or 0,
            in_image=bool(start.image),
        )
        self._workers.begin_lease(
            effect.function,
            settings,
            files=self._files_of([number for _, number in listed]),
            func_ram=start.func_ram or 0,
            budget=self._budget,
            # in an image no worker is forked from what the node has loaded
            hash_seed=None if is_ours and not start.image else seed,
            keep=effect.keep,
            gpus=0 if start.policy is None else start.policy.func_gpu,
            shared=self._core.shared,
        )

    # --- what becomes of packages: see environments.Listener ---

    def packages_progress(self, lease: bytes, text: str) -> None:
        """Take what is being done for a lease."""
        self._core.packages.progress(lease, text)
        self._settle()

    def packages_there(self, lease: bytes, place: str) -> None:
        """Take where the packages of a lease are."""
        self._core.packages.there(lease, place)
        self._settle()

    def packages_failed(self, lease: bytes, why: str, lacking: Sequence[str]) -> None:
        """Take why there are none."""
        log.warning("%s", why)
        self._core.packages.failed(lease, why, lacking)
        self._settle()

    def files_there(self, lease: bytes, place: str) -> None:
        """Take where packages of a lease are that its caller sent as files."""
        self._core.packages.files_there(lease, place)
        self._settle()

    def _get_files(self, effect: e.GetFiles) -> None:
        """Keep them where jobs of others cannot look; else each lease has files of its own."""
        numbers, sizes = zip(*effect.blobs, strict=True)
        blobs = self._files_of(numbers) if self._config.tier is Tier.UID else []
        if blobs and self._config.packages:
            sent = CarriedFiles(effect.owner, blobs, sizes)
            self._environments.get_files(effect.lease, sent)
        else:
            self._core.packages.files_there(effect.lease, "")
            self._has_news = True

    def _blob_failed(self, number: int, why: str, may_pass: bool) -> None:
        self._core.blob_failed(number, why, self._clock_s(), may_pass=may_pass)
        self._has_news = True

    def _files_of(self, numbers: Sequence[int]) -> list[Opened]:
        """Return blobs or big inputs; none if one is not there: then its worker says so."""
        try:
            return self._blobs.files(numbers)
        except LookupError:  # it could not be kept just now: the scheduler is told already
            return []

    def _steal(self, effect: e.Steal) -> None:
        """Answer at once, before anything else is fed in."""
        worker, cell = effect.worker, effect.cell
        lo, hi = self._workers.steal(worker, cell, effect.middle)
        self._core.take(Stolen(worker, cell, lo, hi), self._clock_s())
        self._has_news = True

    async def _end_workers(self, is_followed: bool) -> None:
        try:
            await self._sandboxes.end_lease(is_followed=is_followed)
        except Exception as error:
            log.exception("cannot end the workers of a lease")
            self._fail(error)
            return
        self._ending = None
        self.tell([WorkersEnded()])

    def _fail(self, error: Exception) -> None:
        self._failure = self._failure or error
        self._line.wake()
