"""Schedulers that die in the middle of a job, hear nonsense, and are told to end."""

import os
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import zmq
from clusters import Cluster
from marked import caller, marked_cluster
from opening import client_hello, node_hello
from outcomes import outcomes
from seen import in_background, lines, slow_and_logged
from waiting import wait_gone, wait_until

import burla
from burla import remote_parallel_map
from burla.protocol import messages as m
from burla.protocol.codec import decode, encode
from burla.scheduler.core.admission import Role
from burla.shell import clients
from burla.transport.addresses import take_apart
from burla.transport.sockets import make_socket

pytestmark = pytest.mark.slow

END_S = 10.0  # after SIGTERM nothing of a daemon is left: promised


def restart_scheduler(made: Cluster) -> None:
    """Kill the scheduler and start another one at the same address."""
    made.scheduler.kill()
    made.scheduler.wait()
    endpoint = take_apart(made.address).endpoint
    line = [sys.executable, "-m", "burla.scheduler", "--bind", endpoint]
    with (made.directory / "scheduler2.log").open("a") as log:
        made.scheduler = subprocess.Popen(
            line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True
        )
    assert made.scheduler.stdout is not None
    with made.scheduler.stdout as out:
        assert out.readline().strip() == made.address


def test_the_scheduler_is_killed_and_started_again_and_the_job_goes_on(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def f(x: int) -> int:
        import time

        with open(tmp_path / "log", "ab", buffering=0) as log:
            log.write(b"%d\n" % x)
        print(f"<{x}>")
        time.sleep(0.02)
        return x

    with marked_cluster(tmp_path, 2, 2, bind="tcp://127.0.0.1:0") as (made, _):
        with in_background(lambda: remote_parallel_map(f, range(400))) as result:
            wait_until(lambda: len(lines(tmp_path)) > 100, "100 calls begun")
            restart_scheduler(made)
            assert result() == list(range(400))
        ran = Counter(map(int, lines(tmp_path)))
        assert set(ran) == set(range(400))
        assert max(ran.values()) == 1, "what ran meanwhile is not run again"
        shown = capfd.readouterr().out.split()
        assert sorted(shown) == sorted(f"<{x}>" for x in range(400))
        assert remote_parallel_map(abs, [-1, -2]) == [1, 2]


def test_the_scheduler_is_killed_while_results_stream_and_each_comes_once(tmp_path: Path) -> None:
    def f(x: int) -> bytes:
        return x.to_bytes(4, "big") * 10_000

    with marked_cluster(tmp_path, 2, 2) as (made, _):
        got = []
        for result in remote_parallel_map(f, range(3000), generator=True):
            got.append(int.from_bytes(result[:4], "big"))
            if len(got) == 300:
                restart_scheduler(made)
        assert sorted(got) == list(range(3000))


def test_the_scheduler_is_killed_amid_a_big_result_which_goes_on_where_it_was(
    tmp_path: Path,
) -> None:
    size = 200 << 20

    def f(x: int) -> Any:
        import numpy as np

        with open(tmp_path / "log", "ab", buffering=0) as log:
            log.write(b"%d\n" % x)
        return np.arange(size // 8)

    def gathered() -> int:
        (session,) = list(clients._clients[made.address]._connection.sessions.values()) or (None,)
        known = list(session._leases.known.values()) if session is not None else []
        return max((lease.gathering.due for lease in known if lease.gathering), default=0)

    with marked_cluster(tmp_path, 1, bind="tcp://127.0.0.1:0") as (made, _):
        assert remote_parallel_map(abs, [-1]) == [1]
        with in_background(lambda: remote_parallel_map(f, [0])) as result:
            wait_until(lambda: gathered() > size // 8, "some of it has come")
            restart_scheduler(made)
            (array,) = result()
        assert (array == range(size // 8)).all()
        assert lines(tmp_path) == ["0"]


# --- peers that lie ---


def connect(
    context: zmq.Context[zmq.Socket[bytes]], made: Cluster, role: Role = Role.CLIENT
) -> zmq.Socket[bytes]:
    curve = made.keyring.curve(made.keyring.make(role)) if made.keyring is not None else None
    dealer = make_socket(context, zmq.DEALER, curve)
    dealer.setsockopt(zmq.LINGER, 500)
    dealer.setsockopt(zmq.RCVTIMEO, 20_000)
    dealer.setsockopt(zmq.SNDTIMEO, 20_000)
    dealer.connect(take_apart(made.address).endpoint)
    return dealer


def junk(chance: Any) -> Iterator[list[bytes]]:
    """Yield messages that nobody should ever send."""
    yield [b""]
    yield [b"\xc1"]
    yield [b"\x93\x01\x02"]
    yield [b"[" * 10_000]
    yield [b"\x91" * 100_000]
    yield [b"\xdd\xff\xff\xff\xff"]
    yield [chance(3_000_000)]
    yield [b"x"] * 5000
    yield encode(m.Welcome(bytes(16), "0", "tcp://127.0.0.1:1"))
    yield encode(m.Heartbeat())
    yield encode(m.Stopped(bytes(16)))
    yield encode(m.CloseJob(bytes(16)))
    yield encode(m.InputsEnd(bytes(16), 7))
    yield encode(m.Retracted(bytes(16), (m.Span(1 << 50, 0, 1 << 53),)))
    said = outcomes(bytes(16), [m.Run(0, 9, m.Kind.RESULTS, 1)])
    yield encode(said, [b"cos\nsystem\n(S'true'\ntR."])
    for size in (1, 10, 100, 1000):
        yield [chance(size)]
        yield [*encode(m.Heartbeat())[:1], chance(size)]


def test_malformed_frames_from_raw_sockets_disturb_nobody(tmp_path: Path) -> None:
    with marked_cluster(tmp_path, 2, bind="tcp://127.0.0.1:0") as (made, _):
        host, port = take_apart(made.address).endpoint.removeprefix("tcp://").split(":")
        with in_background(
            lambda: remote_parallel_map(slow_and_logged(tmp_path, 0.02), range(100))
        ) as result:
            wait_until(lambda: len(lines(tmp_path)) > 10, "10 calls begun")
            with zmq.Context() as context:
                for hello, role in (
                    (None, Role.CLIENT),
                    (client_hello(os.urandom(16)), Role.CLIENT),
                    (node_hello(os.urandom(16), python="3.99"), Role.NODE),
                ):
                    with connect(context, made, role) as liar:
                        if hello is not None:
                            liar.send_multipart(encode(hello))
                        for frames in junk(os.urandom):
                            liar.send_multipart(frames)
            for data in (b"GET / HTTP/1.1\r\n\r\n", os.urandom(5000), b"\xff" + bytes(9) + b"\x7f"):
                with socket.create_connection((host, int(port))) as raw:
                    raw.sendall(data)
            assert result() == list(range(100))
        assert made.scheduler.poll() is None
        assert made.nodelets[0].poll() is None
        assert remote_parallel_map(abs, [-3]) == [3]
        assert max(Counter(lines(tmp_path)).values()) == 1


def ask(dealer: zmq.Socket[bytes], hello: m.Message) -> object:
    dealer.send_multipart(encode(hello))
    return decode(dealer.recv_multipart(), m.SchedulerToClient | m.SchedulerToNodelet)[0]


def test_another_protocol_is_refused_in_one_clear_line(tmp_path: Path) -> None:
    with marked_cluster(tmp_path) as (made, _), zmq.Context() as context:
        for hello in (client_hello(protocol=99), node_hello(protocol=99, version="9.9")):
            with connect(context, made) as dealer:
                said = ask(dealer, hello)
            assert isinstance(said, m.Refused)
            assert "\n" not in said.reason
            for word in (
                f"protocol {m.PROTOCOL}",
                "protocol 99",
                "upgrades the cluster with `burla up`",
            ):
                assert word in said.reason


@contextmanager
def beating(dealer: zmq.Socket[bytes]) -> Iterator[None]:
    """Let a peer seem alive."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(1.0):
            dealer.send_multipart(encode(m.Heartbeat()))

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_a_cluster_of_another_python_is_said_in_one_clear_line(tmp_path: Path) -> None:
    with (
        marked_cluster(tmp_path) as (made, _),
        zmq.Context() as context,
        connect(context, made) as other,
    ):
        assert isinstance(
            ask(other, node_hello(os.urandom(16), python="3.99", name="future")), m.Welcome
        )
        with beating(other), pytest.raises(burla.BurlaError) as caught:
            remote_parallel_map(abs, [-1])
    ours = f"{sys.version_info.major}.{sys.version_info.minor}"
    text = str(caught.value)
    assert "\n" not in text
    for word in ("3.99", ours, "future", "Python"):
        assert word in text
    assert "None" not in text, "it speaks of an argument that there is not"


# --- daemons are told to end ---

STUBBORN = """
import signal, subprocess, time
from burla import remote_parallel_map

def f(x):
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    subprocess.Popen(["sleep", "600"], start_new_session=True)
    with open("log", "ab", buffering=0) as log:
        log.write(b"%d\\n" % x)
    while True:
        time.sleep(1)

remote_parallel_map(f, range(9))
"""


@pytest.mark.parametrize("bind", ["ipc", "tcp://127.0.0.1:0"])
def test_sigterm_in_the_middle_of_stubborn_calls_leaves_nothing(tmp_path: Path, bind: str) -> None:
    home = tmp_path / "home"
    home.mkdir()
    with marked_cluster(tmp_path, 2, 2, bind=bind.removeprefix("ipc")) as (made, mark):
        with caller(STUBBORN, home, cluster=made.address):
            wait_until(lambda: len(lines(home)) == 4, "all slots are in a call")
            left = mark.processes()
            assert len(left) >= 3 + 2 + 4 + 4
            daemons = [*made.nodelets, made.scheduler]
            for daemon in daemons:
                daemon.terminate()
            wait_gone(left, END_S)
            assert [daemon.wait() for daemon in daemons] == [0, 0, 0]
        assert not list(tmp_path.glob("s*.pub")) + list(tmp_path.glob("s"))
