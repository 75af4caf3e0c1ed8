"""The shell around the sessions: a thread that owns the sockets, one per process and address.

The thread that calls never touches a socket or a session: it leaves commands in a queue, rings a
bell and waits for events. So Ctrl-C can interrupt it anywhere and tears no message. This file
carries out what connection.py decides, and decides nothing.
"""

import logging
import math
import threading
from collections.abc import Callable, Sequence
from typing import Any, assert_never

import zmq

from burla.core.commands import Close, Command
from burla.core.connection import SILENCE_S, Connection
from burla.core.effects import (
    Broken,
    Deliver,
    DetachWanted,
    Effect,
    Fail,
    Finish,
    ForCaller,
    Forget,
    Frames,
    Held,
    Lacking,
    Rejected,
    ReportHanging,
    ReportRetried,
    ReportWaiting,
    Send,
    Slots,
    Status,
    Subscribe,
    Warn,
    Write,
)
from burla.core.session import Session
from burla.errors import ClusterError
from burla.protocol import messages as m
from burla.protocol.codec import Reassembler, WireError, decode, encode, split
from burla.protocol.key_messages import ServerKey
from burla.transport.addresses import take_apart
from burla.transport.clock import AwakeClock
from burla.transport.dialing import REFUSALS, Dialer
from burla.transport.keys import ClientCurve
from burla.transport.sockets import Outbox, make_socket, take_in_place
from burla.transport.threads import leave_signals
from burla.values.rooms import rooms

from .command_queue import CommandQueue, LocalError, OpenSession, Reached
from .output_channel import OutputChannel

UNFINISHED_BYTES_MAX = 64 << 30  # a result in pieces must fit into the caller's memory, not here
FAILED_LOOK_S = 0.25  # how often we look whether the private cluster's daemons still run
CLOSE_S = 1.0  # at exit: to tell the scheduler that the jobs are over
LINGER_MS = 500  # of that, for the socket to send it

log = logging.getLogger(__name__)

Tell = Callable[[ForCaller | LocalError], None]


