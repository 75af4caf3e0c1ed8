"""What people ask a cluster about itself: one question on a connection of its own."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import zmq

from burla.wire import messages as m
from burla.wire import sockets
from burla.wire.addresses import take_apart
from burla.wire.codec import WireError, decode, encode
from burla.wire.sockets import REFUSALS, Handshakes

from .clients import curve_for, new_hello
from .config import CLUSTER_VARIABLE, cluster_address
from .errors import BadSetting, ClusterUnreachable, NotAuthorised, Refused

POLL_MS = 50  # between two looks whether the keys are refused
ANSWER_S = 5.0  # a scheduler answers within milliseconds
GB = 1 << 30


def list_nodes() -> list[m.NodeStatus]:
    """Return the nodes of the configured cluster.

    Raises:
        BadSetting: no cluster is configured.
        ClusterUnreachable: nothing answers.
        NotAuthorised: it does not take our key, or has not the one that it should have.
        Refused: it does not answer us.
    """
    address = cluster_address()
    if address is None:
        raise BadSetting(
            CLUSTER_VARIABLE, None, "the address of a cluster, as `burla up` prints it"
        )
    with _connected(address) as (dealer, handshakes):
        sockets.send(dealer, encode(new_hello()))
        for message in _answers(dealer, handshakes, address):
            match message:
                case m.Welcome():
                    sockets.send(dealer, encode(m.ListNodes()))
                case m.Refused():
                    raise (NotAuthorised if message.not_authorised else Refused)(message.reason)
                case m.Nodes():
                    return list(message.nodes)
                case _:
                    pass
    raise AssertionError("the answers have no end")


def as_table(nodes: list[m.NodeStatus]) -> str:
    """Return lines for people, with a heading."""
    rows = [("NAME", "ISOLATION", "CPUS", "RAM", "PYTHON", "STATE", "JOB")]
    for node in nodes:
        ram = f"{node.ram / GB:.4g} GB"
        state = node.state.value
        rows.append((node.name, node.isolation, str(node.cpus), ram, node.python, state, node.job))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


@contextmanager
def _connected(address: str) -> Iterator[tuple[zmq.Socket[bytes], Handshakes]]:
    curve = curve_for(address)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    dealer = sockets.make_socket(context, zmq.DEALER, curve)
    dealer.setsockopt(zmq.IMMEDIATE, 0)  # what is said before it is connected waits
    handshakes = Handshakes(dealer)
    try:
        dealer.connect(take_apart(address).endpoint)
        yield dealer, handshakes
    finally:
        handshakes.close()
        dealer.close(linger=0)
        context.term()


def _answers(
    dealer: zmq.Socket[bytes], handshakes: Handshakes, address: str
) -> Iterator[m.Message]:
    """Yield what the scheduler says.

    Raises:
        ClusterUnreachable: it says nothing (more).
        NotAuthorised: our key, or its key, is not the right one.
    """
    until = time.monotonic() + ANSWER_S
    while time.monotonic() < until:
        if (what := handshakes.refusal()) is not None:
            raise NotAuthorised(REFUSALS[what])
        if dealer.poll(POLL_MS):
            try:
                yield decode(dealer.recv_multipart(), m.SchedulerToClient)[0]
            except WireError as error:
                raise ClusterUnreachable(
                    address, f"what answers is no scheduler: {error}"
                ) from None
    raise ClusterUnreachable(address, f"no answer within {ANSWER_S:.0f} s")
