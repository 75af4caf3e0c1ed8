"""One question to a scheduler, on a connection of its own, and its answer."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import zmq

from burla.protocol.codec import WireError, decode, encode
from burla.protocol.messages import Message, Refused, Welcome

from . import sockets
from .addresses import take_apart
from .client_hello import new_hello
from .dialing import REFUSALS, Dialer
from .keys import ClientCurve, KeyPair

A = TypeVar("A", bound=Message)
POLL_MS = 50  # between two looks whether the keys are refused
ANSWER_S = 5.0  # a scheduler answers within milliseconds


class NoAnswer(Exception):
    """Nothing answers, or it is no scheduler; says which."""


class NotTaken(Exception):
    """The scheduler answers no."""

    def __init__(self, why: str, *, not_authorised: bool) -> None:
        """Keep whether it is a matter of keys."""
        super().__init__(why)
        self.not_authorised = not_authorised


def ask(
    address: str,
    pair: KeyPair | None,
    question: Message,
    answer: type[A],
    direction: Any,
) -> A:
    """Return what the scheduler answers.

    Args:
        address: of the scheduler.
        pair: the keys of who asks, for a burla:// address.
        question: is asked after the Welcome.
        answer: the message that answers it.
        direction: the union of messages that may come.

    Raises:
        NoAnswer: nothing answers within `ANSWER_S`.
        NotTaken: the answer is no, or our key or its key is not the right one.
    """
    with _connected(address, pair) as (dealer, dialer):
        sockets.send(dealer, encode(new_hello()))
        for said in _answers(dealer, dialer, direction):
            match said:
                case Welcome():
                    sockets.send(dealer, encode(question))
                case Refused():
                    raise NotTaken(said.reason, not_authorised=said.not_authorised)
                case answer():
                    return said
                case _:
                    pass
    raise AssertionError("the answers have no end")


@contextmanager
def _connected(address: str, pair: KeyPair | None) -> Iterator[tuple[zmq.Socket[bytes], Dialer]]:
    where = take_apart(address)
    curve = ClientCurve(pair, where.key) if pair is not None and where.key is not None else None
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    dealer = sockets.make_socket(context, zmq.DEALER, curve)
    dealer.setsockopt(zmq.IMMEDIATE, 0)  # what is said before it is connected waits
    dialer = Dialer(dealer)
    try:
        dialer.connect(where.endpoint)
        yield dealer, dialer
    finally:
        dialer.close()
        dealer.close(linger=0)
        context.term()


def _answers(dealer: zmq.Socket[bytes], dialer: Dialer, direction: Any) -> Iterator[Message]:
    until = time.monotonic() + ANSWER_S
    while time.monotonic() < until:
        if (what := dialer.look()) is not None:
            raise NotTaken(REFUSALS[what], not_authorised=True)
        if dealer.poll(POLL_MS):
            try:
                yield decode(dealer.recv_multipart(), direction)[0]
            except WireError as error:
                raise NoAnswer(f"what answers is not a scheduler: {error}") from None
    raise NoAnswer(f"no answer within {ANSWER_S:.0f} s")