class IoThread:
    """The sockets to one cluster, and the thread that owns them."""

    def __init__(
        self,
        hello: m.ClientHello,
        address: str,
        failed: Callable[[float], str | None] | None,
        answer_s: float,
        curve: ClientCurve | None = None,
        silence_s: float = SILENCE_S,
    ) -> None:
        """Connect, without waiting for it.

        Args:
            hello: who we are.
            address: of the scheduler.
            failed: says what happened if the cluster is known to be gone; told for how long it has
                been silent.
            answer_s: how long a job waits for the first answer.
            curve: the keys, for a burla:// address.
            silence_s: how long the scheduler may be silent after that.
        """
        self.address = address
        self.is_private = failed is not None
        self._endpoint = take_apart(address).endpoint
        self._failed, self._answer_s = failed, answer_s
        self._commands = CommandQueue()
        self._gate = threading.Lock()  # held while a job is opened or the thread ends
        self._closed = False
        self._closing = False
        self._jobs: dict[bytes, Tell] = {}
        self._opened = self._ended = 0  # jobs; idle if equal
        self._outbox = Outbox()
        self._reassembler = Reassembler(UNFINISHED_BYTES_MAX)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._dealer = make_socket(self._context, zmq.DEALER, curve)
        self._output = OutputChannel(self._context, self._endpoint, curve)
        self._clock_s = AwakeClock()  # until the thread starts, then only that reads it
        self._dialer = Dialer(self._dealer, self._clock_s, curve) if curve is not None else None
        self._connection = Connection(hello, answer_s, self._clock_s(), silence_s)
        self._thread = threading.Thread(target=self._run, name="burla-io", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # the interpreter is about to end
            self._close_sockets()
            raise

    # --- for any thread ---

    def open(self, session: Session, tell: Tell) -> bool:
        """Begin a job, with the next `post` that rings; return False if there is no more room.

        Args:
            session: of the job; from now on only our thread touches it.
            tell: told in our thread what the caller is to do or know.
        """
        with self._gate:
            if self.is_closed():
                return False
            self._opened += 1
            self._commands.post(OpenSession(session, tell), ring=False)  # inputs follow
        return True

    def post(self, command: Command | Reached, *, ring: bool = True) -> None:
        """Have a command carried out in the thread that owns the sessions."""
        self._commands.post(command, ring=ring)

    def ring(self) -> None:
        """Have the thread look at what was posted."""
        self._commands.ring()

    def close(self) -> bool:
        """End all jobs and the thread, within a bounded time; return whether it has ended."""
        self._closing = True
        self._commands.ring()
        self._thread.join(CLOSE_S)
        return not self._thread.is_alive()

    def close_if_idle(self) -> bool:
        """Take no jobs any more if none is open; return whether that is so."""
        with self._gate:
            if self._opened != self._ended and not self._closed:
                return False
            self._closing = True
        return self.close()

    def is_closed(self) -> bool:
        """Return whether it takes no jobs any more."""
        return self._closed or self._closing or self._connection.refused is not None

    # --- in the thread ---

    def _run(self) -> None:
        leave_signals()
        reason: BaseException = ClusterError("this process is about to end")
        try:
            self._serve()
        except BaseException as error:  # the callers must not wait for a thread that is gone
            log.exception("the thread of the connection to %s failed", self.address)
            reason = error
        finally:
            self._end(reason)

    def _serve(self) -> None:
        """Take what comes, in turns: each asks once when the next thing is due."""
        poller = zmq.Poller()
        if self._dialer is None:
            self._dealer.connect(self._endpoint)
        else:
            self._dialer.connect(self._endpoint)
            poller.register(self._dialer.socket, zmq.POLLIN)
        poller.register(self._output.socket, zmq.POLLIN)
        poller.register(self._commands.fileno(), zmq.POLLIN)
        polled = 0  # what we wait for on the DEALER
        look_s = 0.0
        self._carry_out(self._connection.start())
        while not self._closing and self._connection.refused is None:
            wanted = _IN_OUT if self._outbox.waiting else _IN
            if wanted != polled:
                polled = wanted
                poller.register(self._dealer, polled)
            due_s, now_s = self._connection.next_deadline_s(), self._clock_s()
            if now_s >= due_s:
                rooms.drop_old()
                self._carry_out(self._connection.expire(now_s))
                continue
            if self._failed is not None and self._jobs:
                due_s = min(due_s, look_s)
            if self._dialer is not None and (redial_s := self._dialer.due_s()) is not None:
                due_s = min(due_s, redial_s)
            ready = poller.poll(max(0, math.ceil((due_s - now_s) * 1000)))
            self._take_turn(dict(ready))
            if self._failed is not None and self._jobs and self._clock_s() >= look_s:
                look_s = self._clock_s() + FAILED_LOOK_S
                self._end_if_failed()
        self._carry_out(self._connection.close_all())
        self._outbox.flush(self._dealer)

    def _take_turn(self, ready: dict[Any, int]) -> None:
        """Take what waits on the sockets that are ready, and then what was posted."""
        if self._outbox.waiting:
            self._outbox.flush(self._dealer)
        if self._dealer in ready:
            self._take_messages()
        if self._dialer is not None:
            self._look_at(self._dialer)
        if self._output.socket in ready:
            for message, chunks in self._output.take():
                self._carry_out(self._connection.hear_of_job(message, chunks, self._clock_s()))
        if self._commands.silence():
            self._obey()  # last: `wait_sent` gives us time for all of it

    def _look_at(self, dialer: Dialer) -> None:
        """Connect anew if it is time to; give up if the scheduler never will take this key."""
        what = dialer.look()
        # whom a scheduler knows waits for it, whatever answers meanwhile: a tunnel may hang up
        if what == "key" or (what == "server" and not self._connection.has_met()):
            refused = m.Refused(REFUSALS[what], not_authorised=True)
            self._carry_out(self._connection.refuse(refused))

    def _end_if_failed(self) -> None:
        if self._failed is None:
            return
        if (why := self._failed(self._connection.silent_s(self._clock_s()))) is not None:
            self._closing = True  # before anybody hears of it and calls again
            self._obey()
            self._carry_out(self._connection.break_all(why))

    def _obey(self) -> None:
        for posted in self._commands.take():
            match posted:
                case OpenSession():
                    self._jobs[posted.session.id] = posted.tell
                    self._output.follow(posted.session)
                    self._carry_out(self._connection.open(posted.session, self._clock_s()))
                case Reached():
                    posted.lock.release()
                case Close():
                    self._carry_out(self._connection.handle(posted, self._clock_s()))
                    self._forget_job(posted.job)
                case _:
                    self._carry_out(self._connection.handle(posted, self._clock_s()))

    def _take_messages(self) -> None:
        for frames in take_in_place(self._dealer):
            try:
                said, payload = decode(frames, m.SchedulerToClient)
                if not isinstance(said, m.JobOutcomes) or said.fragment is None:
                    payload = list(map(bytes, payload))  # the caller's thread frees these
                whole = self._reassembler.add(said, payload)
            except WireError as error:
                log.warning("ignored what came from %s: %s", self.address, error)
                continue
            if whole is not None:
                message: Any = whole[0]
                if isinstance(message, ServerKey) and self._dialer is not None:
                    self._dialer.learn(message)
                self._carry_out(self._connection.receive(message, whole[1], self._clock_s()))

    def _carry_out(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send():
                    self._send(effect.message, effect.payload)
                case Deliver() | Slots() | Status() | Lacking() | Write() | Warn():
                    self._jobs[effect.job](effect)
                case DetachWanted() | Held():
                    self._jobs[effect.job](effect)
                case ReportWaiting() | ReportHanging() | ReportRetried():
                    self._jobs[effect.job](effect)
                case Finish() | Fail() | Broken() | Rejected():
                    tell = self._jobs[effect.job]
                    self._forget_job(effect.job)
                    tell(effect)
                case Subscribe():
                    server = self._dialer.server if self._dialer is not None else b""
                    self._output.connect(effect.publisher, server)
                case Forget():
                    self._outbox = Outbox()
                    self._reassembler = Reassembler(UNFINISHED_BYTES_MAX)
                case _:
                    assert_never(effect)

    def _send(self, message: m.Message, payload: Frames) -> None:
        if isinstance(message, m.Heartbeat) and self._outbox.waiting:
            return  # nothing listens, or what waits shows that we live
        pieces: Sequence[tuple[m.Message, Frames]] = [(message, payload)]
        if isinstance(message, m.Bulk):
            pieces = split(message, payload)
        for piece, frames in pieces:
            self._outbox.send(self._dealer, encode(piece, frames))

    def _forget_job(self, job: bytes) -> None:
        if self._jobs.pop(job, None) is not None:
            self._ended += 1
            self._output.leave(job)

    def _end(self, reason: BaseException) -> None:
        with self._gate:
            self._closed = True
        try:
            self._obey()  # who was refused or broken is told so, also the last who came
            self._end_if_failed()
        finally:
            for tell in self._jobs.values():
                tell(LocalError(reason))
            rooms.clear()  # who looks after them has gone
            self._close_sockets()

    def _close_sockets(self) -> None:
        if self._dialer is not None:
            self._dialer.close()
        self._output.socket.close(0)
        self._dealer.close(LINGER_MS)
        self._context.term()
        self._commands.close()


_IN, _IN_OUT = int(zmq.POLLIN), int(zmq.POLLIN | zmq.POLLOUT)
