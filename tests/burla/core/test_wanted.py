"""What a session sends when it is asked for it: parts of big inputs, or batches whole."""

import pytest
from opening import client_hello, open_job

from burla.core.commands import AddBatch
from burla.core.connection import Connection
from burla.core.effects import Fail, Send
from burla.core.session import Session
from burla.protocol import messages as m
from burla.protocol.input_messages import INPUTS
from burla.protocol.store_messages import STORE, STORE_SIZES

JOB, LEASE = b"j" * 16, b"1" * 16
SPEC = open_job(JOB, b"t" * 16)


class BigLeaf:
    """A leaf that is asked for."""

    size = 3 << 20

    def read(self, start: int, stop: int) -> list[bytes]:
        return [b"x" * (stop - start)]

    def frames(self) -> list[bytes]:
        return [b"whole"]


def test_big_inputs_go_whole_to_a_scheduler_that_does_not_know_better() -> None:
    session = Session(SPEC, [b"function"], True)
    announced = m.Inputs(job=JOB, batch=0, start=0, leaves=(m.Leaf(0, 0, 1, 0, 3 << 20),))
    whole = m.Inputs(job=JOB, batch=0, start=0, leaves=(m.Leaf(0, 0, 1, 1),))
    session.connect(0, takes_sizes=True)
    add = AddBatch(JOB, [(1, BigLeaf())], 3 << 20)
    assert session.handle(add, 0) == [Send(announced, [])]
    assert session.send_wanted(m.BatchWanted(JOB, 0)) == [Send(whole, [b"whole"])]
    asked = m.InputWanted(LEASE, JOB, 0, 0, 0, 0, 1)
    assert session.send_wanted(asked) == [Send(m.InputPiece(LEASE, JOB, 0, 0), [b"x"])]
    session.disconnect()
    assert session.connect(1)[1:] == [Send(whole, [b"whole"])]  # it is an older one by now


def test_a_big_input_over_the_quota_is_not_even_announced() -> None:
    session = Session(SPEC, [b"function"], True)
    session.connect(0, 1 << 20, takes_sizes=True)
    (failed,) = session.handle(AddBatch(JOB, [(1, BigLeaf())], 3 << 20), 0)
    assert isinstance(failed, Fail)
    assert (failed.index, "input 0 has 3,145,728 bytes" in failed.text) == (0, True)


@pytest.mark.parametrize(
    ("features", "is_detached", "is_announced"),
    [
        ((INPUTS, STORE), True, False),
        ((INPUTS, STORE, STORE_SIZES), True, True),
        ((STORE, STORE_SIZES), False, False),
        ((INPUTS, STORE), False, True),
    ],
)
def test_big_inputs_are_announced_to_a_store_that_asks_for_them(
    features: tuple[str, ...], is_detached: bool, is_announced: bool
) -> None:
    connection = Connection(client_hello(), 10.0, 0.0)
    welcome = m.Welcome(scheduler=bytes(16), version="0", publisher="p", features=features)
    connection.receive(welcome, [], 0.0)
    spec = open_job(JOB, b"t" * 16, detached=b"" if is_detached else None)
    connection.open(Session(spec, [b"function"], True), 0.0)
    (sent,) = connection.handle(AddBatch(JOB, [(1, BigLeaf())], 3 << 20), 0.0)
    assert isinstance(sent, Send)
    assert isinstance(sent.message, m.Inputs)
    assert bool(sent.message.leaves[0].size) is is_announced
