"""One question to a scheduler, on a connection of its own, and its answer."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import zmq

from burla.protocol.codec import WireError, decode, encode
from burla.protocol.key_messages import ServerKey
from burla.protocol.messages import Message, Refused, Welcome

from . import sockets
from .addresses import take_apart
from .client_hello import new_hello
from .descriptors import lack
from .dialing import REFUSALS, Dialer
from .keys import ClientCurve, KeyPair, Replaced
from .reaching import silence

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
    answer_s: float | None = None,
    known: Replaced | None = None,
    feature: str = "",
) -> A:
    """Return what the scheduler answers.

    Args:
        address: of the scheduler.
        pair: the keys of who asks, for a burla:// address.
        question: is asked after the Welcome.
        answer: the message that answers it.
        direction: the union of messages that may come.
        answer_s: how long to wait for it; None: `ANSWER_S`.
        known: what may be in the place of the scheduler's key.
        feature: that the scheduler must have for this question.

    Raises:
        NoAnswer: nothing answers within `answer_s`.
        NotTaken: the answer is no, or our key or its key is not the right one.
    """
    answer_s = ANSWER_S if answer_s is None else answer_s
    with _connected(address, pair, known) as (dealer, dialer):
        sockets.send(dealer, encode(new_hello()))
        for said in _answers(address, dealer, dialer, direction, answer_s):
            match said:
                case Welcome():
                    if feature and feature not in said.features:
                        text = f"the scheduler is burla {said.version}, which cannot do that yet: "
                        text += (
                            "an administrator upgrades the cluster with `burla up` of a newer one"
                        )
                        raise NotTaken(text, not_authorised=False)
                    sockets.send(dealer, encode(question))
                case Refused():
                    raise NotTaken(said.reason, not_authorised=said.not_authorised)
                case answer():
                    return said
                case _:
                    pass
    raise AssertionError("the answers have no end")


def greet(
    address: str,
    pair: KeyPair | None,
    direction: Any,
    answer_s: float,
    known: Replaced | None = None,
) -> Welcome:
    """Return how the scheduler welcomes who says Hello; see `ask`.

    Raises:
        NoAnswer: nothing answers within `answer_s`.
        NotTaken: the answer is no, or our key or its key is not the right one.
    """
    with _connected(address, pair, known) as (dealer, dialer):
        sockets.send(dealer, encode(new_hello()))
        for said in _answers(address, dealer, dialer, direction, answer_s):
            match said:
                case Welcome():
                    return said
                case Refused():
                    raise NotTaken(said.reason, not_authorised=said.not_authorised)
                case _:
                    pass
    raise AssertionError("the answers have no end")


@contextmanager
def _connected(
    address: str, pair: KeyPair | None, known: Replaced | None
) -> Iterator[tuple[zmq.Socket[bytes], Dialer]]:
    where = take_apart(address)
    if why := lack():
        raise NoAnswer(why)
    curve = None
    if pair is not None and where.key is not None:
        curve = ClientCurve(pair, where.key, known)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    dealer = sockets.make_socket(context, zmq.DEALER, curve)
    dealer.setsockopt(zmq.IMMEDIATE, 0)  # what is said before it is connected waits
    dialer = Dialer(dealer, curve=curve)
    try:
        dialer.connect(where.endpoint)
        yield dealer, dialer
    finally:
        dialer.close()
        dealer.close(linger=0)
        context.term()


def _answers(
    address: str, dealer: zmq.Socket[bytes], dialer: Dialer, direction: Any, answer_s: float
) -> Iterator[Message]:
    until = time.monotonic() + answer_s
    while time.monotonic() < until:
        if (what := dialer.look()) is not None:
            raise NotTaken(REFUSALS[what], not_authorised=True)
        if dealer.poll(POLL_MS):
            try:
                said = decode(dealer.recv_multipart(), direction)[0]
            except WireError as error:
                raise NoAnswer(f"what answers is not a scheduler: {error}") from None
            if isinstance(said, ServerKey):
                dialer.learn(said)
            else:
                yield said
    raise NoAnswer(silence(address, f"within {answer_s:.0f} s"))
