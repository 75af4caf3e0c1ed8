"""A real scheduler with keys, and raw peers that may say to it what they like."""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import psutil
import zmq
from broken import environment
from keyring import Keyring
from opening import client_hello, node_hello, open_job
from raw_curve import RawCurve
from waiting import LATE_S

from burla.protocol import messages as m
from burla.protocol.blob_messages import BLOBS
from burla.protocol.codec import decode, encode
from burla.scheduler.core.admission import Role
from burla.transport.addresses import publisher_endpoint, take_apart
from burla.transport.dialing import Dialer
from burla.transport.keys import KeyPair
from burla.transport.sockets import make_socket

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
LATE_MS = int(LATE_S * 1000)

M = TypeVar("M", bound=m.Message)

_tree: list[Path] = []  # where the schedulers of stages are found, if not where we are


def limited_to(descriptors: int) -> None:
    """Let this process, and what it starts, have so many descriptors and never more."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))


@contextmanager
def scheduler_of(tree: Path) -> Iterator[None]:
    """Run the schedulers of all stages meanwhile from a copy: see broken.py."""
    _tree.append(tree)
    try:
        yield
    finally:
        _tree.pop()


def tree_of_schedulers() -> Path | None:
    """Return the copy that schedulers run from now; None: ours."""
    return _tree[-1] if _tree else None


class Peer:
    """A DEALER under some key; `routing_id` only for those who want to be taken for another."""

    def __init__(
        self, stage: "Stage", pair: KeyPair | None, routing_id: bytes | None = None
    ) -> None:
        curve = stage.ring.curve(pair) if pair is not None else None
        self.passed_over: list[m.Message] = []  # what came while something else was waited for
        self.socket = make_socket(stage.context, zmq.DEALER, curve)
        if routing_id is not None:
            self.socket.setsockopt(zmq.ROUTING_ID, routing_id)
        self.routing_id = bytes(self.socket.getsockopt(zmq.ROUTING_ID))
        self.dialer = Dialer(self.socket)
        self.dialer.connect(stage.endpoint)
        self.session = os.urandom(16)
        self.publisher = ""

    def say(self, message: m.Message, payload: Sequence[bytes] = ()) -> None:
        until_s = time.monotonic() + LATE_S
        while not self.socket.poll(100, zmq.POLLOUT):
            assert time.monotonic() < until_s, "not connected"
            self.dialer.look()
        self.socket.send_multipart(encode(message, payload))

    def heard(self, kind: type[M]) -> list[tuple[M, list[bytes]]]:
        """Return all messages of a kind that are here; what else is, is passed over."""
        found = []
        while self.socket.poll(0):
            directions = m.SchedulerToClient | m.SchedulerToNodelet | m.SchedulerToJoining
            said, payload = decode(self.socket.recv_multipart(), directions)
            if isinstance(said, kind):
                found.append((said, payload))
            else:
                self.passed_over.append(said)
        return found

    def hear(self, kind: type[M]) -> tuple[M, list[bytes]]:
        """Return the next message of a kind; what else comes is passed over."""
        until_s = time.monotonic() + LATE_S
        while time.monotonic() < until_s:
            if self.socket.poll(100):
                directions = m.SchedulerToClient | m.SchedulerToNodelet | m.SchedulerToJoining
                said, payload = decode(self.socket.recv_multipart(), directions)
                if isinstance(said, kind):
                    return said, payload
                self.passed_over.append(said)
        raise AssertionError(f"no {kind.__name__}")

    def be_client(self, session: bytes | None = None) -> None:
        self.session = session or self.session
        self.say(client_hello(self.session, python=PYTHON))
        self.publisher = self.hear(m.Welcome)[0].publisher

    def be_node(self) -> None:
        self.say(node_hello(os.urandom(16), python=PYTHON, cpus=1, features=(BLOBS,)))
        self.hear(m.Welcome)

    def open(self, job: bytes, topic: bytes = bytes(16), inputs: int = 1) -> None:
        """Open a job with inputs that nobody can run."""
        self.say(open_job(job, topic), [b"function"])
        self.say(inputs_of(job, inputs), [b"leaf"])
        self.say(m.InputsEnd(job, inputs))

    def fence(self) -> None:
        """Return when all that was said before has been dealt with."""
        self.say(client_hello(self.session, python=PYTHON))
        self.hear(m.Welcome)

    def wait_refused(self) -> str:
        """Return what libzmq found out when it was not let in."""
        assert self.dialer.socket.poll(LATE_MS)
        until_s = time.monotonic() + LATE_S
        while time.monotonic() < until_s:
            if (what := self.dialer.look()) is not None:
                return what
            self.dialer.socket.poll(100)
        raise AssertionError("it was let in, or nothing happened")

    def close(self) -> None:
        self.dialer.close()
        self.socket.close(0)


def inputs_of(job: bytes, count: int = 1) -> m.Inputs:
    return m.Inputs(job=job, batch=0, start=0, leaves=(m.Leaf(0, 0, count, 1),))


@dataclass
class Stage:
    """A scheduler process, its keys, and the peers that came."""

    ring: Keyring
    process: subprocess.Popen[str]
    address: str
    context: zmq.Context[zmq.Socket[bytes]]
    ends: ExitStack

    @property
    def endpoint(self) -> str:
        return take_apart(self.address).endpoint

    def place(self) -> tuple[str, int]:
        host, _, port = self.endpoint.removeprefix("tcp://").rpartition(":")
        return host, int(port)

    def peer(self, pair: KeyPair | None, routing_id: bytes | None = None) -> Peer:
        peer = Peer(self, pair, routing_id)
        self.ends.callback(peer.close)
        return peer

    def client(self, user: str) -> tuple[Peer, KeyPair]:
        """Return a client that was welcomed, of a user of its own."""
        pair = self.ring.make(Role.CLIENT, user)
        peer = self.peer(pair)
        peer.be_client()
        return peer, pair

    def node(self) -> Peer:
        """Return a node that was welcomed."""
        peer = self.peer(self.ring.make(Role.NODE, "raw"))
        peer.be_node()
        return peer

    def subscriber(self, pair: KeyPair, publisher: str, kind: int = zmq.SUB) -> zmq.Socket[bytes]:
        """Return a socket that is connected to the output channel."""
        socket = make_socket(self.context, kind, self.ring.curve(pair))
        self.ends.callback(socket.close, 0)
        with socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED) as monitor:
            socket.connect(publisher_endpoint(publisher, self.endpoint))
            assert monitor.poll(LATE_MS), "not connected"
            socket.disable_monitor()
        return socket

    def raw(self, pair: KeyPair, kind: bytes = b"DEALER", publisher: str = "") -> RawCurve:
        """Return a connection that libzmq is not behind, to the ROUTER or to the publisher."""
        host, port = self.place()
        if publisher:
            port = int(publisher_endpoint(publisher, self.endpoint).rpartition(":")[2])
        raw = RawCurve((host, port), self.ring.server.public, pair, kind=kind)
        self.ends.callback(raw.close)
        return raw

    def usage(self) -> psutil.Process:
        return psutil.Process(self.process.pid)

    def run(self, module: str, *arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
        """Run one of our programs, or a "script", to its end."""
        line = [sys.executable, *(["-m", module] if module != "script" else []), *arguments]
        return subprocess.run(
            line, capture_output=True, text=True, timeout=LATE_S * 2, check=False, **more
        )


@contextmanager
def stage(
    directory: Path, descriptors: int | None = None, options: Sequence[str] = ()
) -> Iterator[Stage]:
    """Run a scheduler over TCP with keys in `directory`, which may have so many descriptors."""
    ring = Keyring(directory / "scheduler")
    with ExitStack() as ends:
        line = [sys.executable, "-m", "burla.scheduler", "--bind", "tcp://127.0.0.1:0"]
        log = ends.enter_context((directory / "scheduler.log").open("w"))
        process = ends.enter_context(
            subprocess.Popen(
                [*line, "--dir", str(ring.key_store.directory), *options],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                preexec_fn=None if descriptors is None else partial(limited_to, descriptors),
                env=environment(tree_of_schedulers()),
                cwd=tree_of_schedulers(),
            )
        )
        assert process.stdout is not None
        try:
            address = process.stdout.readline().strip()
            assert address, (directory / "scheduler.log").read_text()
            context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
            ends.callback(context.destroy, 0)
            yield Stage(ring, process, address, context, ends)
            assert process.poll() is None, "the scheduler has died"
        finally:
            process.terminate()
            process.wait(LATE_S)
