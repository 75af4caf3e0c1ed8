"""The nodelet shell: DEALER socket, clock and workers around the core. Decides nothing.

Everything happens in one loop: the task in `serve` waits for the scheduler and the clock; what
workers do comes in callbacks (`on_...`). Each is fed to the core, whose effects are carried out at
once.
"""

import asyncio
import contextlib
import logging
import os
import signal
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, assert_never

import zmq

from burla.nodelet.config import NodeletConfig, usable_ram
from burla.nodelet.core.effects import (
    AddWorkers,
    BeginLease,
    DealSpan,
    DropTemplate,
    Effect,
    EndWorkers,
    Heard,
    Interrupt,
    KeepBlanks,
    Kill,
    Leave,
    Note,
    PauseReading,
    Quit,
    ResumeReading,
    Send,
    Steal,
)
from burla.nodelet.core.memory_policy import Reading
from burla.nodelet.core.nodelet import Nodelet
from burla.nodelet.worker import pipes
from burla.protocol import VERSION
from burla.protocol import messages as m
from burla.protocol.codec import Reassembler, WireError, decode, encode, split
from burla.transport import sockets
from burla.transport.sockets import Handshakes, Outbox, SocketWaiter

from .sandbox_pool import SandboxPool
from .worker_pool import Death, Frame, Leaf, LoadSettings, Outcomes, Span, WorkerPool

UNFINISHED_BYTES_MAX = 4 << 30  # of messages in pieces; one input may be big
LEAVE_SIGNAL = signal.SIGUSR1  # finish what runs, take nothing more, end
RETRY_S = 0.05  # what the socket did not take is tried again; its FD usually tells sooner
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
KINDS = {
    pipes.Kind.RESULTS: m.Kind.RESULTS,
    pipes.Kind.RESULT: m.Kind.RESULT,
    pipes.Kind.ERROR: m.Kind.ERROR,
}

log = logging.getLogger(__name__)


class NotAcceptedError(Exception):
    """The scheduler does not take this nodelet; the text is what it said."""


class NotAuthorisedError(NotAcceptedError):
    """The scheduler does not take this nodelet's key."""


async def run(config: NodeletConfig) -> None:
    """Offer this machine to the scheduler until cancelled or done leaving; leave nothing behind.

    Raises:
        NotAcceptedError: the scheduler refuses it.
        RuntimeError: workers cannot be had (any more).
    """
    scratch = Path(tempfile.mkdtemp(prefix="burla-node-", dir=config.scratch))
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    curve = config.curve()
    dealer = sockets.make_socket(context, zmq.DEALER, curve)
    handshakes = Handshakes(dealer) if curve is not None else None
    agent = Agent(config, dealer, scratch, handshakes=handshakes)
    try:
        asyncio.get_running_loop().add_signal_handler(LEAVE_SIGNAL, agent.leave)
        await agent.serve()
    finally:
        if config.ready_file is not None:
            config.ready_file.unlink(missing_ok=True)
        await agent.close()
        if handshakes is not None:
            handshakes.close()
        dealer.close(linger=0)
        context.term()


