"""Which key of a scheduler took the place of which."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import zmq
from keyring import Keyring
from links import Link
from waiting import wait_until

from burla.protocol.key_messages import ServerKey
from burla.scheduler.core.admission import Role
from burla.transport.dialing import Dialer
from burla.transport.keys import (
    ClientCurve,
    KeyFileError,
    KeyPair,
    load_or_make_pair,
    load_pair,
    make_pair,
    overwrite_pair,
)
from burla.transport.server_keys import KEYS_MAX, ServerKeys, renewed
from burla.transport.sockets import make_socket

A, B, C, D = (bytes([number]) * 32 for number in range(1, 5))


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "server-keys.json")


def test_the_key_that_counts_is_likeliest_and_the_others_follow(path: str) -> None:
    now_s = [100.0]
    keys = ServerKeys(path, lambda: now_s[0])
    assert keys.candidates(A) == [A]
    keys.learn(A, B, 50.0)
    keys.learn(B, C, 200.0)
    for known in (keys, ServerKeys(path, lambda: now_s[0])):
        assert known.candidates(A) == [B, C, A]
        assert known.candidates(B) == [B, C]
        assert known.candidates(C) == [C]
        assert known.first(C) == A
        assert known.first(D) == D
    now_s[0] = 200.0
    assert keys.candidates(A) == [C, B, A]
    assert keys.now(A) == C


def test_a_time_that_is_told_anew_counts(path: str) -> None:
    keys = ServerKeys(path, lambda: 100.0)
    keys.learn(A, B, 1000.0)
    assert keys.now(A) == A
    keys.learn(A, B, 100.0)
    assert ServerKeys(path, lambda: 100.0).now(A) == B


def test_a_ring_has_an_end(path: str) -> None:
    keys = ServerKeys(path, lambda: 100.0)
    for old, new in ((A, B), (B, C), (C, A), (D, D)):
        keys.learn(old, new, 0.0)
    assert sorted(keys.candidates(A)) == [A, B, C]
    assert keys.candidates(D) == [D]
    assert keys.first(A) in (A, B, C)


def test_what_is_kept_is_bounded(path: str) -> None:
    keys = ServerKeys(path)
    for number in range(KEYS_MAX + 10):
        keys.learn(number.to_bytes(32, "big"), D, 0.0)
    assert Path(path).read_text().count("from_s") == KEYS_MAX


@pytest.mark.parametrize("text", ["", "{}", '{"format": 1, "replaced": {"ab": 1}}', "\0"])
def test_of_a_file_that_is_none_of_ours_nothing_is_believed(path: str, text: str) -> None:
    Path(path).write_text(text)
    Path(path).chmod(0o600)
    assert ServerKeys(path).candidates(A) == [A]


def test_of_a_file_that_others_can_write_nothing_is_believed(path: str) -> None:
    ServerKeys(path).learn(A, B, 0.0)
    Path(path).chmod(0o666)
    assert ServerKeys(path).now(A) == A


def test_without_a_place_it_is_kept_in_memory() -> None:
    keys = ServerKeys()
    keys.learn(A, B, 0.0)
    assert keys.now(A) == B


def test_addresses_get_the_key_of_now() -> None:
    keys = ServerKeys()
    keys.learn(A, B, 0.0)
    assert renewed(f"burla://h:1?key={A.hex()}", keys) == f"burla://h:1?key={B.hex()}"
    assert renewed("ipc:///s", keys) == "ipc:///s"


# --- key files ---


def test_a_key_is_replaced_in_the_very_file(tmp_path: Path) -> None:
    """What hides a file from jobs hides the file, not its name."""
    path = str(tmp_path / "node.key")
    load_or_make_pair(path, "a burla node")
    inode, pair = Path(path).stat().st_ino, make_pair()
    overwrite_pair(path, pair)
    assert load_pair(path) == pair
    assert Path(path).stat().st_ino == inode
    assert Path(path).read_text().startswith("# secret key of a burla node: never share it\n")
    Path(path).chmod(0o644)
    with pytest.raises(KeyFileError):
        overwrite_pair(path, make_pair())


# --- connections ---


def router_of(context: zmq.Context[Any], pair: KeyPair, port: int = 0) -> zmq.Socket[bytes]:
    """Return what listens under these keys."""
    router = make_socket(context, zmq.ROUTER)
    router.setsockopt(zmq.CURVE_SERVER, 1)
    router.setsockopt(zmq.CURVE_SECRETKEY, pair.secret)
    router.bind(f"tcp://127.0.0.1:{port or '*'}")
    return router


def port_of(router: zmq.Socket[bytes]) -> int:
    return int(router.getsockopt_string(zmq.LAST_ENDPOINT).rpartition(":")[2])


class Dialing(NamedTuple):
    tunnel: Link
    dealer: zmq.Socket[bytes]
    dialer: Dialer


@contextmanager
def dialing(context: zmq.Context[Any], curve: ClientCurve, target: int) -> Iterator[Dialing]:
    """Connect through a tunnel to a port."""
    with ExitStack() as stack:
        tunnel = Link(target)
        stack.callback(tunnel.close)
        dealer = make_socket(context, zmq.DEALER, curve)
        stack.callback(dealer.close, 0)
        dialer = Dialer(dealer, curve=curve)
        stack.callback(dialer.close)
        dialer.connect(f"tcp://127.0.0.1:{tunnel.port}")
        yield Dialing(tunnel, dealer, dialer)


def test_a_tunnel_to_where_nobody_listens_now_is_not_taken_for_another_key(tmp_path: Path) -> None:
    ring = Keyring(tmp_path / "scheduler")
    curve = ring.curve(ring.make(Role.CLIENT))
    with zmq.Context() as context:
        router = router_of(context, ring.server)
        port = port_of(router)
        router.close(0)
        with dialing(context, curve, port) as (tunnel, dealer, dialer):
            wait_until(lambda: bool(dialer.look()) or tunnel.refused > 5, "it tries on")
            assert dialer.look() is None
            router = router_of(context, ring.server, port)
            wait_until(lambda: bool(dialer.look() or dealer.poll(20, zmq.POLLOUT)), "it is in")
            assert dialer.look() is None
        router.close(0)


def test_another_key_behind_a_tunnel_is_told(tmp_path: Path) -> None:
    ring = Keyring(tmp_path / "scheduler")
    curve = ring.curve(ring.make(Role.CLIENT))
    with zmq.Context() as context:
        router = router_of(context, make_pair())
        with dialing(context, curve, port_of(router)) as (_, _, dialer):
            wait_until(lambda: dialer.look() == "server", "it says so")
        router.close(0)


def test_a_dialer_tries_the_keys_that_it_knows(tmp_path: Path) -> None:
    ring = Keyring(tmp_path / "scheduler")
    old, new = ring.server, make_pair()
    known = ServerKeys()
    curve = ClientCurve(ring.make(Role.CLIENT), old.public, known)
    with zmq.Context() as context:
        dealer = make_socket(context, zmq.DEALER, curve)
        dialer = Dialer(dealer, curve=curve)
        port = 0
        try:
            for pair in (old, new):
                router = router_of(context, pair, port)
                if not port:
                    port = port_of(router)
                    dialer.connect(f"tcp://127.0.0.1:{port}")
                    dialer.learn(ServerKey(new.public, time.time() + 1000.0))  # not yet
                wait_until(lambda: bool(dialer.look() or dealer.poll(20, zmq.POLLOUT)), "it is in")
                assert dialer.look() is None
                dealer.send(b"here")
                assert router.poll(10_000)
                assert router.recv_multipart()[1] == b"here"
                assert dialer.server == pair.public
                router.close(0)
                wait_until(lambda: not dealer.poll(20, zmq.POLLOUT), "it has noticed")
        finally:
            dialer.close()
            dealer.close(0)
