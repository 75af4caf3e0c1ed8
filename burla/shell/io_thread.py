"""The shell around the sessions: a thread that owns the sockets, one per process and address.

The thread that calls never touches a socket or a session: it leaves commands in a queue, rings a
bell and waits for events. So Ctrl-C can interrupt it anywhere and tears no message. This file
carries out what connection.py decides, and decides nothing.
"""

import logging
import math
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, assert_never

import zmq

from burla.core.connection import (
    Broken,
    Connection,
    ConnectionEffect,
    Forget,
    ForJob,
    Rejected,
    Subscribe,
)
from burla.core.effects import (
    Deliver,
    Effect,
    Fail,
    Finish,
    Frames,
    ReportWaiting,
    Send,
    Warn,
    Write,
)
from burla.core.session import Session
from burla.errors import ClusterError
from burla.protocol import messages as m
from burla.protocol.codec import Reassembler, WireError, decode, encode, split
from burla.transport.addresses import publisher_endpoint, take_apart
from burla.transport.keys import ClientCurve
from burla.transport.sockets import REFUSALS, Handshakes, Outbox, make_socket, send, take

from .job import Job, LocalError
from .progress import lost_line, waiting_line

UNFINISHED_BYTES_MAX = 64 << 30  # a result in pieces must fit into the caller's memory, not here
FAILED_LOOK_S = 0.25  # how often we look whether the private cluster's daemons still run
CLOSE_S = 1.0  # at exit: to tell the scheduler that the jobs are over
LINGER_MS = 500  # of that, for the socket to send it
IDLE_TOPICS_MAX = 8  # of jobs that are over: still followed, for the next ones of a loop of maps

log = logging.getLogger(__name__)


Command = tuple[Job, Callable[[Session, float], list[Effect]] | Session]


