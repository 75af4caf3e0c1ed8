"""Rows of the security table: words that are allowed, each of which costs much, without an end."""

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import zmq
from broken import broken_copy
from opening import client_hello, node_hello, open_job
from rows_hostile import OTHER_PYTHON, besieged
from stage import Peer, scheduler_of, stage, tree_of_schedulers

from burla.protocol import messages as m
from burla.protocol.codec import encode
from burla.scheduler.core.admission import Role
from burla.transport.sockets import FRAMES_MAX

FLOOD_S = 4.0
MIB = 1 << 20
GROWN_MAX = 512 * MIB  # a backlog of one key, of 64 messages of each connection, and their pieces
SILENCE_S = 1.5  # in place of 15 s


def flood(peer: Peer, frames: list[bytes], between: Callable[[], object]) -> int:
    """Say one thing again and again for some seconds, also after a hang-up; return how often."""
    until_s, count, look_s = time.monotonic() + FLOOD_S, 0, 0.0
    while (now_s := time.monotonic()) < until_s:
        peer.dialer.look()
        if peer.socket.poll(10, zmq.POLLOUT):
            with suppress(zmq.Again):  # it has just been hung up on
                peer.socket.send_multipart(frames, zmq.DONTWAIT, copy=False)
                count += 1
        while peer.socket.poll(0):
            peer.socket.recv_multipart()
        if now_s >= look_s:
            between()
            look_s = now_s + 0.1
    return count


def many_ranges(directory: Path) -> None:
    """One job is taken up again and again with as many ranges as may be, in order."""
    with besieged(directory, GROWN_MAX) as (at, others):
        anna = at.peer(at.ring.make(Role.CLIENT, "anna"))
        anna.say(client_hello(anna.session, python=OTHER_PYTHON))
        anna.hear(m.Welcome)
        done = tuple((2 * n, 2 * n + 1) for n in range(m.RANGES_MAX))
        word = open_job(os.urandom(16), done=done, resumed=True)
        assert flood(anna, [*encode(word), b"function"], others.live)
        others.run_a_job()


def many_frames(directory: Path) -> None:
    """Each message has as many frames as are read at all."""
    with besieged(directory, GROWN_MAX) as (at, others):
        anna = at.peer(at.ring.make(Role.CLIENT, "anna"))
        anna.say(client_hello(anna.session, python=OTHER_PYTHON))
        anna.hear(m.Welcome)
        frames = [*encode(m.Heartbeat()), *[b""] * (FRAMES_MAX - 2)]  # and a routing id
        assert flood(anna, frames, others.live)
        others.run_a_job()


def waiting_is_not_silence(directory: Path) -> None:
    """Who speaks in time is not lost, however long what it says waits for a neighbour's flood."""
    change = ("scheduler/core/node.py", "SILENCE_S = 15.0", f"SILENCE_S = {SILENCE_S}")
    tree = tree_of_schedulers() or broken_copy(directory / "hasty", change)
    with scheduler_of(tree), stage(directory) as at:
        pair = at.ring.make(Role.NODE, "raw")
        flooding, same_key = at.peer(pair), at.peer(pair)
        other_key = at.peer(at.ring.make(Role.NODE, "other"))
        named = {"flooding": flooding, "same": same_key, "other": other_key}
        for name, peer in named.items():
            peer.say(node_hello(os.urandom(16), name=name, cpus=1))
            peer.hear(m.Welcome)
        spans = tuple(m.Span(0, 2 * n, 2 * n + 1) for n in range(20_000))
        word = encode(m.Retracted(os.urandom(16), spans))
        ending = threading.Event()

        def live() -> None:
            while not ending.wait(0.1):
                for peer in (same_key, other_key):
                    peer.say(m.Heartbeat())

        thread = threading.Thread(target=live)
        thread.start()
        try:
            anna, _ = at.client("anna")
            assert flood(flooding, word, lambda: time.sleep(0.02))
            anna.say(m.ListNodes())
            nodes = anna.hear(m.Nodes)[0].nodes
        finally:
            ending.set()
            thread.join()
        states = {node.name: node.state for node in nodes}
        assert states["same"] is states["other"] is m.NodeState.FREE, states
        assert "nothing heard" not in (directory / "scheduler.log").read_text()


def quiet(directory: Path) -> None:
    """No attack at all, for comparison."""
    with stage(directory):
        time.sleep(FLOOD_S)
