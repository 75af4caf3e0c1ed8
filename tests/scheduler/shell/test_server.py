"""The scheduler's shell over real sockets."""

import asyncio
import os
import select
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import zmq
from keyring import Keyring
from opening import client_hello, node_hello, open_job
from outcomes import outcomes

from burla.limits import FRAME_BYTES_MAX
from burla.protocol import codec, messages as m
from burla.protocol.codec import decode, encode, split
from burla.scheduler.config import SchedulerConfig
from burla.scheduler.core.admission import Role
from burla.scheduler.core.effects import Send
from burla.scheduler.core.scheduler import Scheduler
from burla.scheduler.shell import server
from burla.transport import sockets
from burla.transport.addresses import take_apart
from burla.transport.keys import ClientCurve

JOB, SESSION = os.urandom(16), os.urandom(16)


class Peer:
    """A raw DEALER that talks to the scheduler."""

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], address: str, curve: ClientCurve | None
    ) -> None:
        self.socket = sockets.make_socket(context, zmq.DEALER, curve)
        self.socket.connect(take_apart(address).endpoint)
        self.watch = sockets.SocketWaiter(self.socket)

    async def say(self, message: m.Message, payload: tuple[bytes, ...] = ()) -> None:
        await self.send(encode(message, payload))

    async def send(self, frames: list[bytes]) -> None:
        async with asyncio.timeout(10):
            while not sockets.send(self.socket, frames):
                await self.watch.wait_readable(0.001)

    async def hear(self, kind: type[m.Message]) -> tuple[m.Message, list[bytes]]:
        """Return the next message of a kind; what else comes is passed over."""
        async with asyncio.timeout(10):
            while True:
                await self.watch.wait_readable(None)
                for frames in sockets.take(self.socket):
                    message, payload = decode(frames, m.SchedulerToClient | m.SchedulerToNodelet)
                    if isinstance(message, kind):
                        self.watch.wake()  # what is left is looked at next time
                        return message, payload

    def close(self) -> None:
        self.watch.close()
        self.socket.close()


def config(bind: str, ring: Keyring | None) -> SchedulerConfig:
    return SchedulerConfig(bind=bind, keys=None if ring is None else ring.key_store.directory)