class IoThread:
    """The sockets to one cluster, and the thread that owns them."""

    def __init__(
        self,
        hello: m.ClientHello,
        address: str,
        failed: Callable[[], str | None] | None,
        answer_s: float,
        curve: ClientCurve | None = None,
    ) -> None:
        """Connect, without waiting for it.

        Args:
            hello: who we are.
            address: of the scheduler.
            failed: says what happened if the cluster is known to be gone.
            answer_s: how long a job waits for the first answer.
            curve: the keys, for a burla:// address.
        """
        self.address = address
        self._endpoint = take_apart(address).endpoint
        self._failed, self._answer_s = failed, answer_s
        self._commands: deque[Command] = deque()
        self._rung = False
        self._bell, self._bell_in = socket.socketpair()
        self._bell.setblocking(False)
        self._bell_in.setblocking(False)
        self._gate = threading.Lock()  # held while a job is opened or the client closes
        self._closed = False
        self._closing = False
        self._jobs: dict[bytes, Job] = {}
        self._topics: dict[bytes, bytes] = {}
        self._idle_topics: list[bytes] = []
        self._publisher = ""
        self._outbox = Outbox()
        self._joiner = Reassembler(UNFINISHED_BYTES_MAX)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._dealer = make_socket(self._context, zmq.DEALER, curve)
        self._sub = make_socket(self._context, zmq.SUB, curve)
        self._handshakes = Handshakes(self._dealer) if curve is not None else None
        self._link = Connection(hello, answer_s, time.monotonic())
        self._thread = threading.Thread(target=self._run, name="burla-io", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # the interpreter is about to end
            self._close_sockets()
            raise

    # --- for any thread ---

    def open(self, job: Job, session: Session) -> bool:
        """Begin a job, with the next `post`; return False if this client takes no more."""
        with self._gate:
            if self.is_closed():
                return False
            self._commands.append((job, session))
        return True  # without ringing: inputs follow

    def post(
        self, job: Job, event: Callable[[Session, float], list[Effect]], *, ring: bool = True
    ) -> None:
        """Let something happen to the session of a job, in the thread that owns it."""
        self._commands.append((job, event))
        if ring:
            self.ring()

    def close(self) -> bool:
        """End all jobs and the thread, within a bounded time; return whether it has ended."""
        self._closing = True
        self.ring()
        self._thread.join(CLOSE_S)
        return not self._thread.is_alive()

    def is_closed(self) -> bool:
        """Return whether it takes no jobs any more."""
        return self._closed or self._closing or self._link.refused is not None

    def ring(self) -> None:
        """Have the thread look at what was posted."""
        if not self._rung:
            self._rung = True
            try:
                self._bell_in.send(b"\0")
            except OSError:  # it has been rung often enough, or the thread has ended
                return

    # --- in the thread ---

    def _run(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # for the main thread
        trouble: BaseException = ClusterError("this process is about to end")
        try:
            self._serve()
        except BaseException as error:  # the callers must not wait for a thread that is gone
            log.exception("the thread of the connection to %s failed", self.address)
            trouble = error
        finally:
            self._end(trouble)

    def _serve(self) -> None:
        self._dealer.connect(self._endpoint)
        poller = zmq.Poller()
        if self._handshakes is not None:
            poller.register(self._handshakes.socket, zmq.POLLIN)
        poller.register(self._sub, zmq.POLLIN)
        poller.register(self._bell.fileno(), zmq.POLLIN)
        look_s = 0.0
        self._carry_out(self._link.start())
        while not self._closing and self._link.refused is None:
            poller.register(self._dealer, zmq.POLLIN | (zmq.POLLOUT if self._outbox else 0))
            now_s = time.monotonic()
            due_s = self._link.next_deadline_s()
            if self._failed is not None and self._jobs:
                due_s = min(due_s, look_s)
            poller.poll(max(0, math.ceil((due_s - now_s) * 1000)))
            self._outbox.flush(self._dealer)
            self._take_messages()
            if self._handshakes is not None and (what := self._handshakes.refusal()):
                self._carry_out(self._link.refuse(m.Refused(REFUSALS[what], not_authorised=True)))
            self._take_output()
            self._take_commands()  # last: `wait_sent` gives us time for all of it
            now_s = time.monotonic()
            if now_s >= self._link.next_deadline_s():
                self._carry_out(self._link.expire(now_s))
            if self._failed is not None and self._jobs and now_s >= look_s:
                look_s = now_s + FAILED_LOOK_S
                self._end_if_failed()
        self._carry_out(self._link.close_all(time.monotonic()))
        self._outbox.flush(self._dealer)

    def _end_if_failed(self) -> None:
        if self._failed is not None and (why := self._failed()) is not None:
            self._closing = True  # before anybody hears of it and calls again
            self._obey()
            self._carry_out(self._link.break_all(why))

    def _take_commands(self) -> None:
        if not self._rung:
            return
        try:
            self._bell.recv(4096)
        except BlockingIOError:  # about to be rung
            return
        self._rung = False  # before looking: who comes later rings again
        self._obey()

    def _obey(self) -> None:
        while self._commands:
            job, command = self._commands.popleft()
            now_s = time.monotonic()
            if isinstance(command, Session):
                self._jobs[job.id] = job
                self._follow_topic(command)
                self._carry_out(self._link.open(command, now_s))
            else:
                self._carry_out(self._link.tell(job.id, command, now_s))
                self._forget_closed(job.id)

    def _follow_topic(self, session: Session) -> None:
        """Follow the topic of a job, or give it one that was an earlier job's and is followed.

        To subscribe and unsubscribe costs the scheduler half of what a small job does.
        """
        if self._idle_topics:
            session.topic = self._idle_topics.pop()
        else:
            self._sub.setsockopt(zmq.SUBSCRIBE, session.topic)
        self._topics[session.id] = session.topic

    def _take_messages(self) -> None:
        for frames in take(self._dealer):
            try:
                whole = self._joiner.add(*decode(frames, m.SchedulerToClient))
            except WireError as error:
                log.warning("ignored what came from %s: %s", self.address, error)
                continue
            if whole is not None:
                message: Any = whole[0]
                self._carry_out(self._link.receive(message, whole[1], time.monotonic()))

    def _take_output(self) -> None:
        for topic, *frames in take(self._sub):
            try:
                message, chunks = decode(frames, m.JobOutput)
            except WireError as error:
                log.warning("ignored output from %s: %s", self._publisher, error)
                continue
            if self._topics.get(message.job) == topic:
                self._carry_out(self._link.publish(message, chunks, time.monotonic()))

    def _carry_out(self, effects: list[ConnectionEffect]) -> None:
        for effect in effects:
            match effect:
                case ForJob():
                    self._hand_to(self._jobs[effect.job], effect.effect)
                case Broken() | Rejected():
                    self._jobs[effect.job].events.put(effect)
                    self._forget_closed(effect.job)
                case Subscribe():
                    self._follow(effect.publisher)
                case Forget():
                    self._outbox, self._joiner = Outbox(), Reassembler(UNFINISHED_BYTES_MAX)
                case Send():
                    self._send(effect.message, effect.payload)
                case _:
                    assert_never(effect)

    def _follow(self, publisher: str) -> None:
        publisher = publisher_endpoint(publisher, self._endpoint)
        if publisher == self._publisher:
            return  # libzmq reconnects by itself, and says the topics again
        try:
            if self._publisher:
                self._sub.disconnect(self._publisher)
            self._sub.connect(publisher)
            self._publisher = publisher
        except zmq.ZMQError as error:
            log.warning("no output can come from %r: %s", publisher, error)

    def _hand_to(self, job: Job, effect: Effect) -> None:
        match effect:
            case Write():
                job.printer.put(effect)
            case Warn():
                job.printer.put(lost_line(job.name, effect.text))
            case ReportWaiting():
                if job.spinner:
                    job.printer.put(waiting_line(job.name, effect.text))
            case Finish() | Fail():
                self._forget_closed(job.id)
                job.events.put(effect)
            case Deliver():
                job.events.put(effect)
            case Send():
                self._send(effect.message, effect.payload)
            case _:
                assert_never(effect)

    def _send(self, message: m.Message, payload: Frames) -> None:
        if isinstance(message, m.Heartbeat) and self._outbox:
            return  # nobody is there, or it is clear that we live
        pieces: Sequence[tuple[m.Message, Frames]] = [(message, payload)]
        if isinstance(message, m.Bulk):
            pieces = split(message, payload)
        for piece, frames in pieces:
            encoded = encode(piece, frames)
            if self._outbox or not send(self._dealer, encoded):
                self._outbox.put(encoded)

    def _forget_closed(self, job_id: bytes) -> None:
        if job_id not in self._link.sessions and self._jobs.pop(job_id, None) is not None:
            self._idle_topics.append(self._topics.pop(job_id))
            if len(self._idle_topics) > IDLE_TOPICS_MAX:
                self._sub.setsockopt(zmq.UNSUBSCRIBE, self._idle_topics.pop(0))

    def _end(self, trouble: BaseException) -> None:
        with self._gate:
            self._closed = True
        try:
            self._obey()  # who was refused or broken is told so, also the last who came
            self._end_if_failed()
        finally:
            for job in self._jobs.values():
                job.events.put(LocalError(trouble))
            self._close_sockets()

    def _close_sockets(self) -> None:
        if self._handshakes is not None:
            self._handshakes.close()
        self._sub.close(0)
        self._dealer.close(LINGER_MS)
        self._context.term()
        self._bell.close()
        self._bell_in.close()
