"""Orders to a worker whose socket is full: what comes with one of them goes with it."""

import os
import socket

from burla.nodelet.core.effects import StoredLeaf
from burla.nodelet.core.events import WorkerState
from burla.nodelet.shell.blob_memory import BlobFile
from burla.nodelet.shell.worker_handle import make_handle
from burla.nodelet.worker.pipes import LEAF_RECORD, Kind, Message, Parser
from burla.nodelet.worker.slate import PAGE_BYTES, AgentSlate


def test_each_big_leaf_comes_with_its_file_however_slowly_the_worker_reads() -> None:
    slate = AgentSlate(memoryview(bytearray(PAGE_BYTES)).cast("q"))
    handle, fds = make_handle(1, 0, slate, bytearray(1 << 16), WorkerState.READY)
    theirs = socket.socket(fileno=fds[0])
    parser = Parser(bytearray(1 << 16))
    parser.carry()
    for number in range(6):
        file = BlobFile()
        os.write(file.fd, b"%d" % number)
        small = StoredLeaf(0, 2 * number, 2 * number + 1, [bytes(700_000)])
        big = StoredLeaf(0, 2 * number + 1, 2 * number + 2, (), 1, number + 1)
        for leaf, files in ((small, []), (big, [file])):
            span = Message(Kind.SPAN, 0, leaf.lo % 8, leaf.lo, leaf.hi, 0, 1)
            handle.unsent += handle.open(span, [leaf], files)
            handle.flush()
    messages: list[Message] = []
    while len(messages) < 12:
        handle.flush()
        messages += parser.read(theirs) or ()
    said = [next(LEAF_RECORD.iter_unpack(message.frames[0])) for message in messages]
    assert [count for *_, count in said] == [1, -1] * 6
    assert [os.pread(fd, 9, 0) for fd in parser.descriptors] == [b"%d" % n for n in range(6)]
    for fd in (*parser.descriptors, *fds[1:]):
        os.close(fd)
    theirs.close()
    handle.close()
