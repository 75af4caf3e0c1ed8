"""Rows of the security table: bytes that are meant to hurt, from strangers and from those in."""

import os
import pickle
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from random import Random

import msgspec
import zmq
from hostile import mutate
from opening import client_hello, node_hello, open_job
from outcomes import outcomes
from rows_tenants import Bomb
from stage import LATE_MS, Peer, Stage, inputs_of, stage
from waiting import LATE_S, wait_until

from burla.protocol import messages as m
from burla.protocol.codec import encode
from burla.scheduler.core.admission import Role
from burla.transport.sockets import MESSAGE_BYTES_MAX

MIB = 1 << 20
MUTATED = 10_000
GROWN_MAX = 64 * MIB  # what the scheduler may grow by, if nothing else is said
RAW_CONNECTIONS, AT_ONCE = 10_000, 500
SILENT_WORDS = 40_000  # of a peer that never reads
SILENT_GROWN_MAX = 384 * MIB
HANDSHAKE_BYTES = b"\xff" + bytes(8) + b"\x7f\x03\x01"
HUGE = 10_000_000_000
OTHER_PYTHON = "2.7"
NODES = 20  # with long names: so the answer to a short question is long


@contextmanager
def besieged(
    directory: Path, grown_max: int = GROWN_MAX, options: Sequence[str] = ()
) -> Iterator[tuple[Stage, "Others"]]:
    """Run a scheduler whose memory grows by so much at most, and which serves others meanwhile."""
    with stage(directory, None, options) as at:
        others = Others(at)
        others.run_a_job()
        before = at.usage().memory_info().rss
        yield at, others
        others.run_a_job()
        grown = at.usage().memory_info().rss - before
        assert grown < grown_max, f"{grown >> 20} MiB"


class Others:
    """Another tenant, with a node that is always free for it."""

    def __init__(self, at: Stage) -> None:
        self.client, _ = at.client("bert")
        self.node = at.node()

    def live(self) -> None:
        """Be served, and let the node show that it lives."""
        self.node.say(m.Heartbeat())
        self.client.fence()

    def run_a_job(self) -> None:
        """Run one job from its opening to its end."""
        job = os.urandom(16)
        self.client.open(job)
        self.client.fence()  # it is open, and has all its inputs
        lease = self._lease()
        self.node.say(outcomes(lease, [m.Run(0, 1, m.Kind.RESULT, 1)]), [b"result"])
        assert self.client.hear(m.JobOutcomes)[1] == [b"result"]
        self.client.say(m.CloseJob(job))

    def _lease(self) -> bytes:
        """Return the next lease; end on the way what has lingered too long."""
        while True:
            said = self.node.hear(m.Message)[0]
            if isinstance(said, m.StartLease):
                return said.lease
            if isinstance(said, m.EndLease):
                self.node.say(m.Stopped(said.lease))


@contextmanager
def liar(at: Stage, role: Role = Role.CLIENT) -> Iterator[Peer]:
    """Connect somebody with a valid key; it fits to nobody else, so that no job of others waits."""
    peer = Peer(at, at.ring.make(role, "liar"))
    try:
        if role is Role.CLIENT:
            peer.say(client_hello(peer.session, python=OTHER_PYTHON))
            peer.hear(m.Welcome)
        yield peer
    finally:
        peer.close()


def words_of_client(job: bytes, lease: bytes) -> list[tuple[m.Message, list[bytes]]]:
    """Return one of each message that a client says."""
    return [
        (client_hello(os.urandom(16), python=OTHER_PYTHON), []),
        (open_job(job), [b"function"]),
        (inputs_of(job, 3), [b"leaf"]),
        (m.InputsEnd(job, 3), []),
        (m.AckOutcomes(lease, 1), []),
        (m.AckOutput(lease, 1), []),
        (m.ReplayOutput(job, lease, 1), []),
        (m.ListNodes(), []),
        (m.CloseJob(job), []),
    ]


def words_of_node(job: bytes, lease: bytes) -> list[tuple[m.Message, list[bytes]]]:
    """Return one of each message that a nodelet says."""
    held = (m.Held(lease, job, 1, (m.Span(0, 0, 3),), False),)
    return [
        (node_hello(os.urandom(16), python=OTHER_PYTHON, cpus=1, held=held), []),
        (outcomes(lease, [m.Run(0, 3, m.Kind.RESULTS, 1)]), [b"result"]),
        (m.Output(lease, 1, (1,)), [b"printed"]),
        (m.Retracted(lease, (m.Span(0, 1, 3),)), []),
        (m.Stopped(lease), []),
    ]


