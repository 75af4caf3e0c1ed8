"""Rows of the security table: those who are in, and want more than is theirs."""

import json
import os
import pickle
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from keyring import settings
from msgspec.structs import replace
from opening import client_hello, node_hello, open_job
from outcomes import outcomes, table_of
from stage import PYTHON, Peer, Stage, inputs_of, stage
from waiting import LATE_S

import burla
from burla.protocol import messages as m
from burla.protocol.arriving import WRONG_MAX, pieces_of
from burla.protocol.blob_messages import BLOBS
from burla.protocol.codec import encode
from burla.protocol.mac import seal
from burla.scheduler.core.admission import Role
from burla.shell import clients
from burla.transport.keys import load_pair
from burla.values import payloads

FLOOD = 15  # times 6 MiB that nobody asked for: so much an honest peer may have under way


def foreign_job(directory: Path) -> None:
    with stage(directory) as at:
        anna, _ = at.client("anna")
        bert, _ = at.client("bert")
        node = at.node()
        job = os.urandom(16)
        anna.open(job, inputs=3)
        lease = node.hear(m.StartLease)[0].lease
        node.hear(m.Assign)
        bert.say(open_job(job), [b"another function"])
        assert bert.hear(m.JobFailed)[0] == m.JobFailed(job, "", "not found")
        bert.say(inputs_of(job), [b"leaf"])
        bert.say(m.InputsEnd(job, 1))
        bert.say(m.CloseJob(job))
        for word in (m.AckOutcomes(lease, 1), m.AckOutput(lease, 1), m.ReplayOutput(job, lease, 1)):
            bert.say(word)
        bert.say(client_hello(anna.session))
        assert bert.hear(m.Refused)[0].not_authorised
        bert.fence()
        bert.passed_over.clear()
        said = outcomes(lease, [m.Run(0, 3, m.Kind.RESULTS, 1)])
        node.say(said, [b"result"])
        passed_on, payload = anna.hear(m.JobOutcomes)
        assert (passed_on.runs, payload) == (said.runs, [b"result"])
        anna.say(m.CloseJob(job))
        node.hear(m.Linger)  # and nothing of what bert said came before
        bert.fence()  # nor has he heard anything
        assert all(isinstance(word, m.Heartbeat) for word in bert.passed_over)
        lines = [json.loads(line) for line in at.ring.audit().splitlines()]
        tried = [x["operation"] for x in lines if x["user"] == "bert" and x["result"] != "ok"]
        expected = ["open job", "submit", "submit", "close job", "read", "read", "read"]
        assert tried == [*expected, "take over a session"]


def foreign_blob(directory: Path) -> None:
    """Name what another user has sent; send what nobody asked for, or other bytes, or no end."""
    content = os.urandom(3 << 20)
    blob = m.Blob(sha256(content).digest(), len(content))
    with stage(directory) as at:
        anna, _ = at.client("anna")
        bert, _ = at.client("bert")
        node = at.peer(at.ring.make(Role.NODE, "raw"))
        node.say(node_hello(os.urandom(16), python=PYTHON, cpus=1, features=(BLOBS,)))
        node.hear(m.Welcome)
        hers, his = os.urandom(16), os.urandom(16)
        anna.say(open_job(hers, blobs=(blob,)), [b"function"])
        _send(anna, hers, blob, content)
        anna.say(inputs_of(hers), [b"leaf"])
        lease = node.hear(m.StartLease)[0]
        assert lease.blobs == (blob,)
        node.say(m.BlobWanted(lease.lease, blob.digest, 0, 1 << 20))
        assert node.hear(m.BlobPiece)[1] == [content[: 1 << 20]]
        # it is there, and nothing tells bert so: he is asked for all of it
        bert.say(open_job(his, blobs=(blob,)), [b"function"])
        asked = bert.hear(m.BlobWanted)[0]
        assert (asked.about, asked.start, asked.stop) == (his, 0, blob.size)
        before = at.usage().memory_info().rss
        for _ in range(FLOOD):
            bert.say(m.BlobPiece(hers, blob.digest, 0), [bytes(1 << 20)])  # not his job
            bert.say(m.BlobPiece(his, os.urandom(32), 0), [bytes(1 << 20)])  # not of the job
            bert.say(m.BlobPiece(his, blob.digest, 1 << 20), [bytes(1 << 20)])  # not the next
            bert.say(m.BlobPiece(his, blob.digest, 0), [bytes(2 << 20)])  # too much
            bert.say(m.BlobWanted(lease.lease, blob.digest, 0, 1))  # a node's word
        bert.fence()
        assert at.usage().memory_info().rss - before < 64 << 20
        for time in range(WRONG_MAX):  # he has not got it
            if time:
                assert bert.hear(m.BlobWanted)[0].start == 0
            _send(bert, his, blob, bytes(blob.size))
        assert "changed in transit" in bert.hear(m.JobFailed)[0].text
        bert.say(m.CloseJob(his))
        bert.fence()
        assert not any(isinstance(word, m.BlobPiece) for word in bert.passed_over)
        # hers is what it was
        node.say(m.BlobWanted(lease.lease, blob.digest, 2 << 20, 3 << 20))
        assert node.hear(m.BlobPiece)[1] == [content[2 << 20 :]]


