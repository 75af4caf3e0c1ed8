"""Real sockets on loopback: nothing stalls, nothing is lost without a word."""

import asyncio
import ctypes
import select
from collections.abc import Callable, Iterator

import pytest
import uvloop
import zmq

from burla.transport import sockets
from burla.transport.keys import ClientCurve, KeyPair, ServerCurve

Make = Callable[[int], zmq.Socket[bytes]]


@pytest.fixture
def make() -> Iterator[Make]:
    """Make sockets that are closed when the test is over."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    made: list[zmq.Socket[bytes]] = []

    def make(kind: int) -> zmq.Socket[bytes]:
        made.append(sockets.make_socket(context, kind))
        return made[-1]

    yield make
    for socket in made:
        socket.close(linger=0)
    context.term()


def test_two_sockets_that_write_to_each_other_never_stall(make: Make) -> None:
    """The FD is edge-triggered: a send can eat the wake-up of a message that came in."""
    rounds = 3000

    async def play() -> int:
        router = make(zmq.ROUTER)
        router.bind("tcp://127.0.0.1:0")
        dealer = make(zmq.DEALER)
        dealer.connect(router.getsockopt_string(zmq.LAST_ENDPOINT))

        async def answer() -> None:
            watch = sockets.SocketWaiter(router)
            got = 0
            while got < rounds:
                await watch.wait_readable(None)
                for frames in sockets.take(router):
                    got += 1
                    sockets.send(router, frames)
                    sockets.send(router, frames)
            watch.close()

        async def ask() -> int:
            watch = sockets.SocketWaiter(dealer)
            got, sent = 0, 0
            while got < 2 * rounds:
                if sent < rounds and sockets.send(dealer, [b"x"]):
                    sent += 1
                await watch.wait_readable(0.001 if sent < rounds else None)
                got += sum(1 for _ in sockets.take(dealer))
            watch.close()
            return got

        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            group.create_task(answer())
            asked = group.create_task(ask())
        return asked.result()

    assert asyncio.run(play()) == 2 * rounds


def test_who_sends_on_a_socket_that_another_waits_for_wakes_that_one(make: Make) -> None:
    async def play() -> list[list[bytes]]:
        ours, others = make(zmq.PAIR), make(zmq.PAIR)
        ours.bind("inproc://edge")
        others.connect("inproc://edge")
        watch = sockets.SocketWaiter(ours)
        waiting = asyncio.create_task(watch.wait_readable(None))
        await asyncio.sleep(0)
        assert sockets.send(others, [b"news"])
        # libzmq looks for what has come at some sends only, as time goes
        while select.select([ours.FD], [], [], 0)[0]:
            assert sockets.send(ours, [b""])
            for _ in sockets.take(others):
                continue
            watch.used()
        async with asyncio.timeout(10):
            await waiting
        watch.close()
        return list(sockets.take(ours))

    assert asyncio.run(play()) == [[b"news"]]


def test_a_send_to_a_peer_that_is_gone_is_an_error(make: Make) -> None:
    router = make(zmq.ROUTER)
    with pytest.raises(zmq.ZMQError, match="Host unreachable"):
        sockets.send(router, [b"nobody", b"x"])


def test_a_full_pipe_is_told_and_the_outbox_keeps_the_order(make: Make) -> None:
    pair = [make(zmq.PAIR) for _ in range(2)]
    pair[0].bind("inproc://full")
    pair[1].connect("inproc://full")
    outbox, numbers = sockets.Outbox(), range(5 * sockets.HWM)
    for number in numbers:
        frames = [b"%d" % number]
        if outbox or not sockets.send(pair[0], frames):
            outbox.put(frames)
    assert outbox
    got: list[int] = []
    while len(got) < len(numbers):
        got += [int(frames[0]) for frames in sockets.take(pair[1])]
        outbox.flush(pair[0])
    assert got == list(numbers)


def test_a_turn_takes_a_bounded_number_of_messages(make: Make) -> None:
    pair = [make(zmq.PAIR) for _ in range(2)]
    pair[0].bind("inproc://turn")
    pair[1].connect("inproc://turn")
    for _ in range(2 * sockets.DRAIN_MESSAGES):
        sockets.send(pair[0], [b"x"])
    assert 0 < sum(1 for _ in sockets.take(pair[1])) <= sockets.DRAIN_MESSAGES


def test_wake_ends_a_wait(make: Make) -> None:
    async def wait() -> None:
        watch = sockets.SocketWaiter(make(zmq.DEALER))
        asyncio.get_running_loop().call_soon(watch.wake)
        async with asyncio.timeout(10):
            await watch.wait_readable(None)
        watch.close()

    asyncio.run(wait())


def test_what_a_caller_takes_is_its_own_and_what_a_daemon_takes_may_stay_in_place(
    make: Make,
) -> None:
    pair = [make(zmq.PAIR) for _ in range(2)]
    pair[0].bind("inproc://own")
    pair[1].connect("inproc://own")
    big = bytes(1 << 20)
    for take, kind in ((sockets.take, bytes), (sockets.take_in_place, memoryview)):
        pair[0].send_multipart([b"small", big])
        pair[1].poll(20_000)
        ((small, large),) = list(take(pair[1]))
        assert type(small) is bytes
        assert type(large) is kind
        assert large == big


def test_an_alarm_rings_sooner_when_it_is_told_to_and_at_once_when_it_was_rung_before() -> None:
    async def main() -> None:
        alarm = sockets.Alarm()
        alarm.hurry(0)  # nobody waits: nothing to make shorter
        assert not alarm.is_set()
        waiting = asyncio.create_task(alarm.wait(1000))
        await asyncio.sleep(0)
        alarm.hurry(0.001)
        await waiting
        alarm.wake()
        await alarm.wait(None)
        assert not alarm.is_set()
        waiting = asyncio.create_task(alarm.wait(None))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        alarm.wake()  # nobody waits any more
        alarm.wake()
        await alarm.wait(None)

    asyncio.run(main())


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_an_alarm_is_hurried_again_and_again(run: Callable[..., None]) -> None:
    """What is due now has no timer on uvloop."""

    async def main() -> None:
        alarm = sockets.Alarm()
        for delays_s in ((500, 0), (0, 0), (500, 400, -1)):
            waiting = asyncio.create_task(alarm.wait(1000))
            await asyncio.sleep(0)
            for delay_s in delays_s:
                alarm.hurry(delay_s)
            await waiting
        await alarm.wait(0)
        alarm.close()

    run(main())


def test_a_big_frame_that_came_is_passed_on_in_place_and_stays_as_it_is(make: Make) -> None:
    """A relay would else wake a thread for each, and copy nothing less."""
    pairs = [[make(zmq.PAIR) for _ in range(2)] for _ in range(2)]
    for name, (one, other) in enumerate(pairs):
        one.bind(f"inproc://{name}")
        other.connect(f"inproc://{name}")
    value = bytes(range(256)) * sockets.COPY_BYTES
    assert sockets.send(pairs[0][0], [b"first", value])
    ((_, came),) = sockets.take_in_place(pairs[0][1])
    assert sockets.send(pairs[1][0], [b"again", came])
    assert sockets.send(pairs[1][0], [b"part", memoryview(came)[5:]])  # type: ignore[list-item]  # any buffer
    whole, part = sockets.take_in_place(pairs[1][1])
    assert [bytes(x) for x in whole] == [b"again", value]
    assert [bytes(x) for x in part] == [b"part", value[5:]]
    assert _address(whole[1]) == _address(came) != _address(part[1])
    assert came == value


def test_what_is_held_is_a_copy_that_goes_out_in_place(make: Make) -> None:
    pair = [make(zmq.PAIR) for _ in range(2)]
    pair[0].bind("inproc://held")
    pair[1].connect("inproc://held")
    memory = bytearray(b"x" * 2 * sockets.COPY_BYTES)
    held = sockets.hold(memoryview(memory)[: sockets.COPY_BYTES])
    memory[:] = bytes(len(memory))
    for _ in range(2):  # what is not acknowledged is sent again
        assert sockets.send(pair[0], [held])  # type: ignore[list-item]  # any buffer
    for (frame,) in sockets.take_in_place(pair[1]):
        assert frame == held == b"x" * sockets.COPY_BYTES
        assert _address(frame) == _address(held)


def _address(buffer: object) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))  # type: ignore[arg-type]  # writable


def test_the_kernel_finds_out_how_much_a_long_line_holds() -> None:
    """Buffers of a size that is said are at most net.core.wmem_max, 208 KiB where nobody cared."""
    public, secret = zmq.curve_keypair()
    pair = KeyPair(public, secret)
    with zmq.Context() as context:
        for kind, curve in (
            (zmq.DEALER, ClientCurve(pair, public)),
            (zmq.ROUTER, ServerCurve(pair, "nodes")),
        ):
            socket = sockets.make_socket(context, kind, curve)
            assert socket.getsockopt(zmq.SNDBUF) == socket.getsockopt(zmq.RCVBUF) == -1
            socket.close(0)