def shout(peer: Peer, frames: list[bytes]) -> None:
    """Send frames as they are, and do not listen."""
    assert peer.socket.poll(LATE_MS, zmq.POLLOUT)
    peer.socket.send_multipart(frames)
    while peer.socket.poll(0):
        peer.socket.recv_multipart()


def mutated_frames(directory: Path) -> None:
    random = Random(1)
    with (
        besieged(directory) as (at, others),
        liar(at) as client,
        liar(at, Role.NODE) as node,
    ):
        job, lease = os.urandom(16), os.urandom(16)
        said = [
            *((client, encode(*word)) for word in words_of_client(job, lease)),
            *((node, encode(*word)) for word in words_of_node(job, lease)),
        ]
        for number in range(MUTATED):
            peer, frames = random.choice(said)
            shout(peer, mutate(random, frames))
            if not number % (MUTATED // 4):
                others.client.fence()
        log = (directory / "scheduler.log").read_text()
        assert "ignored" in log
        assert "Traceback" not in log
        assert log.count("\n") < MUTATED // 4


def huge_array(directory: Path) -> None:
    with besieged(directory) as (at, _), liar(at) as client:
        for header in (b"\xdd\xff\xff\xff\xff", b"\xdc\xff\xff" * 1000, b"\xdf\xff\xff\xff\xff"):
            for inside in (header, b"\x92\xa6Inputs" + header, b"\x91" * 1000 + header):
                shout(client, [inside])
                shout(client, [encode(open_job(os.urandom(16)))[0][:-1] + header, b"f"])
        client.fence()


def ten_gigabytes(directory: Path) -> None:
    """Declared by a stranger in place of a handshake, in it, and by somebody who is in."""
    long_frame = b"\x02" + HUGE.to_bytes(8, "big")
    long_command = b"\x06" + HUGE.to_bytes(8, "big")
    with besieged(directory) as (at, _), liar(at) as client:
        for mechanism in (b"NULL", b"CURVE"):
            greeting = HANDSHAKE_BYTES + mechanism.ljust(20, b"\0") + bytes(32)
            for said in (long_frame, long_command):
                assert_hung_up(socket.AF_INET, at.place(), greeting + said)
        client.say(m.Heartbeat(), [bytes(MESSAGE_BYTES_MAX + 1)])  # libzmq hangs up
        wait_until(lambda: _is_new(client), "hung up")
    ipc_frame(directory / "ipc", long_frame)


def _is_new(peer: Peer) -> bool:
    """Return whether the scheduler does not know a connection (any more)."""
    peer.dialer.look()
    if not peer.socket.poll(0, zmq.POLLOUT):
        return True
    peer.socket.send_multipart(encode(m.Heartbeat()), zmq.DONTWAIT)
    if peer.socket.poll(50):
        return encode(m.HelloRequired()) == peer.socket.recv_multipart()
    return False


def ipc_frame(directory: Path, frame: bytes) -> None:
    """Get through a handshake without keys, as processes of the same user can."""
    import asyncio
    import threading

    import psutil

    from burla.scheduler.config import SchedulerConfig
    from burla.scheduler.shell.server import run

    directory.mkdir()
    path = directory / "s"
    listening, ready = threading.Event(), b"\x04\x1a\x05READY\x0bSocket-Type\0\0\0\x06DEALER"
    loop = asyncio.new_event_loop()
    serving = loop.create_task(run(SchedulerConfig(f"ipc://{path}"), lambda _: listening.set()))

    def serve() -> None:
        try:
            loop.run_until_complete(serving)
        except asyncio.CancelledError:
            pass
        finally:
            loop.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        assert listening.wait(LATE_S)
        before = psutil.Process().memory_info().rss
        ready = b"\x04" + bytes([len(ready) - 2]) + ready[2:]
        greeting = HANDSHAKE_BYTES + b"NULL".ljust(20, b"\0") + bytes(32)
        assert_hung_up(socket.AF_UNIX, str(path), greeting + ready + frame)
        assert psutil.Process().memory_info().rss - before < GROWN_MAX
    finally:
        loop.call_soon_threadsafe(serving.cancel)
        thread.join(LATE_S)


def assert_hung_up(family: int, place: object, said: bytes) -> None:
    """Say something on a raw connection; it is ended at once, whatever was declared."""
    with socket.socket(family) as raw:
        raw.settimeout(LATE_S)
        raw.connect(place)  # type: ignore[arg-type]  # of its family
        try:
            raw.sendall(said)
            while raw.recv(4096):
                pass
        except ConnectionError:
            pass


def pickle_bombs(directory: Path) -> None:
    """Each field of each message holds a pickle that makes a directory when it is loaded."""
    tracks = directory / "unpickled"
    bomb = pickle.dumps(Bomb(tracks), 5)
    assert pickle.loads(pickle.dumps(Bomb(directory / "works"), 5)) is None
    assert (directory / "works").exists()
    with besieged(directory) as (at, _), liar(at) as client, liar(at, Role.NODE) as node:
        job, lease = os.urandom(16), os.urandom(16)
        said = [(client, words_of_client(job, lease)), (node, words_of_node(job, lease))]
        for peer, words in said:
            for message, payload in words:
                fields = msgspec.to_builtins(message, builtin_types=(bytes,))
                for at_field in range(len(fields)):
                    changed = [*fields[:at_field], bomb, *fields[at_field + 1 :]]
                    shout(peer, [msgspec.msgpack.encode(changed), *payload])
                shout(peer, [*encode(message)[:1], *(bomb for _ in payload or [b""])])
                shout(peer, [bomb, *payload])
        client.fence()
    assert not tracks.exists()
    to_nodelet(directory / "nodelet", bomb)
    assert not tracks.exists()


def to_nodelet(directory: Path, bomb: bytes) -> None:
    """Do the same to a nodelet's own reading: each field of what a scheduler says to it."""
    from hostile import Words

    from burla.protocol.codec import WireError, decode

    random = Random(1)
    words = Words(random, [bytes(16)])
    for _ in range(500):
        message = words.any_of(m.SchedulerToNodelet)
        fields = msgspec.to_builtins(message, builtin_types=(bytes,))
        changed = [bomb if random.random() < 0.3 else field for field in fields]
        with suppress(WireError):
            decode([msgspec.msgpack.encode(changed), bomb], m.SchedulerToNodelet)


def raw_connections(directory: Path) -> None:
    with besieged(directory) as (at, others):
        before = at.usage().num_fds()
        for number in range(RAW_CONNECTIONS // AT_ONCE):
            with ExitStack() as ends:
                for each in range(AT_ONCE):
                    one = ends.enter_context(socket.create_connection(at.place(), LATE_S))
                    one.sendall(HANDSHAKE_BYTES[: each % len(HANDSHAKE_BYTES)])
                if not number % 5:
                    others.client.fence()
        wait_until(lambda: at.usage().num_fds() < before + 20, "all were given up")


def never_reads(directory: Path) -> None:
    """A peer that asks and asks, and whose answers pile up."""
    with besieged(directory, SILENT_GROWN_MAX) as (at, others), liar(at) as anna:
        pair = at.ring.make(Role.NODE, "many")
        for _ in range(NODES):
            node, long = at.peer(pair), "x" * 256
            more = {"python": OTHER_PYTHON, "name": long, "cpus": 1, "isolation": long}
            node.say(node_hello(os.urandom(16), **more))
            node.hear(m.Welcome)
        word = encode(m.ListNodes())
        until_s = time.monotonic() + LATE_S
        log = at.ring.audit
        for number in range(SILENT_WORDS):
            if not anna.socket.poll(100, zmq.POLLOUT):
                break
            anna.socket.send_multipart(word)
            if not number % 1000:
                others.client.fence()
                if '"go on"' in log() or time.monotonic() > until_s:
                    break
        wait_until(lambda: '"go on"' in log(), "it was given up")
        others.run_a_job()


def quotas(directory: Path) -> None:
    """Jobs without end, of functions that nobody will ever call."""
    few = ("--tenant-jobs", "200")  # before the first has waited too long, however slow this is
    with besieged(directory, options=few) as (at, others), liar(at) as anna:
        for number in range(2000):
            anna.say(open_job(os.urandom(16)), [b"function"])
            if not number % 500:
                others.client.fence()
        failed, _ = anna.hear(m.JobFailed)
        assert "quota of open jobs on this cluster: 200 at once" in failed.text