class Agent:
    """Drives a core with what the scheduler says and what the workers do."""

    def __init__(
        self,
        config: NodeletConfig,
        dealer: zmq.Socket[bytes],
        scratch: Path,
        clock_s: Callable[[], float] = time.monotonic,
        handshakes: Handshakes | None = None,
    ) -> None:
        """Serve the scheduler that `dealer` will be connected to."""
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
        )
        self._config, self._dealer, self._clock_s = config, dealer, clock_s
        self._handshakes = handshakes
        self._has_met = False  # the scheduler took our key once
        self._core = Nodelet(hello)
        self._budget = config.ram if config.ram < usable_ram() else 0
        self._rooms = SandboxPool(self, scratch, config.tier, config.confinement)
        self._joiner = Reassembler(UNFINISHED_BYTES_MAX)
        self._outbox = Outbox()
        self._events: deque[Callable[[float], list[Effect]]] = deque()
        self._is_feeding = False
        self._slots = 1  # of the lease
        self._wake_s: float | None = None  # when `serve` looks at the clock; None: it does not wait
        self._failure: Exception | None = None
        self._left = False  # it was asked to leave, and is done
        self._ending: asyncio.Task[None] | None = None

    async def serve(self) -> None:
        """Take, decide, carry out; until cancelled.

        Raises:
            NotAcceptedError: the scheduler refuses it.
            RuntimeError: workers cannot be had (any more).
        """
        await self._rooms.start()
        self._watch = SocketWaiter(self._dealer)
        try:
            self._feed(self._core.start)
            self._dealer.connect(self._config.endpoint())
            while self._failure is None and not self._left:
                await self._watch.wait_readable(self._wait_s())
                self._wake_s = None
                self._outbox.flush(self._dealer)
                for frames in sockets.take_in_place(self._dealer):
                    self._receive(frames)
                self._look_at_handshakes()
                if self._clock_s() >= self._core.next_deadline_s():
                    self._feed(self._core.expire)
            if self._failure is not None:
                raise self._failure
        finally:
            self._watch.close()

    async def close(self) -> None:
        """End all workers."""
        if self._ending is not None:
            await asyncio.wait([self._ending])
        await self._rooms.close()

    @property
    def _workers(self) -> WorkerPool:
        return self._rooms.current

    def _wait_s(self) -> float:
        now_s = self._clock_s()
        self._wake_s = self._core.next_deadline_s()
        if self._outbox:
            self._wake_s = min(self._wake_s, now_s + RETRY_S)
        return self._wake_s - now_s

    def _look_at_handshakes(self) -> None:
        """Give up if the scheduler never will take this key, which libzmq does not say."""
        what = self._handshakes.refusal() if self._handshakes is not None else None
        # who has served a scheduler waits for it to come back, whatever answers there meanwhile
        if what == "key" or (what == "server" and not self._has_met):
            self._fail(NotAuthorisedError(sockets.REFUSALS[what]))

    def _receive(self, frames: list[bytes]) -> None:
        self._has_met = True
        try:
            said = self._joiner.add(*decode(frames, m.SchedulerToNodelet))
        except WireError as error:
            log.warning("ignored a frame of the scheduler: %s", error)
            return
        if said is not None:
            message: Any = said[0]
            self._feed(lambda now_s: self._core.receive(message, said[1], now_s))

    def _feed(self, event: Callable[[float], list[Effect]]) -> None:
        """Let the core take one event; one that comes while effects are carried out waits."""
        self._events.append(event)
        if self._is_feeding:
            return
        self._is_feeding = True
        try:
            while self._events:
                self._carry_out(self._events.popleft()(self._clock_s()))
        finally:
            self._is_feeding = False
        if self._wake_s is not None and self._core.next_deadline_s() < self._wake_s:
            self._watch.wake()

    # --- effects ---

    def _carry_out(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send():
                    self._send(effect.message, effect.payload)
                case DealSpan():
                    self._deal(effect)
                case Steal():
                    self._steal(effect)
                case KeepBlanks():
                    self._rooms.prepare(effect.count)
                case BeginLease():
                    self._begin_lease(effect)
                case AddWorkers():
                    self._workers.add_workers(effect.count)
                case DropTemplate():
                    self._workers.drop_template()
                case PauseReading():
                    self._workers.pause_reading()
                case ResumeReading():
                    self._workers.resume_reading()
                case Interrupt():
                    self._workers.interrupt(effect.worker)
                case Kill():
                    self._workers.kill(effect.worker)
                case EndWorkers():
                    self._ending = asyncio.create_task(self._end_workers())
                case Note():
                    log.info("%s", effect.text)
                case Quit():
                    kind = NotAuthorisedError if effect.not_authorised else NotAcceptedError
                    self._fail(kind(effect.reason))
                case Heard():
                    self._note_heard()
                case Leave():
                    self._left = True
                    self._watch.wake()
                case _:
                    assert_never(effect)

    def _note_heard(self) -> None:
        """Make or touch the file by which others see that the scheduler answers."""
        if self._config.ready_file is not None:
            with contextlib.suppress(OSError):  # a full disk is no reason to stop working
                self._config.ready_file.touch(mode=0o600)

    def leave(self) -> None:
        """Take no more work, and end when what was begun is done and delivered."""
        self._feed(self._core.leave)

    def _send(self, message: m.Message, payload: Sequence[Frame]) -> None:
        if isinstance(message, m.Heartbeat) and self._outbox:
            return  # nobody is there; or all the rest says that we live
        pieces: Sequence[tuple[m.Message, Sequence[Any]]] = [(message, payload)]
        if isinstance(message, m.Bulk):
            pieces = split(message, payload)  # type: ignore[arg-type]  # any buffer can be sent
        for piece, frames in pieces:
            encoded = encode(piece, frames)
            if self._outbox or not sockets.send(self._dealer, encoded):
                self._outbox.put(encoded)
        if self._wake_s is not None and (self._outbox or self._watch.readable()):
            self._watch.wake()  # a send may eat the sign that something has come

    def _begin_lease(self, effect: BeginLease) -> None:
        start = effect.start
        self._slots = start.slots
        settings = LoadSettings(
            unpack=start.unpack,
            environment=start.environment,
            variables={"BURLA_JOB_ID": start.job.hex(), "BURLA_NODE": self._config.name},
            func_cpu=start.func_cpu,
            node=self._config.name,
            func_ram=start.func_ram or 0,
            ram=self._budget,
        )
        self._workers.begin_lease(effect.function, settings, keep=effect.keep)

    def _deal(self, effect: DealSpan) -> None:
        span = effect.span
        leaves = [
            Leaf(leaf.batch, leaf.start, leaf.start + leaf.count, tuple(frames))
            for leaf, frames in effect.leaves
        ]
        self._workers.deal(
            effect.worker,
            effect.cell,
            Span(span.batch, span.lo, span.hi),
            leaves,
            left=effect.left,
            slots=self._slots,
            careful=effect.careful,
        )

    def _steal(self, effect: Steal) -> None:
        worker, cell, middle = effect.worker, effect.cell, effect.middle
        lo, hi = self._workers.steal(worker, cell, middle) or (middle, middle)
        # at once, before anything else is fed in
        self._carry_out(self._core.stolen(worker, cell, lo, hi, self._clock_s()))

    async def _end_workers(self) -> None:
        try:
            await self._rooms.end_lease()
        except Exception as error:
            log.exception("the workers of a lease cannot be ended")
            self._fail(error)
            return
        self._ending = None
        self._feed(self._core.ended)

    def _fail(self, error: Exception) -> None:
        self._failure = self._failure or error
        self._watch.wake()

    # --- what workers do ---

    def on_ready(self, worker: int, load_s: float) -> None:
        """Take in a worker; see `WorkerEvents`, also for the others."""
        self._feed(lambda now_s: self._core.ready(worker, now_s, is_copy=not load_s))

    def on_load_failed(self, worker: int, frames: Sequence[Frame]) -> None:
        """The function cannot be loaded."""
        said = [bytes(frame) for frame in frames]
        self._feed(lambda now_s: self._core.load_failed(worker, said, now_s))

    def on_outcomes(self, worker: int, outcomes: Outcomes) -> None:
        """Calls have returned or raised."""
        frames = outcomes.frames
        run = m.Run(outcomes.lo, outcomes.hi, KINDS[outcomes.kind], len(frames))
        seconds = outcomes.seconds
        cell = outcomes.cell
        self._feed(
            lambda now_s: self._core.ran(worker, cell, run, frames, seconds, now_s)  # type: ignore[arg-type]  # any buffer
        )

    def on_given_back(self, worker: int, cell: int, lo: int, hi: int) -> None:
        """The worker will not run [lo, hi)."""
        self._feed(lambda now_s: self._core.given_back(worker, cell, lo, now_s))

    def on_settled(self, worker: int, cell: int, lo: int, hi: int) -> None:
        """A span is over."""
        self._feed(lambda now_s: self._core.settled(worker, cell, now_s))

    def on_output(self, worker: int, stream: int, data: bytes) -> None:
        """Something was printed."""
        self._feed(lambda now_s: self._core.printed(worker, stream, data, now_s))

    def on_death(self, worker: int, death: Death) -> None:
        """A worker ended."""
        how, ready, running = death.how, death.ready, death.running
        self._feed(lambda now_s: self._core.died(worker, how, ready, running, now_s))

    def on_memory(self, reading: Reading) -> None:
        """The memory was looked at."""
        self._feed(lambda now_s: self._core.memory(reading, now_s))

    def on_zygote_death(self) -> None:
        """No worker can be had any more."""
        self._fail(RuntimeError("the process that forks the workers is gone"))
