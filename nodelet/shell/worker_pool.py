"""The agent's handle on the zygote and the workers of this machine; for an asyncio loop.

How it is used (all from the loop's thread; no method blocks):

    workers = WorkerPool(owner, launch)
    await workers.start()                      # the zygote runs
    workers.prepare(2)                         # blanks, forked ahead, refilled after each lease
    workers.begin_lease(function, settings)    # one lease at a time
    workers.load_worker()                      # -> owner.tell([Loaded(worker, ...)])
    workers.assign(AssignSpan(worker, ...))    # -> owner.tell([Reported(worker, ...)])*
    stolen = workers.steal(worker, cell, middle)   # what the slate says
    await workers.end_lease(); await workers.close()  # all its processes are gone

Order. What a worker printed before an outcome is told before the outcome. A death is told after all
that the worker wrote before it.

Decides nothing: which worker does what, and what its words are worth, is the core's. Whoever uses
this never sees a pickle, a descriptor or a pid.
"""

import asyncio
import os
import signal
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import count
from typing import Protocol, assert_never

from burla.nodelet.core.effects import AssignSpan
from burla.nodelet.core.events import (
    Copied,
    Died,
    Ending,
    Loaded,
    LoadFailed,
    NotCopied,
    Printed,
    Reported,
    TemplateServes,
    WorkerEvent,
    WorkerState,
)
from burla.nodelet.worker import control as c
from burla.nodelet.worker.dumps import take_dump
from burla.nodelet.worker.pipes import Flag, Frame, Kind, Message, pack
from burla.nodelet.worker.slate import PAGES, AgentSlate, Memory
from burla.protocol.deaths import BROKEN, CLOSED
from burla.protocol.messages import NOTICE
from burla.protocol.ranges import Range

from .devices import Devices
from .input_files import Opened
from .launching import Launch, Launched, launch_zygote
from .observer import Observer
from .preloading import IDLE_S, IMPORT_S, Preloading
from .traffic import Traffic
from .worker_handle import Carrying, WorkerHandle, make_handle, report_of
from .zygote_client import ZygoteClient

REFILL_S = 0.5  # after a blank died for no reason that we know
REST_S = 0.02  # after a lease, while half of the blanks are left: the next may begin at once
CLOSED_S = 0.1  # from the end of a worker's files, when it dies, to its own
KILLED: Ending = ("signal", signal.SIGKILL)
# of which faulthandler tells more
CRASHES: tuple[Ending, ...] = tuple(
    ("signal", number)
    for number in (signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT)
)
NOTICE_BYTES_MAX = 4 << 10  # a worker's word, which goes on as it is
IDLE = (WorkerState.BLANK, WorkerState.PRELOADER)  # they are of no lease
OUTCOMES = (Kind.NOTHING, Kind.RESULTS, Kind.RESULT, Kind.ERROR)


class _Load:
    """What the workers of a lease load, and how."""

    def __init__(
        self,
        function: Sequence[Frame],
        settings: c.LoadSettings,
        files: Sequence[Opened],
        gpus: int,
    ) -> None:
        """Be for all workers alike, unless `gpus` are for each."""
        self.gpus = gpus
        self._function, self._settings, self._files = function, settings, files
        self._for_all = self._pack(settings)

    def packed(self, own: Mapping[str, str]) -> list[Frame]:
        """Return the LOAD message of a worker; `own`: variables that only it has."""
        if not own:
            return self._for_all
        variables = {**self._settings.variables, **own}
        return self._pack(self._settings._replace(variables=variables))

    def _pack(self, settings: c.LoadSettings) -> list[Frame]:
        load = pack(Message(Kind.LOAD, frames=[c.encode(settings), *self._function]))
        if self._files:
            load[0] = Carrying(load[0], self._files)
        return load


class Owner(Protocol):
    """Whoever a `WorkerPool` tells what happens, from the loop, one call at a time."""

    def tell(self, events: Sequence[WorkerEvent]) -> None:
        """Take what has happened, in order."""

    def busy(self) -> Collection[int]:
        """Return the workers that have something to run."""

    def on_zygote_death(self) -> None:
        """No worker can be had any more (their deaths are told before): end the nodelet."""


