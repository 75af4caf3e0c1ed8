"""The agent's handle on the zygote and the workers of this machine; for an asyncio loop.

How it is used (all from the loop's thread; no method blocks):

    workers = Workers(events, scratch=directory)
    await workers.start()                      # the zygote runs
    workers.prepare(2)                         # blanks, forked ahead, refilled after each lease
    workers.begin_lease(function, settings)    # one lease at a time
    workers.add_workers(2)                     # -> events.on_ready(worker, load_s), each
    workers.deal(worker, cell, Span(batch, lo, hi), leaves, left=..., slots=...)
                                               # -> events.on_outcomes(...)*, events.on_settled(...)
    stolen = workers.steal(worker, cell, middle)   # a range that is yours again, or None
    await workers.end_lease(); await workers.close()  # all its processes are gone

Custody of indices. A dealt span is the worker's. What `steal` returns is the caller's at once. What
a worker has not run when its span is over is in `on_settled(..., lo, hi)`, what it gives back
before that in `on_given_back`; both are the caller's again, as is `lost` of a `Death`. Every index
of a span comes back exactly once, as an outcome or in one of these ways. A cell is free again after
`on_settled`.

Order. What a worker printed before an outcome is in `on_output` before that outcome is in
`on_outcomes`. A death is told after all that the worker wrote before it.

Whoever uses this never sees a pickle, a descriptor or a pid.
"""

import asyncio
import os
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path

import msgspec

from burla.nodelet.worker.pipes import BadMessageError, Frame, Kind, Leaf, Message, pack
from burla.nodelet.worker.slate import PAGES, AgentSlate, Memory, make_memory

from .spawn_policy import SpawnPolicy, Step
from .traffic import Traffic
from .watchdog import Watchdog
from .worker_events import Death, LoadSettings, Outcomes, Range, Span, WorkerEvents
from .worker_handle import State, WorkerHandle, make_link
from .zygote_client import Launch, ZygoteClient, launch_module

__all__ = ["Death", "Frame", "Leaf", "LoadSettings", "Outcomes", "Span", "WorkerPool"]

REFILL_S = 0.5  # after a blank died for no reason that we know
REST_S = 0.02  # after a lease, while half of the blanks are left: the next may begin at once