def _send(peer: Peer, job: bytes, blob: m.Blob, content: bytes) -> None:
    for start, stop in pieces_of(0, blob.size):
        peer.say(m.BlobPiece(job, blob.digest, start), [content[start:stop]])


def wrong_roles(directory: Path) -> None:
    with stage(directory) as at:
        anna, _ = at.client("anna")
        node = at.node()
        job = os.urandom(16)
        anna.open(job)
        lease = node.hear(m.StartLease)[0].lease
        said = outcomes(lease, [m.Run(0, 1, m.Kind.RESULT, 1)])
        as_node = node_hello(os.urandom(16))
        as_client = client_hello(os.urandom(16))
        for role, hello in ((Role.CLIENT, as_node), (Role.NODE, as_client)):
            liar = at.peer(at.ring.make(role, f"a {role}"))
            liar.say(hello)
            assert liar.hear(m.Refused)[0].not_authorised
        for word in (said, m.Stopped(lease), m.Retracted(lease, ()), m.Output(lease, 1, (1,))):
            anna.say(word, [b"forged"] if word is said else [])
        node.say(open_job(os.urandom(16)), [b"function"])
        node.say(m.CloseJob(job))
        node.say(m.Heartbeat())
        anna.fence()
        assert not [x for x in [anna.socket.poll(0)] if x]
        node.say(said, [b"true"])
        assert anna.hear(m.JobOutcomes)[1] == [b"true"]
        lines = [json.loads(line) for line in at.ring.audit().splitlines()]
        assert {x["operation"] for x in lines if "its role is" in x["result"]} == {
            "say NodeHello",
            "say ClientHello",
        }
        assert [x["operation"] for x in lines].count("open job") == 1


def false_autoscaler(directory: Path) -> None:
    """Only an administrator may ask what all jobs wait for, and keep nodes from being leased."""
    with stage(directory) as at:
        anna, _ = at.client("anna")
        node = at.node()
        anna.say(m.AskDemand("false", "all is well", 1, 1, ("n",)))
        assert anna.hear(m.Refused)[0].not_authorised
        anna.open(os.urandom(16))
        node.hear(m.StartLease)  # nobody has retired it


def replays(directory: Path) -> None:
    with stage(directory) as at:
        anna, _ = at.client("anna")
        node = at.node()
        job = os.urandom(16)
        anna.open(job, inputs=2)
        anna.open(job, inputs=2)
        lease = node.hear(m.StartLease)[0].lease
        assert node.hear(m.Assign)[0].spans == (m.Span(0, 0, 2),)
        anna.say(m.CloseJob(job))
        assert node.hear(m.EndLease)[0].lease == lease  # and no second StartLease or Assign before
    with library(directory / "outcomes") as (at, node, call):
        result, start = call([-1, -2])
        frames = payloads.dump_results([1, 2])
        said = sealed(start, 1, frames)
        node.say(said, frames)
        node.say(said, frames)
        node.say(sealed(start, 2, wrong := payloads.dump_results([7, 7])), wrong)
        assert result.result(LATE_S) == [1, 2]
    recorded_bytes(directory / "bytes")


