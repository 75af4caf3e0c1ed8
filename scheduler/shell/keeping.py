"""The shell of the keeper of detached jobs: between the core, its clients, and the disk.

What is told to the keeper waits in a queue until the turn of the loop: so neither core hears
anything while it is in the middle of something. The store is opened with the first detached job,
and at the start if there are some. Nothing here blocks: one thread writes, others read.
"""

import asyncio
import contextlib
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, assert_never

from burla.protocol import messages as m, store_messages as sm
from burla.scheduler.core import reconcile
from burla.scheduler.core.client import Client
from burla.scheduler.core.effects import Effect as CoreEffect, Send
from burla.scheduler.core.scheduler import Scheduler
from burla.scheduler.core.store_limits import Limits
from burla.scheduler.store.effects import (
    Append,
    Delete,
    DropBlob,
    Effect,
    LoadBatch,
    LoadBlob,
    LoadPieces,
    LoadSpec,
    LoadWhole,
    Note,
    ReadPart,
    Recheck,
    SaveFacts,
    ToCore,
    ToPeer,
    WriteBlob,
)
from burla.scheduler.store.keeper import Keeper
from burla.scheduler.store.recovery import Found
from burla.scheduler.store.state import Ways

from .part_reads import PartReads
from .store_files import StoreFiles, StoreTakenError

if TYPE_CHECKING:
    from burla.scheduler.auth.authorizer import Authorizer

TURN_EVENTS = 512  # dealt with in one turn of the loop
READ_THREADS = 2
ROOM_S = 1.0  # how often is looked how much is free on the disk
UPKEEP_S = 0.25
FIND_S = 600.0  # that nodes keep what they have of jobs which are not found yet
AGAIN_S = 5.0  # a store that cannot be opened or listed is tried again after so long

log = logging.getLogger(__name__)

CarryOut = Callable[[Sequence[CoreEffect]], None]