class WorkerPool:
    """The zygote and all workers of this machine."""

    def __init__(
        self,
        events: WorkerEvents,
        scratch: Path | None = None,
        launch: Launch | None = None,
        numbers: Iterator[int] | None = None,
    ) -> None:
        """Begin with nothing.

        `scratch`: a directory of ours, emptied after each lease and removed at the end. `launch`:
        starts the zygote, if not as usual. `numbers`: of workers.
        """
        self._events = events
        self._launch = launch or launch_module("zygote", str(scratch or ""))
        self._numbers = numbers or count(1)
        self._links: dict[int, WorkerHandle] = {}  # by number; all that are not GONE
        self._blanks_wanted = 0
        self._pages = deque(range(PAGES))  # the page freed last is used last
        self._lease: SpawnPolicy | None = None
        self._ended: asyncio.Future[None] | None = None
        self._has_started = False
        self._is_dead = True  # the zygote, or it is not born

    # --- life ---

    async def start(self) -> None:
        """Start the zygote and wait until it serves.

        Raises:
            RuntimeError: it does not start; what it said is on stderr.
        """
        self._loop = asyncio.get_running_loop()
        self._traffic = Traffic(self._loop, self._take, self._events.on_output, self._on_closed)
        self._zygote = ZygoteClient(self._loop, self._on_zygote, self._on_zygote_end, self._launch)
        looks = (self._signal, self._events.on_memory, self._zygote.seen_from_here)
        self._lookout = Watchdog(self._loop, self._links, *looks)
        slates = make_memory()
        self._memory = Memory(slates)
        try:
            await self._zygote.start(slates)
            self._has_started, self._is_dead = True, False
        finally:
            os.close(slates)
            if self._is_dead:
                self._memory.close()

    async def close(self) -> None:
        """End the lease, if there is one, and the zygote with all that is below it."""
        if not self._has_started:
            return
        self._has_started = False
        if self._lease is not None and not self._is_dead:
            await self.end_lease()
        self._is_dead = True
        await self._zygote.close()
        for link in list(self._links.values()):
            self._let_go(link)
        self._lookout.end()
        self._memory.close()

    def prepare(self, blanks: int) -> None:
        """Keep so many blanks ready for the next lease, now and after each lease."""
        self._blanks_wanted = blanks
        self._refill()

    # --- the lease ---

    def begin_lease(
        self,
        function: Sequence[Frame],
        settings: LoadSettings,
        *,
        use_template: bool = True,
        keep: bool = False,
    ) -> None:
        """Serve a job from now on: its function (values.dump_function) and how it is loaded.

        With `keep` the workers that are ready go on, and may be dealt spans at once: the first
        loads the function now, each of the others with its first span.
        """
        assert (self._lease is not None) == keep, "one lease at a time"
        if self._lease is not None and (template := self._lease.template) is not None:
            self.kill(template.number)
        self._lookout.begin_lease(settings)
        frames = [msgspec.msgpack.encode(settings), *function]
        self._lease = SpawnPolicy(pack(Message(Kind.LOAD, frames=frames)), use_template)
        ready = [link for link in self._links.values() if link.state == State.READY]
        self._lease.wanted += len(ready)
        for link in ready:
            link.change_function(self._lease.load)
        for link in ready[:1]:  # the first span is for it, and on its way
            self._traffic.send(link, link.take_load())

    def add_workers(self, count: int) -> None:
        """Make `count` more workers of the lease; `on_ready` or `on_death` tells of each.

        A worker that dies is not replaced but by another call of this.
        """
        lease = self._lease
        assert lease is not None, "no lease"
        lease.wanted += count
        self._advance(lease)

    def drop_template(self) -> None:
        """Make no more workers from a template in this lease: each loads the function itself."""
        lease = self._lease
        assert lease is not None, "no lease"
        if lease.template is not None:
            self.kill(lease.template.number)
        lease.drop_template()
        self._advance(lease)

    async def end_lease(self) -> None:
        """Kill all processes of the lease and return when they are gone and the scratch is empty.

        Outcomes and output that were written are told before; there is no `on_death`.
        """
        lease = self._lease
        assert lease is not None, "no lease"
        lease.is_ending = True
        if not self._is_dead:
            self._ended = self._loop.create_future()
            blanks = [link.page for link in self._blanks()]
            self._zygote.send("end", blanks)
            await self._ended
        self._ended = None
        for link in [link for link in self._links.values() if link.state != State.BLANK]:
            self._traffic.drain(link)
            self._let_go(link)
        self._lease = None
        if 2 * len(self._blanks()) < self._blanks_wanted:
            self._refill()
        else:  # forking now would be in the way of a call that comes at once
            self._loop.call_later(REST_S, self._refill)

    def interrupt(self, worker: int) -> None:
        """Raise KeyboardInterrupt in the call that this worker is in."""
        self._signal(worker, signal.SIGINT)

    def kill(self, worker: int) -> None:
        """Kill a worker, its process group and its descendants; `on_death` follows."""
        link = self._links.get(worker)
        if link is not None and link.pid:
            self._zygote.send("kill", link.pid)

    # --- spans ---

    def deal(
        self,
        worker: int,
        cell: int,
        span: Span,
        leaves: Sequence[Leaf],
        *,
        left: int,
        slots: int,
        careful: bool = False,
    ) -> None:
        """Have a worker run a span after those it has.

        Args:
            worker: it is ready, or (if it need not become the template) still loading.
            cell: what the caller calls this span; not used before for this worker.
            span: what to run.
            leaves: all that `span` lies in, ascending; those that the worker still has aren't sent.
            left: inputs of the job that are dealt to nobody yet.
            slots: how many calls of the job run at once; with `left` it bounds a stride.
            careful: strides of one, so that a death blames an index.
        """
        link = self._links[worker]
        assert leaves[0].lo <= span.lo < span.hi <= leaves[-1].hi, (span, leaves[0], leaves[-1])
        buffers = link.open(cell, span, leaves, left=left, slots=slots, careful=careful)
        self._traffic.send(link, buffers)
        self._lookout.wake()

    def steal(self, worker: int, cell: int, middle: int) -> Range | None:
        """Take away [lo, hi), lo >= middle, what a worker has not claimed; None: nothing."""
        link = self._links.get(worker)
        return link.steal(cell, middle) if link is not None else None

    # --- back-pressure ---

    def pause_reading(self) -> None:
        """Read no outcomes and no output, so that the workers stop when their pipes are full."""
        self._traffic.pause(self._links.values())

    def resume_reading(self) -> None:
        """Read again."""
        self._traffic.resume(self._links.values())

    # --- making workers ---

    def _blanks(self) -> list[WorkerHandle]:
        return [link for link in self._links.values() if link.state == State.BLANK]

    def _refill(self) -> None:
        if not self._is_dead and self._lease is None:
            for _ in range(self._blanks_wanted - len(self._blanks())):
                self._make(None)

    def _make(self, template: WorkerHandle | None) -> WorkerHandle:
        """Have the zygote, or a template, fork a worker."""
        state = State.BLANK if template is None else State.COPYING
        page = self._pages.popleft()
        slate = AgentSlate(self._memory.page(page))
        link, fds = make_link(next(self._numbers), page, slate, self._traffic.buffer, state)
        self._links[link.number] = link
        if template is None:
            self._zygote.send("fork", page, fds=fds)
        else:
            # one message of a hundred bytes each: the socket has room, or the template is dead
            template.send_fds(pack(Message(Kind.FORK, a=page)), fds)
        for fd in fds:
            os.close(fd)
        self._traffic.watch(link)
        return link

    def _advance(self, lease: SpawnPolicy) -> None:
        """Make as many workers as are wanted, as far as can be done now."""
        while not self._is_dead and (step := lease.next_step(self._links.values())) is not None:
            if step == Step.COPY:
                self._make(lease.template)
            else:
                self._load(lease)

    def _load(self, lease: SpawnPolicy) -> None:
        link = next(iter(self._blanks()), None) or self._make(None)
        link.state = State.LOADING
        self._traffic.send(link, list(lease.load))

    def _on_loaded(self, link: WorkerHandle, load_ns: int, may_fork: bool) -> None:
        lease = self._lease
        if lease is None or lease.is_ending or link.state not in (State.LOADING, State.COPYING):
            return
        if link.state == State.LOADING and lease.take_template(
            link, load_ns, may_fork, self._links.values()
        ):
            self._traffic.send(link, pack(Message(Kind.TEMPLATE)))
            return
        link.state = State.READY
        link.was_ready = True
        self._events.on_ready(link.number, load_ns / 1e9)
        if self._lease is lease:
            self._advance(lease)

    # --- what workers say ---

    def _on_closed(self, link: WorkerHandle) -> None:
        """End a worker that closed its socket or wrote junk: it can do nothing any more."""
        if link.pid:
            self.kill(link.number)
        elif link.state == State.COPYING:  # nobody's death: its template was dropped, or has died
            self._let_go(link)
            if self._lease is not None:
                self.drop_template()

    def _take(self, link: WorkerHandle, message: Message) -> None:
        match message.kind:
            case Kind.NOTHING | Kind.RESULTS | Kind.RESULT | Kind.ERROR:
                link.tell(message, self._events)
            case Kind.HELLO if message.b and link.state == State.TEMPLATE:
                if self._lease is not None:
                    self._lease.template_serves = True
                    self._advance(self._lease)
            case Kind.HELLO:
                lease = self._lease
                if link.state == State.COPYING and not link.pid and lease and not lease.is_ending:
                    link.pid = message.a
                    self._zygote.send("adopt", link.pid)
                    self._on_loaded(link, 0, False)
            case Kind.LOADED:
                self._on_loaded(link, message.a, bool(message.b))
            case Kind.LOAD_FAILED:
                self._traffic.drain_output(link)
                link.state = State.GONE
                if self._lease is not None:
                    self._lease.wanted -= 1
                self._events.on_load_failed(link.number, message.frames)
            case Kind.FORK_FAILED:
                for copy in list(self._links.values()):
                    if copy.page == message.a and copy.state == State.COPYING:
                        self._on_death(copy, ("fork", message.b))
            case _:
                raise BadMessageError(repr(message[:7]))

    # --- deaths ---

    def _on_zygote(self, what: list[object]) -> None:
        """Take what the zygote says."""
        match what:
            case ["forked", int(page), int(pid)]:
                for link in self._links.values():
                    if link.page == page:
                        link.pid = pid
            case ["not forked", int(page), int(number)]:
                for link in [link for link in self._links.values() if link.page == page]:
                    self._on_death(link, ("fork", number))
            case ["died", int(pid), str(how), int(status)]:
                for link in [link for link in self._links.values() if link.pid == pid]:
                    self._on_death(link, (how, status))
            case ["ended"]:
                if self._ended is not None and not self._ended.done():
                    self._ended.set_result(None)
            case _:
                raise AssertionError(what)

    def _on_death(self, link: WorkerHandle, how: tuple[str, int]) -> None:
        """Tell what a dead worker still wrote, then its death."""
        link.died = how
        self._traffic.drain(link)
        lease = self._lease
        is_told = link.state in (State.LOADING, State.COPYING, State.READY)
        if lease is not None and lease.template is link:
            lease.drop_template()
        death = link.death()
        self._let_go(link)
        if lease is None or lease.is_ending:
            self._loop.call_later(REFILL_S, self._refill)  # later: it may be the same again
            return
        if is_told:
            self._lookout.see_death(how)
            lease.wanted -= 1
            self._events.on_death(link.number, death)
        if self._lease is lease:
            self._advance(lease)

    def _let_go(self, link: WorkerHandle) -> None:
        if self._links.pop(link.number, None) is not None:
            self._traffic.forget(link)
            self._pages.append(link.page)
            link.close()

    def _on_zygote_end(self) -> None:
        """End all workers, which nobody else reaps now."""
        if self._is_dead:
            return
        self._is_dead = True
        self._zygote.kill_left([link.pid for link in self._links.values() if link.pid])
        for link in list(self._links.values()):
            self._on_death(link, ("signal", signal.SIGKILL))
        self._on_zygote(["ended"])
        self._events.on_zygote_death()

    def _signal(self, worker: int, number: int) -> None:
        if (link := self._links.get(worker)) is not None and link.pid:
            self._zygote.send("signal", link.pid, int(number))
