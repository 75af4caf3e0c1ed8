"""Our ZAP handler: who is let in, what a handshake learns, and that nothing stops it."""

import asyncio
import logging
from collections.abc import Callable

import pytest
import zmq

from burla.scheduler.auth.zap import ZapHandler, answer
from burla.transport.dialing import Dialer
from burla.transport.keys import ClientCurve, KeyPair, ServerCurve, make_pair
from burla.transport.sockets import SocketWaiter, make_socket

KEY = bytes(range(32))


def request(
    *, version: bytes = b"1.0", mechanism: bytes = b"CURVE", key: bytes = KEY
) -> list[bytes]:
    return [version, b"7", b"burla", b"1.2.3.4", b"", mechanism, key]


def test_the_answer_names_the_key() -> None:
    asked = []

    def decide(domain: str, address: str, key: str) -> str:
        asked.append((domain, address, key))
        return key

    assert answer(request(), decide) == [b"1.0", b"7", b"200", b"", KEY.hex().encode(), b""]
    assert asked == [("burla", "1.2.3.4", KEY.hex())]


def test_who_is_not_wanted_is_told_no_more() -> None:
    assert answer(request(), lambda *_: None) == [b"1.0", b"7", b"400", b"not authorised", b"", b""]


def fails(*_: str) -> str:
    raise RuntimeError("the table is on fire")


@pytest.mark.parametrize(
    "frames",
    [
        request(version=b"2.0"),
        request(mechanism=b"NULL"),
        request(mechanism=b"PLAIN"),
        request(key=b"short"),
        request()[:6],
        [*request(), b"more"],
        [],
    ],
)
def test_anything_odd_is_a_500(frames: list[bytes]) -> None:
    reply = answer(frames, lambda domain, address, key: key)
    assert reply[2] == b"500"
    assert KEY.hex().encode() not in reply


def handshake(decide: Callable[[str, str, str], str | None], pairs: list[KeyPair]) -> list[bool]:
    """Let each pair of keys knock, one after the other; return who was let in."""

    async def play() -> list[bool]:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        server = make_pair()
        zap = ZapHandler(context, decide)
        serving = asyncio.create_task(zap.serve())
        router = make_socket(context, zmq.ROUTER, ServerCurve(server, "burla"))
        router.bind("tcp://127.0.0.1:0")
        found = []
        try:
            for pair in pairs:
                dealer = make_socket(context, zmq.DEALER, ClientCurve(pair, server.public))
                dialer = Dialer(dealer)
                dialer.connect(router.getsockopt_string(zmq.LAST_ENDPOINT))
                watch = SocketWaiter(dialer.socket)
                await watch.wait_readable(20)
                watch.close()
                found.append(bool(dealer.poll(0, zmq.POLLOUT)))
                dialer.close()
                dealer.close(0)
        finally:
            serving.cancel()
            await asyncio.wait([serving])
            zap.close()
            router.close(0)
            context.term()
        return found

    return asyncio.run(play())


def test_an_answer_that_fails_lets_nobody_in_and_the_next_one_is_answered(
    caplog: pytest.LogCaptureFixture,
) -> None:
    known, fatal, unknown = make_pair(), make_pair(), make_pair()

    def decide(domain: str, address: str, key: str) -> str | None:
        if key == fatal.public.hex():
            fails()
        return key if key == known.public.hex() else None

    with caplog.at_level(logging.CRITICAL + 1):
        assert handshake(decide, [fatal, known, unknown, fatal, known]) == [
            False,
            True,
            False,
            False,
            True,
        ]
