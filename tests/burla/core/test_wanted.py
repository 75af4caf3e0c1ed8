"""What a session sends when it is asked for it: parts of big inputs, or batches whole."""

from opening import open_job

from burla.core.commands import AddBatch
from burla.core.effects import Fail, Send
from burla.core.session import Session
from burla.protocol import messages as m

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
