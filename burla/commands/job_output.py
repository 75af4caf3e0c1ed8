"""What calls of a job have printed, read from the scheduler; and what they print, as it comes.

It is read part by part. Who follows subscribes to a topic of its own as well; what comes there fits
behind what was read by its place, and what was missed is read again from there.
"""

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import zmq

from burla.errors import ClusterUnreachable, NotAuthorised, Refused
from burla.protocol import admin_messages as am
from burla.protocol.codec import WireError, decode
from burla.protocol.messages import NOTICE, STDERR, STDOUT, Message
from burla.protocol.output_messages import FOLLOW_S, OUTPUT, KeptOutput, OutputPart, ReadOutput
from burla.shell.curves import curve_for
from burla.transport import sockets
from burla.transport.addresses import publisher_endpoint
from burla.transport.conversation import Conversation
from burla.transport.keys import ClientCurve
from burla.transport.request import NoAnswer, NotTaken

from .admin import NoJob

ANSWER_S = 5.0  # how long the scheduler may take to say its first word
SILENCE_S = 120.0  # who follows waits so long for a scheduler that is started anew
TICK_S = 0.2  # while nothing comes, who reads hears so every now and then
# What is published before our subscription has arrived is missed: it is asked for soon, later less.
ASK_AGAIN_S = (0.2, 0.5, 1.0, 2.0)
RENEW_S = 5.0
assert RENEW_S < FOLLOW_S / 2
STREAMS = {STDOUT: "stdout", STDERR: "stderr", NOTICE: "notice"}