class WorkerPool:
    """The zygote and all workers of this machine."""

    def __init__(
        self,
        owner: Owner,
        launch: Launch,
        numbers: Iterator[int] | None = None,
        devices: Devices | None = None,
    ) -> None:
        """Begin with nothing.

        Args:
            owner: is told what happens.
            launch: starts the zygote.
            numbers: of workers.
            devices: GPUs, for jobs that want some.
        """
        self._owner = owner
        self._launch = launch
        self._numbers = numbers or count(1)
        self._handles: dict[int, WorkerHandle] = {}  # by number; all that are not GONE
        self._blanks_wanted = 0
        self._pages = deque(range(PAGES))  # the page freed last is used last
        self._load: _Load | None = None  # the function of the lease; None: there is none
        self._devices = devices or Devices(())
        self.preloading = Preloading(self.kill)
        self._without_device = 0  # workers that load when another has given its devices back
        self._hash_seed: int | None = None  # of its workers; None: that of the zygote
        self._shared = ""  # a directory that its workers may write to, and others cannot
        self._ended: asyncio.Future[bool] | None = None  # while a lease is ended
        self._has_started = False
        self._is_dead = True  # the zygote, or it is not born

    # --- life ---

    async def start(self, launched: Launched | None = None) -> None:
        """Start the zygote, unless it was `launched` already, and wait until it serves.

        Raises:
            RuntimeError: it does not start; what it said is on stderr.
        """
        self._loop = asyncio.get_running_loop()
        owner = self._owner
        self._traffic = Traffic(self._loop, self._understand, owner.tell, self._on_closed)
        self._zygote = ZygoteClient(self._loop, self._on_zygote, self._on_zygote_end)
        self._observer = Observer(
            self._loop, self._handles, owner.busy, owner.tell, self._zygote.seen_from_here
        )
        launched = launched or launch_zygote(self._launch)
        self._memory = Memory(launched.slates)
        try:
            await self._zygote.start(launched)
            self._has_started, self._is_dead = True, False
        finally:
            if self._is_dead:
                self._memory.close()

    async def close(self, *, at_once: bool = False) -> None:
        """End the zygote with all that is below it.

        Of a lease, outcomes and output that were written are told; deaths are not.

        `at_once`: it does not end when it is asked to.
        """
        if not self._has_started:
            return
        self._has_started, self._is_dead = False, True
        if at_once:
            self._zygote.kill()
        await self._zygote.close()
        for handle in list(self._handles.values()):
            if events := self._traffic.drain(handle):
                self._owner.tell(events)
            self._let_go(handle)
        self._observer.end()
        self._memory.close()

    def prepare(self, blanks: int) -> None:
        """Keep so many blanks ready for the next lease, now and after each lease."""
        self._blanks_wanted = blanks
        self._refill()

    # --- the lease ---

    def begin_lease(
        self,
        function: Sequence[Frame],
        settings: c.LoadSettings,
        *,
        func_ram: int = 0,
        budget: int = 0,
        hash_seed: int | None = None,
        keep: bool = False,
        gpus: int = 0,
        shared: str = "",
        files: Sequence[Opened] = (),
    ) -> None:
        """Serve a job from now on.

        Args:
            function: values.dump_function.
            settings: how it is loaded.
            func_ram: bytes that one call may use; 0: no limit.
            budget: bytes for all workers together; 0: what the machine has.
            hash_seed: of the workers, if it is not that of the zygote.
            keep: the workers go on, those that are ready and those that are made; they may be
                assigned spans at once: the first loads the function now, each of the others with
                its first span.
            gpus: of its own for each worker.
            shared: a directory that the workers may write to, however far they are shut in.
            files: of the blobs that `settings` name.
        """
        assert (self._load is not None) == keep, "one lease at a time"
        self._observer.begin_lease(func_ram, budget)
        if shared and shared != self._shared and not self._is_dead:
            self._zygote.send(c.Share(shared))
        self._hash_seed = hash_seed
        self._shared = shared
        self._load = _Load(function, settings, files, gpus)
        if not keep:
            self.preloading.begin(settings)
        for handle in self._handles.values():
            if handle.state not in IDLE:  # of a template: it is for its copies
                handle.change_function(self._load.packed(self._devices.variables(handle.number)))
        ready = [h for h in self._handles.values() if h.state is WorkerState.READY]
        for handle in ready[:1]:  # the first span is for it, and on its way
            self._traffic.send(handle, handle.take_load())

    def load_worker(self) -> None:
        """Let a blank, or a new process, load the function."""
        assert self._load is not None, "no lease"
        if not self._devices.has(self._load.gpus):
            self._without_device += 1  # one that is killed has not been reaped yet
        elif not self._is_dead:
            # one that the zygote forks after it has heard of the directory can surely write to it
            may_be_blank = self._hash_seed is None and not self._shared
            may_be_copy = self._hash_seed is None and not self._load.gpus
            preloader = self.preloading.source() if may_be_copy else None
            if preloader is not None:
                handle = self._make(self._handles[preloader])
                self.preloading.ask(handle.number)
            else:
                blanks = self._blanks() if may_be_blank else ()
                handle = next(iter(blanks), None) or self._make(None, self._hash_seed)
            self._devices.take(handle.number, self._load.gpus)
            handle.state = WorkerState.LOADING
            load = list(self._load.packed(self._devices.variables(handle.number)))
            if preloader is None:
                self._traffic.send(handle, load)
            else:  # when it is there: it may come when the lease is over, and then loads nothing
                handle.change_function(load)

    def make_template(self, worker: int) -> None:
        """Let a worker do nothing from now on but fork others."""
        if (handle := self._handles.get(worker)) is not None:
            handle.state = WorkerState.TEMPLATE
            self._traffic.send(handle, pack(Message(Kind.TEMPLATE)))

    def fork_worker(self, template: int) -> None:
        """Let a template fork a worker; `NotCopied` is told if it is gone."""
        handle = self._handles.get(template)
        if handle is not None and not self._is_dead:
            self._make(handle)
        else:
            self._owner.tell([NotCopied()])

    async def end_lease(self) -> bool:
        """Kill all processes of the lease and return when they are gone and the scratch is empty.

        Outcomes and output that were written are told before; deaths are not. Without a lease there
        is nothing to be done.

        Returns:
            Whether another lease may begin here.
        """
        if self._load is None:
            return True
        self._ended = self._loop.create_future()
        if self._is_dead:
            self._ended.set_result(False)
        else:
            kept = [handle.page for handle in self._blanks()]
            preloader = self._handles.get(self.preloading.worker or 0)
            if preloader is None:
                self._zygote.send(c.EndLease(kept))
            else:
                kept.append(preloader.page)
                self._zygote.send(c.EndLease(kept, preloader.page))
        is_clean = await self._ended
        for handle in [h for h in self._handles.values() if h.state not in IDLE]:
            if events := self._traffic.drain(handle):
                self._owner.tell(events)
            self._let_go(handle)
        self._ended = None
        self._load = None
        self._without_device = 0
        if self._is_dead or not is_clean:
            return False
        if self.preloading.end():
            # one that the zygote forks after it has heard of a shared directory, as for a lease
            blanks = () if self._shared else self._blanks()
            handle = next(iter(blanks), None) or self._make(None)
            self._traffic.send(handle, self.preloading.order(handle.number))
            handle.state = WorkerState.PRELOADER
            self._loop.call_later(IMPORT_S, self.preloading.give_up, handle.number)
        if self.preloading.worker is not None:
            self._loop.call_later(IDLE_S, self.preloading.expire, self.preloading.jobs)
        if 2 * len(self._blanks()) < self._blanks_wanted:
            self._refill()
        else:  # forking now would be in the way of a call that comes at once
            self._loop.call_later(REST_S, self._refill)
        return True

    def signal(self, worker: int, number: int, expired: int | None = None) -> None:
        """Send a signal to a worker; `expired`: the index of the call whose time is up."""
        if (handle := self._handles.get(worker)) is not None and handle.pid:
            if expired is not None:
                handle.slate.expire(expired)
            self._zygote.send(c.Signal(handle.pid, int(number)))

    def kill(self, worker: int, why: str = "") -> None:
        """Kill a worker, its process group and its descendants; `Died` follows, and says why."""
        if (handle := self._handles.get(worker)) is not None and handle.pid:
            handle.killed_for = why
            self._zygote.send(c.Kill(handle.pid))

    # --- spans ---

    def assign(self, order: AssignSpan, files: Sequence[Opened] = ()) -> None:
        """Have a worker run a span after those it has; leaves that it still has aren't sent.

        `files`: of the leaves that lie in memory, in order.
        """
        handle = self._handles.get(order.worker)
        if handle is None:  # it has just died, which is told after this
            return
        span = order.span
        flags = Flag.CAREFUL if order.careful else 0
        message = Message(Kind.SPAN, flags, order.cell, span.lo, span.hi, order.left, order.slots)
        self._traffic.send(handle, handle.open(message, order.leaves, files))
        self._observer.wake()

    def steal(self, worker: int, cell: int, middle: int) -> Range:
        """Take what a worker has not claimed from `middle` on; return [lo, hi), perhaps empty."""
        handle = self._handles.get(worker)
        return handle.slate.steal(cell, middle) if handle is not None else (middle, middle)

    # --- back-pressure ---

    def pause_reading(self, worker: int | None = None) -> None:
        """Read no outcomes and no output, so that the workers stop when their pipes are full.

        If one is named: only no outcomes of that one, until it is named again.
        """
        if worker is None:
            self._traffic.pause(self._handles.values())
        elif (handle := self._handles.get(worker)) is not None:
            self._traffic.hold(handle)

    def resume_reading(self, worker: int | None = None) -> None:
        """Read again."""
        if worker is None:
            self._traffic.resume(self._handles.values())
        elif (handle := self._handles.get(worker)) is not None:
            self._traffic.go_on(handle)

    # --- making workers ---

    def _blanks(self) -> list[WorkerHandle]:
        return [h for h in self._handles.values() if h.state is WorkerState.BLANK]

    def _refill(self) -> None:
        if not self._is_dead and self._load is None:
            for _ in range(self._blanks_wanted - len(self._blanks())):
                self._make(None)

    def _make(self, template: WorkerHandle | None, hash_seed: int | None = None) -> WorkerHandle:
        """Have the zygote, or a template, fork a worker."""
        state = WorkerState.BLANK if template is None else WorkerState.COPYING
        page = self._pages.popleft()
        slate = AgentSlate(self._memory.page(page))
        handle, fds = make_handle(next(self._numbers), page, slate, self._traffic.buffer, state)
        self._handles[handle.number] = handle
        if template is None:
            self._zygote.send(c.Fork(page, hash_seed), fds=fds)
        else:
            handle.change_function(template.load)  # what the template has loaded may be over
            # one message of a hundred bytes each: the socket has room, or the template is dead
            looks = template.state is WorkerState.PRELOADER and self.preloading.looks()
            template.send_fds(pack(Message(Kind.FORK, a=page, b=int(looks))), fds)
        for fd in fds:
            os.close(fd)
        self._traffic.watch(handle)
        return handle

    # --- what workers say ---

    def _on_closed(self, handle: WorkerHandle, is_junk: bool) -> None:
        """End a worker that wrote junk or closed its socket: it can do nothing any more.

        Whoever dies closes it as well; then the zygote tells soon what it died of.
        """
        is_asked = handle.number in self.preloading.asked
        if handle.state is WorkerState.PRELOADER:
            self.preloading.gone(handle.number)
        if handle.pid and is_junk:
            self.kill(handle.number, BROKEN)
        elif handle.pid:
            self._loop.call_later(CLOSED_S, self.kill, handle.number, CLOSED)
        elif handle.state is WorkerState.COPYING:  # its template was dropped, or has died
            self._let_go(handle)
            self._owner.tell([NotCopied()])
        elif is_asked and self._ended is None:  # the preloader has ended instead
            self.preloading.drop()
            self._let_go(handle)
            self.load_worker()

    def _understand(self, handle: WorkerHandle, messages: list[Message]) -> list[WorkerEvent]:
        """Return what messages mean; if one is junk, those before it, and close the handle."""
        events: list[WorkerEvent] = []
        reports = []
        for message in messages:
            if message.kind in OUTCOMES:
                reports.append(report_of(message))
                continue
            try:
                events += self._life_of(handle, message)
            except ValueError:
                handle.is_closed = handle.is_junk = True
                break
        if reports:
            events.append(Reported(handle.number, reports))
        return events

    def _life_of(self, handle: WorkerHandle, message: Message) -> list[WorkerEvent]:
        """Return what a message that is not about a span means.

        Raises:
            ValueError: nothing.
        """
        number = handle.number
        match Kind(message.kind), handle.state:
            case Kind.HELLO, WorkerState.COPYING if not handle.pid:
                handle.pid, handle.state = message.a, WorkerState.READY
                self._zygote.send(c.Adopt(handle.pid))
                return [Copied(number)]
            case Kind.HELLO, WorkerState.TEMPLATE if message.b:
                return [TemplateServes(number)]
            case Kind.HELLO, WorkerState.LOADING if number in self.preloading.asked:
                handle.pid = message.a
                self.preloading.gone(number)
                self._zygote.send(c.Adopt(handle.pid))
                self._traffic.send(handle, handle.take_load())
                return []
            case Kind.HELLO, WorkerState.PRELOADER if message.b:
                self.preloading.serves()
                return []
            case Kind.HELLO, _:
                return []
            case Kind.NOTICE, _:
                line = b"".join(map(bytes, message.frames))[: NOTICE_BYTES_MAX - 1]
                return [Printed(number, NOTICE, line.rstrip(b"\n") + b"\n")]
            case Kind.LOADED, WorkerState.LOADING:
                handle.state = WorkerState.READY
                self.preloading.learn(message.frames)
                return [Loaded(number, message.a / 1e9, bool(message.b))]
            case Kind.LOADED, _:
                return []
            case Kind.UNFIT, WorkerState.LOADING:
                handle.state = WorkerState.GONE
                self.preloading.unfit()
                if self._ended is None:
                    self.load_worker()
                return []
            case Kind.LOAD_FAILED, _:
                handle.state = WorkerState.GONE
                return [LoadFailed(number, [bytes(frame) for frame in message.frames])]
            case Kind.FORK_FAILED, _:
                copies = [h for h in self._handles.values() if h.page == message.a]
                for copy in copies:
                    if copy.state in (WorkerState.COPYING, WorkerState.LOADING):
                        self._on_death(copy, ("fork", message.b))
                return []
            case _:
                raise ValueError(message.kind)

    # --- deaths ---

    def _on_zygote(self, word: c.FromZygote) -> None:
        """Take what the zygote says."""
        match word:
            case c.Forked(page, pid):
                for handle in self._handles.values():
                    if handle.page == page:
                        handle.pid = pid
            case c.NotForked(page, errno):
                for handle in [h for h in self._handles.values() if h.page == page]:
                    self._on_death(handle, ("fork", errno))
            case c.Died(pid, how, status):
                for handle in [h for h in self._handles.values() if h.pid == pid]:
                    self._on_death(handle, (how, status))
            case c.Ended(is_clean):
                if self._ended is not None and not self._ended.done():
                    self._ended.set_result(is_clean)
            case c.Ready() | c.Unusable():  # first words, which the client of the zygote has taken
                pass
            case _:
                assert_never(word)

    def _on_death(self, handle: WorkerHandle, how: Ending) -> None:
        """Tell what a dead worker still wrote, then its death."""
        events = self._traffic.drain(handle)
        state, stride = handle.state, handle.stride()
        is_told = self._load is not None and self._ended is None and state not in IDLE
        if is_told:
            events += self._observer.read_memory()  # the kernel may have killed it for memory
            killed_for = handle.killed_for if how == KILLED else ""
            dump = take_dump(self._memory.fd, handle.page) if how in CRASHES else ""
            notes = handle.slate.notes()
            events.append(Died(handle.number, how, state, stride, killed_for, dump, notes))
        self._let_go(handle)
        if events:
            self._owner.tell(events)
        if state is WorkerState.BLANK:
            self._loop.call_later(REFILL_S, self._refill)  # later: it may be the same again

    def _let_go(self, handle: WorkerHandle) -> None:
        if self._handles.pop(handle.number, None) is not None:
            self.preloading.gone(handle.number)
            self._traffic.forget(handle)
            self._pages.append(handle.page)
            self._devices.give_back(handle.number)
            handle.close()
            if self._without_device and self._load is not None and self._ended is None:
                self._without_device -= 1
                self.load_worker()

    def _on_zygote_end(self) -> None:
        """End all workers, which nobody else reaps now."""
        if self._is_dead:
            return
        self._is_dead = True
        self._zygote.kill_left([h.pid for h in self._handles.values() if h.pid])
        for handle in list(self._handles.values()):
            self._on_death(handle, ("signal", signal.SIGKILL))
        self._on_zygote(c.Ended())
        self._owner.on_zygote_death()