def recorded_bytes(directory: Path) -> None:
    """What was overheard on the network is of no use on another connection."""
    directory.mkdir()
    with stage(directory) as at:
        heard = bytearray()
        with tap(at, heard) as endpoint:
            pair = at.ring.make(Role.CLIENT, "anna")
            real, at.address = at.address, at.address.replace(at.endpoint[6:], endpoint[6:])
            anna = at.peer(pair)
            anna.be_client()
            anna.open(os.urandom(16))
            anna.fence()
            at.address = real
        with socket.create_connection(at.place(), LATE_S) as raw:
            raw.settimeout(LATE_S)
            try:
                raw.sendall(heard)
                while raw.recv(4096):
                    pass
            except ConnectionError:
                pass  # hung up on
        other, _ = at.client("bert")
        other.fence()
        assert at.ring.audit().count('"open job"') == 1


@contextmanager
def tap(at: Stage, heard: bytearray) -> Iterator[str]:
    """Pass one connection through, and note what goes to the scheduler."""
    place = at.place()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def copy(source: socket.socket, target: socket.socket, note: bytearray | None) -> None:
            try:
                while data := source.recv(65536):
                    if note is not None:
                        note += data
                    target.sendall(data)
            except OSError:
                pass

        def serve() -> None:
            near, _ = server.accept()
            with near, socket.create_connection(place, LATE_S) as far:
                back = threading.Thread(target=copy, args=(far, near, None))
                back.start()
                copy(near, far, heard)
                far.shutdown(socket.SHUT_RDWR)
                back.join()

        thread = threading.Thread(target=serve)
        thread.start()
        peers = at.ends.pop_all()
        try:
            yield f"tcp://127.0.0.1:{server.getsockname()[1]}"
        finally:
            at.ends.close()
            thread.join()
            at.ends.push(peers)


class Bomb:
    """Says that it was unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def flipped_byte(directory: Path) -> None:
    tracks = directory / "unpickled"

    def flip(frames: list[bytes]) -> list[bytes]:
        data = bytearray(frames[-1])
        data[len(data) // 2] ^= 1
        return [*frames[:-1], bytes(data)]

    def bomb(frames: list[bytes]) -> list[bytes]:
        return [pickle.dumps([Bomb(tracks)], 5)]

    def same(frames: list[bytes]) -> list[bytes]:
        return frames

    def other_runs(said: m.Outcomes) -> m.Outcomes:
        return replace(said, runs=table_of([m.Run(0, 1, m.Kind.RESULTS, 1)]))

    changes: list[tuple[Callable[[m.Outcomes], m.Outcomes], Callable[[list[bytes]], list[bytes]]]]
    changes = [
        (lambda said: said, flip),
        (lambda said: said, bomb),
        (lambda said: replace(said, seal=b""), bomb),
        (lambda said: replace(said, seal=bytes(16)), bomb),
        (lambda said: replace(said, seq=2), same),
        (other_runs, same),
    ]
    for number, (change, change_frames) in enumerate(changes):
        with library(directory / str(number)) as (_, node, call):
            result, start = call([-1, -2])
            frames = payloads.dump_results([1, 2])
            node.say(change(sealed(start, 1, frames)), change_frames(frames))
            with pytest.raises(burla.JobFailed, match="do not bear the seal of this job"):
                result.result(LATE_S)
            assert not tracks.exists()


def sealed(start: m.StartLease, seq: int, frames: Sequence[bytes]) -> m.Outcomes:
    """Return what an honest nodelet would say of two results."""
    run = m.Run(0, 2, m.Kind.RESULTS, len(frames))
    said = outcomes(start.lease, [run], seq, frames=frames)
    return replace(said, seal=seal(start.secret, said, frames))


@contextmanager
def library(directory: Path) -> Iterator[tuple[Stage, Peer, Callable[[list[int]], Any]]]:
    """Let the real library call `abs`, on a node that says what the test wants."""
    directory.mkdir()
    with settings(directory), stage(directory) as at, ThreadPoolExecutor(1) as thread:
        os.environ["BURLA_CLUSTER"] = at.address
        try:
            node = at.node()

            def call(inputs: list[int]) -> tuple[Future[list[int]], m.StartLease]:
                future = thread.submit(burla.remote_parallel_map, abs, inputs, spinner=False)
                start = node.hear(m.StartLease)[0]
                assert len(start.secret) == m.SECRET_BYTES_MAX
                return future, start

            yield at, node, call
        finally:
            del os.environ["BURLA_CLUSTER"]
            if client := clients._clients.pop(at.address, None):
                client.close()
            assert load_pair(str(directory / "user.key")).public != bytes(32)
            assert encode(m.Heartbeat())