@dataclass(frozen=True, slots=True)
class Printed:
    """A chunk of output."""

    job: str
    place: int  # in the output of the job
    lease: bytes  # chunks of one lease, one stream and one node follow each other
    node: str
    stream: str  # of STREAMS
    time_s: float  # when the scheduler got it, as Unix time
    inputs: tuple[int, int] | None  # it is of one of [lo, hi); None: not known
    data: bytes


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Bytes of output that are not kept: they were neither the first nor the last of the job."""

    job: str
    bytes: int


def output_of(
    address: str, job: str, *, follow: bool = False, after: int = 0
) -> Iterator[Printed | LeftOut | None]:
    """Yield what a job has printed; None, while nothing comes, about five times a second.

    Args:
        address: of the cluster.
        job: the first digits of its id; empty: the one that was opened last.
        follow: go on until the job is over.
        after: the place of the first chunk that is wanted.

    Raises:
        NoJob: there is none.
        ClusterUnreachable: nothing answers.
        NotAuthorised: it does not accept our key, or has another one than its address says.
        Refused: it does not answer us.
    """
    reader = _Reader(address, job, after)
    try:
        yield from reader.follow() if follow else reader.read()
    except NoAnswer as error:
        raise ClusterUnreachable(address, str(error)) from None
    except NotTaken as error:
        raise (NotAuthorised if error.not_authorised else Refused)(str(error)) from None
    finally:
        reader.close()


class _Reader:
    def __init__(self, address: str, job: str, after: int) -> None:
        self._address, self._job, self._due = address, job[:256], after
        self._curve = curve_for(address)
        self._line = Conversation(address, self._curve, am.SchedulerToAdmin, ANSWER_S)
        self._topic = b""
        self._channel: _Channel | None = None

    def close(self) -> None:
        self._line.close()
        if self._channel is not None:
            self._channel.close()

    def read(self) -> Iterator[Printed | LeftOut]:
        """Yield all that there is."""
        while True:
            answer, payload = self._ask()
            yield from self._take(answer, payload)
            if self._due >= answer.stop or not answer.parts:
                return

    def follow(self) -> Iterator[Printed | LeftOut | None]:
        """Yield all that there is, and what comes until the job is over."""
        answer, payload = self._ask()
        yield from self._take(answer, payload)
        self._topic = os.urandom(16)
        self._channel = channel = _Channel(self._address, self._curve, self._topic)
        asks = iter(ASK_AGAIN_S)
        is_over, ask_s = answer.is_over, 0.0
        while not (is_over and self._due >= answer.stop):
            if time.monotonic() >= ask_s:
                channel.connect(self._line)
                while True:  # all that is there, while that lasts
                    answer, payload = self._ask()
                    yield from self._take(answer, payload)
                    if self._due >= answer.stop or not answer.parts:
                        break
                is_over = answer.is_over
                if is_over:
                    return
                ask_s = time.monotonic() + next(asks, RENEW_S)
            said = channel.wait(min(TICK_S, max(0.0, ask_s - time.monotonic())))
            if said is None:
                yield None
                continue
            answer, payload = said
            if answer.is_over or (answer.parts and answer.parts[0].place > self._due):
                ask_s = 0.0  # it is over, or something was missed
            else:
                yield from self._take(answer, payload)

    def _ask(self) -> tuple[KeptOutput, list[bytes]]:
        self._line.ask(ReadOutput(self._job, self._due, self._topic))
        silence_s = SILENCE_S if self._topic else None
        answer, payload = self._line.wait(_is_answer, OUTPUT, silence_s)
        assert isinstance(answer, KeptOutput)
        if not answer.job or answer.why:
            raise NoJob(answer.why)
        self._job = answer.job.hex()
        return answer, payload

    def _take(self, answer: KeptOutput, payload: Sequence[bytes]) -> Iterator[Printed | LeftOut]:
        after = self._due
        self._due = next_place(answer, after)
        yield from printed_in(answer, payload, after)


def next_place(answer: KeptOutput, after: int) -> int:
    """Return the place behind what an answer has, to ask for what comes then."""
    return max([after, *(part.place + len(part.streams) for part in answer.parts)])


def printed_in(
    answer: KeptOutput, payload: Sequence[bytes], after: int
) -> Iterator[Printed | LeftOut]:
    """Yield the chunks of an answer from place `after` on, and what is not kept before them."""
    job, now_s, at = answer.job.hex(), time.time(), 0
    for part in answer.parts:
        if part.place > after and answer.lost_bytes:
            yield LeftOut(job, answer.lost_bytes)
        count = len(part.streams)
        for number, data in enumerate(payload[at : at + count]):
            if part.place + number >= after:
                yield _printed(job, part, number, data, now_s)
        at += count
        after = max(after, part.place + count)


def _printed(job: str, part: OutputPart, number: int, data: bytes, now_s: float) -> Printed:
    inputs = part.inputs[number] if number < len(part.inputs) else None
    if inputs is not None and inputs[0] >= inputs[1]:
        inputs = None
    return Printed(
        job,
        part.place + number,
        part.lease,
        part.node,
        STREAMS[part.streams[number]],
        now_s - part.ago_s,
        inputs,
        data,
    )


def _is_answer(message: Message) -> bool:
    return isinstance(message, KeptOutput)


class _Channel:
    """The socket on which output is published."""

    def __init__(self, address: str, curve: ClientCurve | None, topic: bytes) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = sockets.make_socket(self._context, zmq.SUB, curve)
        self._socket.setsockopt(zmq.SUBSCRIBE, topic)
        self._address = address
        self._connected = ("", b"")

    def connect(self, line: Conversation) -> None:
        """Follow the publisher of the scheduler that welcomed us last."""
        if line.welcome is None:
            return
        publisher = publisher_endpoint(line.welcome.publisher, line.endpoint)
        if (publisher, line.server) == self._connected:
            return
        if self._connected[0]:
            self._socket.disconnect(self._connected[0])
        if line.server:
            self._socket.setsockopt(zmq.CURVE_SERVERKEY, line.server)
        self._socket.connect(publisher)
        self._connected = publisher, line.server

    def wait(self, wait_s: float) -> tuple[KeptOutput, list[bytes]] | None:
        """Return what comes next; None: nothing for a while."""
        if not self._socket.poll(int(wait_s * 1000)):
            return None
        _, *frames = self._socket.recv_multipart()
        try:
            return decode(frames, KeptOutput)
        except WireError:
            return None

    def close(self) -> None:
        self._socket.close(linger=0)
        self._context.term()
