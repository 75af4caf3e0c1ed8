"""Who reads parts has one at a time, and none ahead of what has been taken."""

import time
from pathlib import Path

import zmq

from burla.protocol import store_messages as sm
from burla.protocol.store_messages import StoredState
from burla.scheduler.shell.part_reads import Frame, PartReads
from burla.scheduler.store.effects import ReadPart
from burla.transport import sockets

JOB = b"J" * 16
FACTS = sm.StoredJob(JOB, "f", StoredState.DONE, 1, 1, 1, 0, 0, 0, 0, "", "", None)


def part(peer: bytes, at: int) -> ReadPart:
    return ReadPart(peer, sm.ReadStored(JOB, 0, at), (0, 100), FACTS)


def test_a_client_that_does_not_take_what_it_asks_for_is_read_no_more() -> None:
    reads = PartReads()
    for at in range(5):
        reads.ask(part(b"a", at))
    reads.ask(part(b"b", 0))
    assert reads.take() == [part(b"a", 4), part(b"b", 0)]  # the newest of each
    reads.ask(part(b"a", 4))  # again
    assert not reads.is_waiting()
    reads.ask(part(b"a", 5))
    assert reads.take() == []
    frames = [Frame(b"xyz")]
    reads.end(b"a", frames)
    assert reads.take() == []  # its bytes are still in memory
    frames.clear()
    assert reads.take() == [part(b"a", 5)]


def test_nothing_is_kept_of_clients_that_are_gone() -> None:
    reads = PartReads()
    reads.ask(part(b"a", 0))
    reads.forget_gone(lambda peer: False)
    assert reads.take() == []


def test_a_frame_is_what_there_is_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    with (tmp_path / "file").open("rb") as file:
        assert Frame.read(file.fileno(), 2, 3) == b"234"
        assert Frame.read(file.fileno(), 8, 5) == b"89"
        assert Frame.read(file.fileno(), 20, 5) == b""


def test_a_part_that_lies_in_the_pipe_of_a_client_that_does_not_read_holds_the_next_one() -> None:
    reads = PartReads()
    with zmq.Context() as context:
        router = sockets.make_socket(context, zmq.ROUTER)
        dealer = sockets.make_socket(context, zmq.DEALER)
        with router, dealer:
            router.bind("inproc://scheduler")
            dealer.connect("inproc://scheduler")
            dealer.send(b"hello")
            peer = router.recv_multipart()[0]
            frames: list[bytes | Frame] = [Frame(1 << 20) for _ in range(4)]
            assert sockets.send(router, [peer, *frames])  # type: ignore[list-item]
            reads.end(peer, frames)
            frames.clear()
            reads.ask(part(peer, 0))
            assert reads.take() == []
            assert len(dealer.recv_multipart()) == 4
            until_s = time.monotonic() + 20  # a thread of pyzmq lets go of them
            while not (begun := reads.take()) and time.monotonic() < until_s:
                time.sleep(0.001)
            assert begun == [part(peer, 0)]
