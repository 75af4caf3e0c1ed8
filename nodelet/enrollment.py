"""How a machine becomes a node of a cluster with keys: a one-time token for a key of its own.

The token is the secret half of a key that the scheduler knows for ten minutes. So it never goes
over the wire, nobody without one gets so far as to say a word, and what joins knows whom it meets.
"""

import time

import zmq

from burla.protocol import messages as m
from burla.protocol.codec import WireError, decode, encode
from burla.transport import sockets
from burla.transport.dialing import REFUSALS, Dialer
from burla.transport.keys import ClientCurve
from burla.transport.reaching import why_unreachable

JOIN_S = 30.0  # the scheduler may be starting just now
POLL_MS = 100


class NotJoinedError(Exception):
    """The machine is no node of the cluster; the text says why."""


class NoAnswerError(Exception):
    """Nothing answers at the address."""


def join(endpoint: str, curve: ClientCurve, key: bytes, name: str) -> bytes:
    """Make `key` known to the scheduler as a node's; return the scheduler's first key, or nothing.

    Args:
        endpoint: of the scheduler.
        curve: its public key, and the keys that the join token stands for.
        key: this node's public key.
        name: of this node, for people.

    Raises:
        NotJoinedError: the token was used, has expired, or is none; or the address is wrong.
        NoAnswerError: the scheduler does not answer.
    """
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    dealer = sockets.make_socket(context, zmq.DEALER, curve)
    dialer = Dialer(dealer, curve=curve)
    try:
        dialer.connect(endpoint)
        question = encode(m.Join(m.PROTOCOL, key, name))
        return _wait_joined(dealer, dialer, question, endpoint)
    finally:
        dialer.close()
        dealer.close(0)
        context.term()


def _wait_joined(
    dealer: zmq.Socket[bytes], dialer: Dialer, question: list[bytes], endpoint: str
) -> bytes:
    until_s = time.monotonic() + JOIN_S
    asked = False
    while time.monotonic() < until_s:
        asked = asked or sockets.send(dealer, question)
        dealer.poll(POLL_MS)
        for frames in sockets.take(dealer):
            try:
                said, _ = decode(frames, m.SchedulerToJoining)
            except WireError:
                continue
            if isinstance(said, m.Joined):
                return said.first_key
            raise NotJoinedError(said.reason)
        match dialer.look():
            case "key":
                raise NotJoinedError("the join token is unknown, already used, or expired")
            case "server":
                raise NotJoinedError(REFUSALS["server"])
            case None:
                pass
    why = why_unreachable(endpoint)
    waited = f"no answer from {endpoint} within {JOIN_S:.0f} s"
    raise NoAnswerError(f"{waited}; {why}" if why else waited)