class Keeping:
    """Detached jobs of one scheduler."""

    def __init__(
        self,
        directory: Path,
        limits: Limits,
        core: Scheduler,
        keys_of: Callable[[str], Sequence[str]],
        clock_s: Callable[[], float],
    ) -> None:
        """Keep jobs in a directory; nothing is done before `begin`."""
        self._directory, self._core, self._clock_s = directory, core, clock_s
        tenant_of = lambda user: core.state.tenants.of(user)  # noqa: E731  # they are replaced
        ways = Ways(lambda: os.urandom(16), tenant_of, keys_of, self._is_there)
        self._keeper = Keeper(limits, ways)
        self._events: deque[Callable[[], list[Effect]]] = deque()
        self._files: StoreFiles | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._feeder: ThreadPoolExecutor | None = None  # one thread: what it reads is in order
        self._parts = PartReads()
        self._is_finding = False
        self._found_by_s = float("-inf")  # so long nodes keep what they have of those jobs
        self._again_s: float | None = None  # when the store is tried again
        self._early: list[tuple[bytes, str, m.Message, list[bytes]]] = []  # said meanwhile
        self._due_s = 0.0
        self._room = _Room(lambda room: self._keeper.at(clock_s(), time.time(), room))
        self._do: CarryOut
        self._wake: Callable[[], None] = lambda: None

    def begin(self, carry_out: CarryOut, wake: Callable[[], None]) -> None:
        """Go on with the jobs that are there.

        Args:
            carry_out: does what the core says.
            wake: has `turn` called soon; in the loop.
        """
        self._do, self._wake = carry_out, wake
        if (self._directory / "jobs").is_dir():
            self._found_by_s = self._clock_s() + FIND_S
            self._try_open()

    def is_busy(self) -> bool:
        """Return whether `turn` has something to do."""
        return bool(self._events)

    def is_waiting(self) -> bool:
        """Return whether `turn` may have something to do in a moment, of which nobody tells."""
        return self._parts.is_waiting()

    def takes(self, peer: bytes, message: m.Message) -> bool:
        """Return whether it is for the keeper what a peer says."""
        if not isinstance(self._core.state.peers.get(peer), Client):
            return False
        if self._is_finding and isinstance(message, m.Inputs | m.InputsEnd | m.BlobPiece):
            job = message.about if isinstance(message, m.BlobPiece) else message.job
            return any(getattr(said, "job", b"") == job for _, _, said, _ in self._early)
        return self._keeper.takes(message)

    def receive(self, peer: bytes, user: str, message: m.Message, payload: list[bytes]) -> None:
        """Take what a client says, for which `takes` is true."""
        client = self._core.state.peers.get(peer)
        if isinstance(client, Client):  # it is heard, as by the core
            self._core.note_heard(peer, self._clock_s(), user)
            client.unreachable_s = None
        if self._files is None and isinstance(message, m.OpenJob):
            try:
                self._open()
            except (OSError, StoreTakenError) as error:
                text = f"the scheduler cannot keep detached jobs: {error}"
                self._do([Send(peer, m.JobFailed(message.job, "", text))])
                return
        if self._is_finding:
            self._early.append((peer, user, message, payload))
            return
        self._keeper.at(self._clock_s(), time.time())
        self._carry_out(self._hear(peer, user, message, payload))

    def _hear(
        self, peer: bytes, user: str, message: m.Message, payload: list[bytes]
    ) -> list[Effect]:
        client = self._core.state.peers.get(peer)
        python, name = (client.python, client.name) if isinstance(client, Client) else ("", "")
        who, _, host = name.partition("@")
        return self._keeper.hear(peer, user, (python, who, host), message, payload)

    def hear_core(self, peer: bytes, message: m.Message, payload: Sequence[bytes]) -> None:
        """Take what the core says to the keeper, in its turn."""
        self._events.append(partial(self._keeper.hear_core, peer, message, payload))

    def turn(self) -> None:
        """Deal with what has been told, a bounded part of it."""
        self._keeper.at(self._clock_s(), time.time())
        if self._files is not None and (outcomes := self._files.take_outcomes()):
            self._take_outcomes(outcomes)
        if self._again_s is not None and self._clock_s() >= self._again_s:
            self._again_s = None
            self._try_open()
        for _ in range(min(TURN_EVENTS, len(self._events))):
            self._carry_out(self._events.popleft()())
        for part in self._parts.take():
            self._read_part(part)
        if self._clock_s() >= self._due_s:
            self._due_s = self._clock_s() + UPKEEP_S
            if self._files is not None and self._room.is_due(self._clock_s()):
                room, ways = self._files.room, (self._room.note, self._room.fail)
                self._in_pool("look how much is free", room, *ways)
                self._parts.ask_again()
            self._parts.forget_gone(self._is_there)
            if self._clock_s() < self._found_by_s:
                reconcile.await_jobs(self._core.state, self._clock_s())
            if not self._is_finding:
                self._carry_out(self._keeper.expire())

    def _take_outcomes(self, outcomes: Sequence[tuple[bytes, str]]) -> None:
        written: list[bytes] = []
        for job, why in outcomes:
            if not why:
                written.append(job)
                continue
            self._carry_out(self._keeper.written(written))
            written = []
            self._carry_out(self._keeper.not_written(job, why))
        self._carry_out(self._keeper.written(written))

    def close(self) -> None:
        """Let go of the store, with all that was to be written on the disk."""
        for pool in (self._pool, self._feeder):
            if pool is not None:
                pool.shutdown(cancel_futures=True)
        if self._files is not None:
            self._files.close()

    # --- the disk ---

    def _try_open(self) -> None:
        """Open the store, and find its jobs; if that cannot be, try again in a while."""
        try:
            if self._files is None:
                self._open()
            elif self._is_finding:
                self._find()
        except (OSError, StoreTakenError) as error:
            log.error("cannot go on with detached jobs, and try again: %s", error)
            self._again_s = self._clock_s() + AGAIN_S

    def _open(self) -> None:
        loop = asyncio.get_running_loop()
        is_there = (self._directory / "jobs").is_dir()
        self._files = StoreFiles(self._directory, partial(_call_soon, loop, self._wake_here))
        self._pool = ThreadPoolExecutor(READ_THREADS, "burla-read")
        self._feeder = ThreadPoolExecutor(1, "burla-feed")
        with contextlib.suppress(OSError):
            self._room.note(self._files.room())
        if is_there:
            self._is_finding = True
            self._find()

    def _find(self) -> None:
        assert self._files is not None
        self._in_pool("list the jobs", self._files.reading.find_all, self._found, self._not_found)

    def _wake_here(self) -> None:
        self._wake()

    def _not_found(self) -> list[Effect]:
        self._again_s = self._clock_s() + AGAIN_S
        return []

    def _found(self, jobs: list[Found]) -> list[Effect]:
        effects: list[Effect] = []
        for found in sorted(jobs, key=lambda one: one.opened.made_s if one.opened else 0.0):
            effects += self._keeper.restored(found)
        self._is_finding, self._found_by_s = False, float("-inf")
        effects += self._keeper.begin()
        for said in self._early:
            self._events.append(partial(self._hear, *said))
        self._early = []
        if jobs:
            log.info("there are %d detached jobs in %s", len(jobs), self._directory)
        return effects

    def _in_pool(
        self,
        what: str,
        work: Callable[[], Any],
        then: Callable[[Any], list[Effect]],
        failed: Callable[[], list[Effect]],
        pool: ThreadPoolExecutor | None = None,
    ) -> None:
        """Do something that waits for the disk, and then go on with what it returned.

        If it could not be done, `what` it was is logged, and `failed` lets nobody wait for it.
        """
        future = asyncio.get_running_loop().run_in_executor(pool or self._pool, work)

        def is_done(done: "asyncio.Future[Any]") -> None:
            if done.cancelled():
                return
            if (error := done.exception()) is None:
                self._events.append(lambda: then(done.result()))
            else:
                log.error("cannot %s in %s: %r", what, self._directory, error)
                self._events.append(failed)
            self._wake()

        future.add_done_callback(is_done)

    def _is_there(self, peer: bytes) -> bool:
        return isinstance(self._core.state.peers.get(peer), Client)

    # --- effects ---

    def _carry_out(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            match effect:
                case ToCore():
                    payload, now_s = list(effect.payload), self._clock_s()
                    said = self._core.receive
                    self._do(said(effect.peer, effect.message, payload, now_s, effect.user))
                case ToPeer():
                    self._do([Send(effect.peer, effect.message, effect.payload)])
                case Append() | WriteBlob() | SaveFacts() | Delete() | DropBlob():
                    assert self._files is not None
                    self._files.put(effect)
                case LoadBatch() | LoadPieces() | LoadWhole() | LoadSpec():
                    self._load(effect)
                case LoadBlob():
                    self._load_blob(effect)
                case ReadPart():
                    self._parts.ask(effect)
                case Recheck():
                    self._recheck(effect.job)
                case Note():
                    log.warning("%s", effect.text)
                case _:
                    assert_never(effect)

    def _load(self, what: LoadBatch | LoadPieces | LoadWhole | LoadSpec) -> None:
        """Read what is needed of a job as it came in."""
        assert self._files is not None
        keeper, reading, job = self._keeper, self._files.reading, what.job
        load: Callable[[], Any]
        tell: Callable[..., list[Effect]]
        about = "inputs"
        match what:
            case LoadBatch(number=number):
                load = partial(reading.load_batch, what)
                tell = partial(keeper.loaded, job, number)
            case LoadPieces():
                load = partial(reading.load_pieces, what)
                tell = partial(keeper.pieces_loaded, job)
            case LoadWhole():
                load = partial(reading.load_whole, what)
                tell = partial(keeper.whole_loaded, job)
            case LoadSpec():
                load = partial(reading.load_spec, what)
                tell = partial(keeper.spec_loaded, job)
                about = "the function"
        about = f"read {about} of job {job.hex()[:8]}"
        failed, pool = partial(keeper.not_read, job), self._feeder
        if isinstance(what, LoadWhole):  # it takes long, and nothing follows it
            pool = self._pool
        self._in_pool(about, load, lambda read: tell(*read), failed, pool)

    def _load_blob(self, what: LoadBlob) -> None:
        assert self._files is not None
        keeper = self._keeper

        def then(pieces: list[tuple[m.BlobPiece, bytes]]) -> list[Effect]:
            if not pieces:
                lost = m.BlobPiece(what.job, what.digest, what.start)
                return keeper.blob_loaded(what.job, lost, [])
            effects: list[Effect] = []
            for said, data in pieces:
                effects += keeper.blob_loaded(what.job, said, [data])
            return effects

        about = f"read a blob of job {what.job.hex()[:8]}"
        failed = partial(keeper.not_read, what.job)
        read = partial(self._files.reading.load_blob, what)
        self._in_pool(about, read, then, failed, self._feeder)

    def _read_part(self, what: ReadPart) -> None:
        assert self._files is not None

        def then(read: tuple[list[bytes], tuple[int, int], int]) -> list[Effect]:
            frames, (segment, at), damaged = read
            self._parts.end(what.peer, frames)
            part = sm.StoredPart(
                job=what.asked.job,
                segment=what.asked.segment,
                at=what.asked.at,
                next_segment=segment,
                next_at=at,
                is_all=(segment, at) >= what.stop,
                facts=what.facts,
            )
            effects: list[Effect] = [ToPeer(what.peer, part, frames)]
            return effects + (self._keeper.damaged(what.asked.job, damaged) if damaged else [])

        about = f"read outcomes of job {what.asked.job.hex()[:8]}"
        read_part = partial(self._files.reading.read_part, what)
        self._in_pool(about, read_part, then, partial(_put_off, self._parts, what))

    def _recheck(self, job: bytes) -> None:
        assert self._files is not None
        keeper, look = self._keeper, partial(self._files.reading.look_again, job)
        self._in_pool(
            f"look at the outcomes of job {job.hex()[:8]}",
            look,
            partial(keeper.rechecked, job),
            partial(keeper.rechecked, job, None),
        )


def _put_off(parts: PartReads, what: ReadPart) -> list[Effect]:
    """Have a part read later: its client must not take it for read."""
    parts.put_off(what)
    return []


class _Room:
    """Looks how much is free on the disk, beside the loop: one that hangs must not hang that."""

    def __init__(self, tell: Callable[[int], None]) -> None:
        self._tell = tell
        self._due_s = 0.0
        self._is_looking = False

    def is_due(self, now_s: float) -> bool:
        """Return whether to look now; `note` or `fail` is to follow."""
        if self._is_looking or now_s < self._due_s:
            return False
        self._is_looking, self._due_s = True, now_s + ROOM_S
        return True

    def note(self, room: int) -> list[Effect]:
        self._is_looking = False
        self._tell(room)
        return []

    def fail(self) -> list[Effect]:
        self._is_looking = False
        return []


def keeping_of(
    directory: Path,
    limits: Limits,
    core: Scheduler,
    clock_s: Callable[[], float],
    authorizer: "Authorizer | None",
) -> Keeping:
    """Return what keeps detached jobs in a directory; an authorizer knows which keys count."""

    def keys_of(tenant: str) -> list[str]:
        if authorizer is None:
            return [""]
        keys = [tenant, *(key for key, user in core.state.tenants.users.items() if user == tenant)]
        return [key for key in keys if authorizer.direction(key, Client) is not None]

    return Keeping(directory, limits, core, keys_of, clock_s)


def _call_soon(loop: asyncio.AbstractEventLoop, wake: Callable[[], None]) -> None:
    """Wake the loop from another thread; it may have ended."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(wake)
