"""Many questions to a scheduler on one connection, asked again whenever it may have been lost.

For questions that change nothing when they are asked twice. The thread that asks waits for the
answer; Ctrl-C interrupts it.
"""

import contextlib
import time
from collections.abc import Callable
from typing import Any

import zmq

from burla.protocol.codec import Reassembler, WireError, decode, encode
from burla.protocol.key_messages import ServerKey
from burla.protocol.messages import HelloRequired, Message, Refused, Welcome

from . import sockets
from .addresses import take_apart
from .client_hello import new_hello
from .descriptors import lack
from .dialing import REFUSALS, Dialer
from .keys import ClientCurve
from .reaching import silence
from .request import NoAnswer, NotTaken

POLL_MS = 100  # between two looks at keys and time
AGAIN_S = 3.0  # without a word from the scheduler: the question is asked again
ANSWER_BYTES_MAX = 1 << 36  # in pieces; it goes into memory of the asker's

IsAnswer = Callable[[Message], bool]


class Conversation:
    """A connection on which questions are asked."""

    def __init__(
        self, address: str, curve: ClientCurve | None, direction: Any, answer_s: float
    ) -> None:
        """Connect with the first question.

        Args:
            address: of the scheduler.
            curve: the keys, for a burla:// address.
            direction: the union of messages that may come.
            answer_s: how long the scheduler may be silent at first.
        """
        self._address, self._curve, self._direction = address, curve, direction
        self._answer_s = answer_s
        self._hello = new_hello()
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._dealer: zmq.Socket[bytes]
        self._dialer: Dialer | None = None
        self._reassembler = Reassembler(ANSWER_BYTES_MAX)
        self._welcome: Welcome | None = None
        self._heard_s = 0.0
        self._asked: Message | None = None  # whose answer has not been taken
        self._is_given_up = False

    @property
    def welcome(self) -> Welcome | None:
        """What the scheduler said first, the last time."""
        return self._welcome

    @property
    def endpoint(self) -> str:
        """Where the scheduler is."""
        return take_apart(self._address).endpoint

    @property
    def server(self) -> bytes:
        """The key that the scheduler has; empty where there are no keys."""
        return b"" if self._dialer is None else self._dialer.server

    def ask(self, question: Message) -> None:
        """Ask something; `wait` returns the answer."""
        if self._context is None:
            self._connect()
        self._asked = question
        if self._welcome is not None:
            self._say(question)

    def wait(
        self, is_answer: IsAnswer, feature: str, silence_s: float | None = None
    ) -> tuple[Message, list[bytes]]:
        """Return the answer to what was asked last, with its payload.

        Args:
            is_answer: tells it from others.
            feature: that the scheduler must have.
            silence_s: how long the scheduler may be silent once it has answered.

        Raises:
            NoAnswer: it is silent for too long.
            NotTaken: the answer is no, or our key or its key is not the right one.
        """
        begun_s = said_s = time.monotonic()
        met = self._welcome is not None
        while True:
            if (heard := self._hear()) is not None:
                met = True
                message, payload = heard
                if isinstance(message, Welcome):
                    self._take_welcome(message, feature)
                    said_s = time.monotonic()
                elif isinstance(message, Refused):
                    raise NotTaken(message.reason, not_authorised=message.not_authorised)
                elif isinstance(message, HelloRequired):
                    self._say(self._hello)
                elif is_answer(message):
                    self._asked = None
                    return message, payload
                continue
            if self._is_given_up:
                raise NoAnswer("nobody waits for it any more")
            now_s = time.monotonic()
            silent_s = now_s - max(begun_s, self._heard_s)
            allowed_s = self._answer_s if not met or silence_s is None else silence_s
            if silent_s > allowed_s:
                raise NoAnswer(silence(self._address, f"for {silent_s:.0f} s"))
            if silent_s > AGAIN_S and now_s - said_s > AGAIN_S:
                said_s = now_s
                self._say(self._hello)

    def give_up(self) -> None:
        """Have who waits for an answer stop soon; called in any thread."""
        self._is_given_up = True

    def close(self) -> None:
        """Hang up."""
        if self._context is None:
            return
        if self._dialer is not None:
            self._dialer.close()
        self._dealer.close(linger=0)
        self._context.term()
        self._context = None

    def _connect(self) -> None:
        if why := lack():
            raise NoAnswer(why)
        self._context = zmq.Context()
        self._dealer = sockets.make_socket(self._context, zmq.DEALER, self._curve)
        self._dealer.setsockopt(zmq.IMMEDIATE, 0)  # what is said before it is connected waits
        endpoint = take_apart(self._address).endpoint
        if self._curve is None:
            self._dealer.connect(endpoint)
        else:
            self._dialer = Dialer(self._dealer, curve=self._curve)
            self._dialer.connect(endpoint)
        self._say(self._hello)

    def _take_welcome(self, welcome: Welcome, feature: str) -> None:
        self._welcome = welcome
        self._reassembler = Reassembler(ANSWER_BYTES_MAX)
        if feature not in welcome.features:
            text = f"the scheduler is burla {welcome.version}, which cannot do that yet: an"
            text += " administrator upgrades the cluster with `burla up` of a newer one"
            raise NotTaken(text, not_authorised=False)
        if self._asked is not None:
            self._say(self._asked)

    def _say(self, message: Message) -> None:
        with contextlib.suppress(zmq.ZMQError):  # it is said again
            sockets.send(self._dealer, encode(message))

    def _hear(self) -> tuple[Message, list[bytes]] | None:
        """Return what comes next; None: nothing for a moment."""
        if self._dialer is not None:
            what = self._dialer.look()
            if what == "key" or (what == "server" and self._welcome is None):
                raise NotTaken(REFUSALS[what], not_authorised=True)
        if not self._dealer.poll(POLL_MS):
            return None
        self._heard_s = time.monotonic()
        frames = self._dealer.recv_multipart()
        try:
            message, payload = decode(frames, self._direction)
            whole = self._reassembler.add(message, payload)
        except WireError as error:
            if self._welcome is None:
                raise NoAnswer(f"what answers is not a scheduler: {error}") from None
            self._reassembler = Reassembler(ANSWER_BYTES_MAX)
            return None
        if whole is None:
            return None
        if isinstance(whole[0], ServerKey) and self._dialer is not None:
            self._dialer.learn(whole[0])
        return whole
