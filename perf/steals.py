"""A million steals between two processes over the real slate: `python -m perf.steals [COUNT]`.

One process walks spans in strides as a worker does, the other steals from them at random places as
fast as it can. Every index must end up with exactly one of them.
"""

import os
import random
import socket
import struct
import sys
import time

from burla.nodelet.worker.slate import CELLS, AgentSlate, Memory, WorkerSlate, make_memory, register

SPAN_INPUTS = 64  # so that the two meet in the same few indices all the time
STRIDE_MAX = 5
NEAR = 0.2  # share of the steals that aim at the place where the worker is
SPIN_MAX = 100  # turns of an empty loop that stand for the calls of a stride

_SPAN = struct.Struct("<qqq")  # down: cell, lo, hi; up: cell, lo, where it stopped


def steal(steals: int, seed: int = 0) -> dict[str, int]:
    """Steal so many times; return what was counted.

    Raises:
        AssertionError: an index was lost, or was had by both.
    """
    fd = make_memory()
    memory = Memory(fd)
    os.close(fd)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        try:
            ours.close()
            _walk(theirs, WorkerSlate(memory.page(0)), random.Random(seed + 1))
        finally:
            os._exit(0)
    theirs.close()
    try:
        return _steal_all(ours, AgentSlate(memory.page(0)), random.Random(seed), steals)
    finally:
        ours.close()
        os.waitpid(pid, 0)


def _walk(sock: socket.socket, slate: WorkerSlate, chance: random.Random) -> None:
    """Be the worker: walk each span in strides of a random size."""
    register()
    while data := sock.recv(_SPAN.size):
        cell, lo, _ = _SPAN.unpack(data)
        slate.enter(cell)
        at = lo
        while (end := slate.claim(at, chance.randint(1, STRIDE_MAX))) > at:
            slate.begin(at, end)
            for _ in range(chance.randint(0, SPIN_MAX)):
                pass
            at = end
            if at >= slate.hi:
                break
        sock.send(_SPAN.pack(cell, lo, at))


def _steal_all(
    sock: socket.socket, slate: AgentSlate, chance: random.Random, steals: int
) -> dict[str, int]:
    """Be the agent: assign spans, steal from them, and check each when it is over."""
    ends: dict[int, tuple[int, int]] = {}  # cell -> lo, and from where on it was stolen
    counted = {"steals": 0, "tries": 0, "spans": 0, "stolen": 0, "ran": 0, "undecided": 0}
    at = 0
    while counted["steals"] < steals or ends:
        for cell in range(CELLS):
            if cell not in ends and len(ends) < 4 and counted["steals"] < steals:
                slate.open(cell, at, at + SPAN_INPUTS)
                ends[cell] = at, at + SPAN_INPUTS
                sock.send(_SPAN.pack(cell, at, at + SPAN_INPUTS))
                at += SPAN_INPUTS
                counted["spans"] += 1
        for cell, (lo, end) in list(ends.items()):
            if chance.random() < NEAR:  # where the worker is about to claim
                middle = max(lo, slate.claimed(cell) + chance.randint(-2, STRIDE_MAX))
            else:
                middle = end - chance.randint(1, STRIDE_MAX)
            if middle >= end or end <= slate.claimed(cell):
                continue
            counted["tries"] += 1
            low, high = slate.steal(cell, middle)
            if low < min(high, end):
                counted["steals"] += 1
                counted["stolen"] += end - low
                ends[cell] = lo, low
        try:
            data = sock.recv(_SPAN.size, socket.MSG_DONTWAIT)
        except BlockingIOError:
            continue
        cell, lo, stop = _SPAN.unpack(data)
        first, end = ends.pop(cell)
        assert lo == first, f"cell {cell} was used again too early"
        assert stop <= end, f"[{end}, {stop}) was run and stolen"
        counted["ran"] += stop - lo
        counted["undecided"] += end - stop
    total = counted["ran"] + counted["stolen"] + counted["undecided"]
    assert total == at == counted["spans"] * SPAN_INPUTS, (counted, at)
    return counted


def main() -> None:
    """Run as many steals as the command line says, and print what was counted."""
    steals = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    started_s = time.perf_counter()
    counted = steal(steals)
    took_s = time.perf_counter() - started_s
    print(f"{counted}: none lost, none twice, in {took_s:.1f} s")


if __name__ == "__main__":
    main()