@asynccontextmanager
async def serving(
    bind: str, ring: Keyring | None = None
) -> AsyncIterator[tuple[zmq.Context[zmq.Socket[bytes]], str]]:
    listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(server.run(config(bind, ring), listening.set_result))
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        task.add_done_callback(lambda ended: listening.done() or listening.cancel())
        with suppress(asyncio.CancelledError):
            await listening
        if task.done():
            task.result()
        yield context, listening.result()
    finally:
        context.destroy(linger=0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.mark.parametrize("kind", ["tcp", "ipc"])
def test_a_job_goes_from_client_to_node_and_back(kind: str, tmp_path: Path) -> None:
    bind = "tcp://127.0.0.1:0" if kind == "tcp" else f"ipc://{tmp_path}/s"
    ring = Keyring(tmp_path / "keys") if kind == "tcp" else None

    async def play() -> list[bytes]:
        async with serving(bind, ring) as (context, address):
            curves: list[ClientCurve | None] = [None, None]
            if ring is not None:
                curves = [ring.curve(ring.make(role)) for role in (Role.CLIENT, Role.NODE)]
            client, node = (Peer(context, address, curve) for curve in curves)
            await node.say(node_hello(os.urandom(16)))
            await client.say(client_hello(SESSION))
            await client.hear(m.Welcome)
            big = [os.urandom(FRAME_BYTES_MAX) for _ in range(5)]
            await client.say(open_job(JOB, JOB), (b"function",))
            leaf = m.Leaf(0, 0, 1, 5)
            inputs = m.Inputs(job=JOB, batch=0, start=0, leaves=(leaf,))
            for piece in split(inputs, big):
                await client.send(encode(*piece))
            lease, function = await node.hear(m.StartLease)
            assert isinstance(lease, m.StartLease)
            assert function == [b"function"]
            arrived: list[bytes] = []
            while len(arrived) < len(big):
                arrived += (await node.hear(m.Assign))[1]
            assert arrived == big
            said = outcomes(lease.lease, [m.Run(0, 1, m.Kind.RESULT, 1)])
            await node.say(said, (b"result",))
            _, payload = await client.hear(m.JobOutcomes)
            client.close()
            node.close()
            return payload

    assert asyncio.run(play()) == [b"result"]
    kept = {"keys"} if kind == "tcp" else {"s.jobs.sqlite3"}
    there = {path.name for path in tmp_path.iterdir()} - {"s.nodes"}  # once nodes are known
    assert there == kept


def test_what_comes_while_something_is_sent_is_heard_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is sent out of turn, as at a nodelet's word on a direct line, can eat the wake-up."""
    serving_now: list[tuple[server.Server, zmq.Socket[bytes]]] = []

    class Seen(server.Server):
        def __init__(self, core: Scheduler, router: zmq.Socket[bytes], *others: Any) -> None:
            super().__init__(core, router, *others)
            serving_now.append((self, router))

    monkeypatch.setattr(server, "Server", Seen)
    monkeypatch.setattr(Scheduler, "next_deadline_s", lambda core: 1e9)  # nothing else wakes it

    async def play() -> None:
        async with serving(f"ipc://{tmp_path}/s") as (context, address):
            client = Peer(context, address, None)
            await client.say(client_hello(SESSION))
            await client.hear(m.Welcome)
            seen, router = serving_now[0]
            peer = next(peer for peer, _ in seen._core.peers())
            # no turn of the loop from here on, until the edge is eaten
            assert sockets.send(client.socket, encode(client_hello(SESSION)))
            assert select.select([router.FD], [], [], 10)[0]
            while select.select([router.FD], [], [], 0)[0]:
                seen.send(Send(peer, m.Heartbeat()))
            await client.hear(m.Welcome)
            client.close()

    asyncio.run(play())


def test_malformed_frames_disturb_nobody(tmp_path: Path) -> None:
    async def play() -> None:
        async with serving(f"ipc://{tmp_path}/s") as (context, address):
            stranger, client = Peer(context, address, None), Peer(context, address, None)
            await client.say(client_hello(SESSION))
            await client.hear(m.Welcome)
            for _ in range(200):
                await stranger.send([os.urandom(40)])
                await stranger.send([b"", b""])
                await stranger.send([b"\xdd\xff\xff\xff\xff"])
                await client.send([b"\xc1" * 10])
            await client.say(client_hello(SESSION))
            await client.hear(m.Welcome)
            client.close()
            stranger.close()

    asyncio.run(play())


def test_an_answer_that_is_too_long_to_send_disturbs_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each name is allowed, all of them together are not; with 1 MiB, 1,000 nodes it would take."""
    monkeypatch.setattr(codec, "HEADER_BYTES_MAX", 4096)
    name = "\N{SLIGHTLY SMILING FACE}" * 256

    async def play() -> None:
        async with serving(f"ipc://{tmp_path}/s") as (context, address):
            client = Peer(context, address, None)
            nodes = [Peer(context, address, None) for _ in range(5)]
            for node in nodes:
                hello = node_hello(os.urandom(16), name=name, cpus=1)
                await node.say(hello)
                await node.hear(m.Welcome)
            await client.say(client_hello(SESSION))
            await client.hear(m.Welcome)
            await client.say(m.ListNodes())
            await client.say(client_hello(SESSION))
            await client.hear(m.Welcome)  # it goes on
            for peer in (client, *nodes):
                peer.close()

    asyncio.run(play())


def test_output_reaches_who_follows_the_topic(tmp_path: Path) -> None:
    async def play() -> list[bytes]:
        async with serving(f"ipc://{tmp_path}/s") as (context, address):
            client, node = Peer(context, address, None), Peer(context, address, None)
            await client.say(client_hello(SESSION))
            welcome, _ = await client.hear(m.Welcome)
            assert isinstance(welcome, m.Welcome)
            assert abs(time.time() - welcome.time_s) < 300.0
            follower = sockets.make_socket(context, zmq.SUB)
            follower.connect(welcome.publisher)
            follower.setsockopt(zmq.SUBSCRIBE, JOB)
            watch = sockets.SocketWaiter(follower)
            await node.say(node_hello(os.urandom(16)))
            await client.say(open_job(JOB, JOB), (b"function",))
            lease, _ = await node.hear(m.StartLease)
            assert isinstance(lease, m.StartLease)
            frames: list[bytes] = []
            async with asyncio.timeout(10):
                while not frames:  # the subscription takes a moment to get there
                    await node.say(m.Output(lease.lease, 1, (1,)), (b"hello\n",))
                    await watch.wait_readable(0.01)
                    frames = next(sockets.take(follower), [])
            watch.close()
            client.close()
            node.close()
            return frames

    topic, header, chunk = asyncio.run(play())
    assert (topic, chunk) == (JOB, b"hello\n")
    assert isinstance(decode([header], m.SchedulerToClient)[0], m.JobOutput)


def test_output_reaches_a_client_that_follows_nothing(tmp_path: Path) -> None:
    async def play() -> list[bytes]:
        async with serving(f"ipc://{tmp_path}/s") as (context, address):
            client, node = Peer(context, address, None), Peer(context, address, None)
            await client.say(client_hello(SESSION))
            await node.say(node_hello(os.urandom(16)))
            await client.say(open_job(JOB, JOB), (b"function",))
            lease, _ = await node.hear(m.StartLease)
            assert isinstance(lease, m.StartLease)
            await node.say(m.Output(lease.lease, 1, (1,)), (b"hello\n",))
            _, chunks = await client.hear(m.JobOutput)
            client.close()
            node.close()
            return chunks

    assert asyncio.run(play()) == [b"hello\n"]


def test_an_address_in_use_is_an_error(tmp_path: Path) -> None:
    ring = Keyring(tmp_path)

    async def play(bind: str) -> None:
        async with serving(bind, ring) as (_, address):
            await server.run(config(take_apart(address).endpoint, ring), print)

    with pytest.raises(zmq.ZMQError, match="in use"):
        asyncio.run(play("tcp://127.0.0.1:0"))


def test_whoever_waits_for_what_is_too_large_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Peers of ours do not send it; but nothing that is dropped may be waited for."""
    monkeypatch.setattr(server, "UNFINISHED_BYTES_MAX", 3 << 20)
    large = [bytes(FRAME_BYTES_MAX)] * 8

    async def play() -> list[m.Message]:
        async with serving(f"ipc://{tmp_path}/s") as (context, address):
            client, node = Peer(context, address, None), Peer(context, address, None)
            await client.say(client_hello(SESSION))
            for piece in split(open_job(b"1" * 16), large):
                await client.send(encode(*piece))
            heard = [(await client.hear(m.JobFailed))[0]]
            leaves = tuple(m.Leaf(0, at, 1, 4) for at in (0, 1))
            await client.say(open_job(b"2" * 16), (b"function",))
            for part in split(m.Inputs(job=b"2" * 16, batch=0, start=0, leaves=leaves), large):
                await client.send(encode(*part))
            heard.append((await client.hear(m.JobFailed))[0])
            await client.say(m.CloseJob(b"2" * 16))
            await node.say(node_hello(os.urandom(16)))
            await client.say(open_job(b"3" * 16), (b"function",))
            inputs = m.Inputs(job=b"3" * 16, batch=0, start=0, leaves=(m.Leaf(0, 0, 9, 1),))
            await client.say(inputs, (b"leaf",))
            lease, _ = await node.hear(m.StartLease)
            assert isinstance(lease, m.StartLease)
            run = m.Run(5, 6, m.Kind.RESULT, 8)
            for outcome in split(outcomes(lease.lease, [run], frames=large), large):
                await node.send(encode(*outcome))
            heard.append((await client.hear(m.JobFailed))[0])
            for peer in (client, node):
                peer.close()
            return heard

    function, inputs, result = asyncio.run(play())
    assert isinstance(function, m.JobFailed)
    assert (function.job, function.index) == (b"1" * 16, None)
    assert "the function, with all that it refers to, has more than 3,145,728" in function.text
    assert isinstance(inputs, m.JobFailed)
    assert (inputs.job, inputs.index) == (b"2" * 16, 0)
    assert "inputs 0 to 1 have together more than 3,145,728 bytes" in inputs.text
    assert isinstance(result, m.JobFailed)
    assert result.job == b"3" * 16
    assert "the function returned for input 5 on node n has more than 3,145,728" in result.text
