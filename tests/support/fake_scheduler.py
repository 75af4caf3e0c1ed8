"""A scheduler with one imaginary node, in a thread: runs calls itself, or does what a test says."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from random import Random
from typing import Any

import zmq
from doubles.router import Router

from burla.protocol import messages as m
from burla.protocol.blob_messages import BLOBS
from burla.protocol.codec import encode, pack_runs
from burla.protocol.fields import POLICIES
from burla.transport.sockets import make_socket
from burla.values.calls import bind_any
from burla.values.payloads import (
    are_atoms,
    bind_call,
    dump_error,
    dump_result,
    dump_results,
    load_function,
    load_leaf,
)

POLL_MS = 5

Script = Callable[["FakeScheduler", bytes, m.Message, list[bytes]], bool]


def no_script(fake: "FakeScheduler", peer: bytes, message: m.Message, payload: list[bytes]) -> bool:
    return False


def hold_back(*kinds: type) -> "Script":
    """Return a script that never answers these messages."""

    def script(
        fake: "FakeScheduler", peer: bytes, message: m.Message, payload: list[bytes]
    ) -> bool:
        return isinstance(message, kinds)

    return script


@dataclass
class FakeJob:
    """What the fake knows of a job; it has one lease."""

    spec: m.OpenJob
    call: Callable[[Any], Any]
    lease: bytes = field(default_factory=lambda: os.urandom(16))
    seq: int = 0
    chunks: list[tuple[int, bytes]] = field(default_factory=list)


SLOTS = 1000  # that jobs are told to have


class FakeScheduler:
    """Speaks the protocol over a ROUTER and a PUB socket."""

    def __init__(self, path: Path) -> None:
        self.address = f"ipc://{path}/s"
        self.heard: list[m.Message] = []
        self.jobs: dict[bytes, FakeJob] = {}
        self.peers: list[bytes] = []
        self.script: Script = no_script  # returns whether it has dealt with the message
        self.prints: Callable[[int], list[tuple[int, bytes]]] = lambda index: []
        self.publishes = True  # False: PUB frames are lost
        self.order: Random | None = None  # in which outcomes come, in messages of their own
        self.welcome = m.Welcome(b"s" * 16, "0", f"{self.address}.pub", features=(POLICIES, BLOBS))
        self.error: BaseException | None = None
        self._todo: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fake-scheduler")

    @contextmanager
    def running(self) -> Iterator["FakeScheduler"]:
        self._thread.start()
        try:
            yield self
        finally:
            self._ended.set()
            self._thread.join()
        if self.error is not None:
            raise self.error

    def do(self, what: Callable[[], None]) -> None:
        """Run something in the thread that owns the sockets."""
        self._todo.put(what)

    def count(self, kind: type) -> int:
        return sum(isinstance(message, kind) for message in self.heard)

    # --- for scripts, in the thread ---

    def send(self, peer: bytes, message: m.Message, payload: list[bytes] | None = None) -> None:
        self._router.say(peer, message, payload or [])

    def publish(self, job: FakeJob, message: m.JobOutput, chunks: list[bytes]) -> None:
        if self.publishes:
            self.pub.send_multipart([job.spec.topic, *encode(message, chunks)])

    def output_since(self, job: FakeJob, after: int) -> Iterator[tuple[m.JobOutput, list[bytes]]]:
        """Yield the chunks after number `after`, cut as a nodelet cuts them."""
        for start in range(after, len(job.chunks), m.OUTPUT_CHUNKS_MAX):
            new = job.chunks[start : start + m.OUTPUT_CHUNKS_MAX]
            streams = tuple(stream for stream, _ in new)
            message = m.JobOutput(job.spec.job, job.lease, start + 1, streams)
            yield message, [chunk for _, chunk in new]

    def outcomes(self, peer: bytes, job: FakeJob, runs: list[tuple[m.Run, list[bytes]]]) -> None:
        job.seq += 1
        table, payload = pack_runs(runs)
        self.send(
            peer,
            m.JobOutcomes(
                job=job.spec.job,
                lease=job.lease,
                seq=job.seq,
                node="fake",
                runs=table,
                output=len(job.chunks),
            ),
            payload,
        )

    def run_inputs(self, peer: bytes, message: m.Inputs, payload: list[bytes]) -> None:
        job = self.jobs[message.job]
        shown = len(job.chunks)
        runs: list[tuple[m.Run, list[bytes]]] = []
        at = 0
        for leaf in message.leaves:
            inputs = load_leaf(payload[at : at + leaf.frames])
            at += leaf.frames
            runs += self._run_leaf(job, inputs, leaf.start, leaf.count)
        for output, chunks in self.output_since(job, shown):
            self.publish(job, output, chunks)
        if self.order is None:
            self.outcomes(peer, job, runs)
            return
        self.order.shuffle(runs)
        for run in runs:
            self.outcomes(peer, job, [run])

    def _run_leaf(
        self, job: FakeJob, inputs: Any, start: int, count: int
    ) -> Iterator[tuple[m.Run, list[bytes]]]:
        goes_on = job.spec.policy is not None and job.spec.policy.goes_on
        if self.order is not None and count > 1:  # a run for each
            for index in range(start, start + count):
                yield from self._run_leaf(job, inputs[index - start : index - start + 1], index, 1)
            return
        results: list[Any] = []
        for index in range(start, start + count):
            job.chunks += self.prints(index)
            try:
                results.append(job.call(inputs[index - start]))
            except BaseException as error:
                encoded = dump_error(error, "fake", index)
                if goes_on and results:
                    done = dump_results(results)
                    yield m.Run(index - len(results), index, m.Kind.RESULTS, len(done)), done
                yield m.Run(index, index + 1, m.Kind.ERROR, len(encoded)), encoded
                if goes_on and index + 1 < start + count:
                    rest = inputs[index + 1 - start :]
                    yield from self._run_leaf(job, rest, index + 1, start + count - index - 1)
                return
        if are_atoms(results):
            encoded = dump_results(results)
            yield m.Run(start, start + count, m.Kind.RESULTS, len(encoded)), encoded
            return
        for index, result in enumerate(results, start):
            encoded = dump_result(result)
            yield m.Run(index, index + 1, m.Kind.RESULT, len(encoded)), encoded

    # --- the thread ---

    def _run(self) -> None:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        try:
            self._router = Router(context, self.address, m.ClientToScheduler)
            self.pub = make_socket(context, zmq.PUB)
            self.pub.bind(f"{self.address}.pub")
            while not self._ended.is_set():
                if self._router.poll(POLL_MS):
                    self._take()
                try:
                    while True:
                        self._todo.get_nowait()()
                except Empty:
                    pass
        except BaseException as error:
            self.error = error
        finally:
            context.destroy(0)

    def _take(self) -> None:
        heard = self._router.hear()
        if heard is None:
            return
        peer, message, payload = heard
        if not isinstance(message, m.Heartbeat):
            self.heard.append(message)
        if not self.script(self, peer, message, payload):
            self.answer(peer, message, payload)

    def answer(self, peer: bytes, message: m.Message, payload: list[bytes]) -> None:
        """Do what a scheduler does."""
        if peer not in self.peers and not isinstance(message, m.ClientHello):
            self.send(peer, m.HelloRequired())
            return
        match message:
            case m.ClientHello():
                self.peers.append(peer)
                self.send(peer, self.welcome)
            case m.OpenJob():
                if message.job not in self.jobs:
                    function = load_function(payload)
                    call = bind_any(function, bind_call(function, message.unpack))
                    self.jobs[message.job] = FakeJob(message, call)
                if message.lazy:
                    self.send(peer, m.JobStatus(message.job, "", SLOTS))
            case m.Inputs():
                self.run_inputs(peer, message, payload)
            case m.ReplayOutput():
                job = next(job for job in self.jobs.values() if job.lease == message.lease)
                for output, chunks in self.output_since(job, message.after):
                    self.send(peer, output, chunks)
            case m.Heartbeat():
                self.send(peer, m.Heartbeat())
            case _:
                pass
