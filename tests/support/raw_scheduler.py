"""A ROUTER that one real nodelet connects to: it says what a test wants it to say."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import zmq
from doubles.router import Router
from machine import environment, leaves_of
from opening import start_lease
from waiting import LATE_S, wait_gone

from burla.protocol import messages as m
from burla.protocol.codec import unpack_runs
from burla.protocol.deaths import decode_death
from burla.protocol.messages import Kind, Leaf, Span
from burla.protocol.ranges import Ranges
from burla.values import payloads

BATCH = 7


class RawScheduler:
    """Keeps what the nodelet says; answers a Hello with a Welcome, and acknowledges if it may."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.heard: list[m.Message] = []  # all but beats and acknowledged outcomes
        self.results: dict[int, Any] = {}
        self.errors: dict[int, Any] = {}  # Failure, or [how, code, deaths]
        self.output: dict[int, bytes] = {1: b"", 2: b""}
        self.outcomes: list[m.Outcomes] = []
        self.seen = Ranges()
        self.acknowledges = True
        self.deaf = False
        self._chunks: dict[bytes, int] = {}
        self._peer = b""
        self._leases = 0
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._router = self._bind()

    def _bind(self) -> Router:
        return Router(self._context, self.address, m.NodeletToScheduler)

    def restart(self) -> None:
        """Lose every connection, as a scheduler does that is started again."""
        self._router.close()
        self._peer = b""
        self._router = self._bind()

    def close(self) -> None:
        self._router.close()
        self._context.term()

    # --- words ---

    def say(self, message: m.Message, payload: Sequence[bytes] = ()) -> None:
        self._router.say(self._peer, message, payload)

    def say_junk(self, *frames: bytes) -> None:
        self._router.say_frames(self._peer, frames)

    def start(self, function: Callable[..., Any], slots: int = 2, **options: Any) -> bytes:
        """Begin a lease; return its name."""
        self._leases += 1
        lease = self._leases.to_bytes(16, "big")
        options = {"lease": lease, "environment": environment()} | options
        self.say(start_lease(slots, **options), payloads.dump_function(function))
        return lease

    def deal(self, lease: bytes, inputs: Sequence[Any], left: int = 0) -> None:
        """Assign all inputs of a job in one message."""
        cut = leaves_of(inputs)
        leaves = tuple(Leaf(BATCH, x.lo, x.hi - x.lo, len(x.frames)) for x in cut)
        frames = [bytes(frame) for x in cut for frame in x.frames]
        span = Span(BATCH, 0, len(inputs))
        self.say(m.Assign(lease=lease, left=left, spans=(span,), leaves=leaves, forget=()), frames)

    def end(self, lease: bytes, discard: bool = True) -> None:
        """End a lease, and wait until its processes are gone."""
        self.say(m.EndLease(lease, discard))
        self.wait(lambda: m.Stopped(lease) in self.heard, "Stopped")

    def call(
        self, function: Callable[..., Any], inputs: Sequence[Any], slots: int = 2, **options: Any
    ) -> list[Any]:
        """Run a whole job on a lease of its own."""
        self.results.clear()
        lease = self.start(function, slots, **options)
        self.deal(lease, inputs)
        self.wait(lambda: len(self.results) == len(inputs) or bool(self.errors), "results")
        self.end(lease)
        assert not self.errors, self.errors
        return [self.results[index] for index in range(len(inputs))]

    # --- ears ---

    def wait(self, true: Callable[[], bool], what: str, timeout_s: float = LATE_S) -> None:
        """Listen until `true()`."""
        until = time.monotonic() + timeout_s
        while not true():
            assert time.monotonic() < until, f"not within {timeout_s} s: {what}; {self.heard[-5:]}"
            if self._router.poll(50):
                self._listen()

    def listen_for(self, seconds: float) -> None:
        """Listen for a while."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if self._router.poll(int(left * 1000) + 1):
                self._listen()

    def wait_for(self, kind: type[m.Message]) -> Any:
        """Return the next message of a kind that is heard from now on."""
        before = len(self.heard)
        self.wait(lambda: any(isinstance(x, kind) for x in self.heard[before:]), kind.__name__)
        return next(x for x in self.heard[before:] if isinstance(x, kind))

    def _listen(self) -> None:
        heard = self._router.hear()
        if heard is None or self.deaf:
            return
        peer, message, payload = heard
        if isinstance(message, m.NodeHello):
            self._peer = peer
            self.heard.append(message)
            self.say(m.Welcome(b"S" * 16, "0", "pub"))
        elif peer != self._peer:
            self._router.say(peer, m.HelloRequired())
        elif isinstance(message, m.Outcomes):
            self._take_outcomes(message, payload)
        elif isinstance(message, m.Output):
            self._take_output(message, payload)
        elif not isinstance(message, m.Heartbeat):
            self.heard.append(message)

    def _take_outcomes(self, said: m.Outcomes, payload: list[bytes]) -> None:
        assert said.output <= self._chunks.get(said.lease, 0), "its output is late"
        self.outcomes.append(said)
        self.heard.append(said)
        for run, got in unpack_runs(said.runs, payload):
            match run.kind:
                case Kind.RESULTS:
                    self.results |= zip(
                        range(run.lo, run.hi), payloads.load_results(got), strict=True
                    )
                case Kind.RESULT:
                    self.results[run.lo] = payloads.load_result(got)
                case Kind.ERROR:
                    self.errors[run.lo] = payloads.load_error(got)
                case Kind.DEATH:
                    self.errors[run.lo] = decode_death(got[0])
        if self.acknowledges:
            self.say(m.AckOutcomes(said.lease, said.seq))

    def _take_output(self, said: m.Output, payload: list[bytes]) -> None:
        self.heard.append(said)
        have = self._chunks.get(said.lease, 0)
        if said.replay or said.number <= have:
            return
        assert said.number == have + 1, "a gap"
        for stream, data in zip(said.streams, payload, strict=True):
            self.output[stream] += data
        self._chunks[said.lease] = have + len(payload)
        if self.acknowledges:
            self.say(m.AckOutput(said.lease, have + len(payload)))


class Nodelet:
    """A real nodelet in a process of its own."""

    def __init__(self, address: str, cpus: int, log: Path) -> None:
        line = [sys.executable, "-m", "burla.nodelet", "--scheduler", address]
        line += ["--cpus", str(cpus), "--name", "node", "--isolation", "process"]
        with log.open("w") as file:
            self.process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stderr=file)
        self.log = log

    def processes(self) -> list[psutil.Process]:
        """Return all that it has started, and itself."""
        root = psutil.Process(self.process.pid)
        return [root, *root.children(recursive=True)]

    def workers(self) -> list[psutil.Process]:
        """Return the forked processes, without the zygote."""
        (zygote,) = psutil.Process(self.process.pid).children()
        return zygote.children()

    def stop(self) -> None:
        """End it, and fail if something of it is left."""
        if self.process.poll() is None:
            left = self.processes()
            self.process.terminate()
            assert self.process.wait(15) == 0, self.log.read_text()
            wait_gone(left)


@contextmanager
def node(directory: Path, cpus: int = 2) -> Iterator[tuple[RawScheduler, Nodelet]]:
    """Run a nodelet that has said Hello to a scheduler of ours."""
    scheduler = RawScheduler(f"ipc://{directory}/s")
    nodelet = Nodelet(scheduler.address, cpus, directory / "nodelet.log")
    try:
        scheduler.wait(lambda: bool(scheduler.heard), "Hello")
        yield scheduler, nodelet
    finally:
        nodelet.stop()
        scheduler.close()
