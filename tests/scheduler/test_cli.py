"""`burla-scheduler` as a process: what it says, where it listens, how it ends."""

import contextlib
import errno
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq
from keyring import Keyring

from burla.protocol.codec import decode, encode
from burla.protocol.messages import Heartbeat, HelloRequired
from burla.scheduler import cli
from burla.scheduler.config import ConfigError, SchedulerConfig
from burla.scheduler.core.admission import Role
from burla.transport.addresses import AddressError, take_apart
from burla.transport.sockets import make_socket

LATE_S = 20


@contextlib.contextmanager
def scheduler(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    pipe = subprocess.PIPE
    line = [sys.executable, "-m", "burla.scheduler", *arguments]
    with subprocess.Popen(line, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()  # nothing, if it has been waited for


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def ended(*arguments: str) -> tuple[int, str]:
    with scheduler(*arguments) as process:
        _, err = process.communicate(timeout=LATE_S)
        return process.returncode, err


def answers(endpoint: str, ring: Keyring | None = None) -> bool:
    """Return whether a scheduler at `endpoint` answers a peer that it does not know."""
    curve = ring.curve(ring.make(Role.CLIENT)) if ring is not None else None
    with zmq.Context() as context, make_socket(context, zmq.DEALER, curve) as peer:
        peer.connect(endpoint)
        peer.poll(LATE_S * 1000, zmq.POLLOUT)
        peer.send_multipart(encode(Heartbeat()))
        if not peer.poll(LATE_S * 1000):
            return False
        message, _ = decode(peer.recv_multipart(), HelloRequired)
        return isinstance(message, HelloRequired)


@pytest.fixture
def short() -> Iterator[Path]:
    """Return a directory whose path leaves room for a socket in it."""
    with tempfile.TemporaryDirectory(prefix="bs", dir="/tmp") as directory:
        yield Path(directory)


@pytest.mark.parametrize("bind", ["tcp://127.0.0.1:0", "tcp://10.1.2.3:1", "tcp://host:1"])
def test_nobody_listens_on_tcp_without_keys(bind: str, tmp_path: Path) -> None:
    for keys in (None, tmp_path):
        with pytest.raises(ConfigError, match="refusing to listen on " + re.escape(bind)):
            SchedulerConfig(bind=bind, keys=keys)
    Keyring(tmp_path)
    assert SchedulerConfig(bind=bind, keys=tmp_path).keys == tmp_path


def test_a_malformed_address_is_no_setting() -> None:
    with pytest.raises(AddressError):
        SchedulerConfig(bind="127.0.0.1")


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_port_0_picks_one_that_takes_connections_until_a_signal(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    ring = Keyring(tmp_path)
    with scheduler("--bind", "tcp://127.0.0.1:0", "--dir", str(tmp_path)) as process:
        address = first_line(process)
        key = ring.server.public.hex()
        found = re.fullmatch(rf"burla://127\.0\.0\.1:(\d+)\?key={key}", address)
        assert found, address
        port = int(found[1])
        socket.create_connection(("127.0.0.1", port), LATE_S).close()
        process.send_signal(number)
        out, err = process.communicate(timeout=LATE_S)
        assert (out, process.returncode) == ("", code), err
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), LATE_S)


@pytest.mark.slow
def test_a_socket_file_is_for_this_user_and_gone_at_the_end(short: Path) -> None:
    with scheduler("--bind", f"ipc://{short}/s") as process:
        assert first_line(process) == f"ipc://{short}/s"
        files = sorted(short.iterdir())
        assert files
        assert all(file.stat().st_mode & 0o077 == 0 for file in files)
        process.terminate()
        process.communicate(timeout=LATE_S)
    left = list(short.iterdir())  # for its next life, once it knows which nodes there are
    assert {file.name for file in left} <= {"s.nodes"}
    assert all(file.stat().st_mode & 0o077 == 0 for file in left)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["tcp", "ipc"])
def test_an_address_in_use_is_said_in_words_and_left_to_its_user(scheme: str, short: Path) -> None:
    bind = f"ipc://{short}/s" if scheme == "ipc" else "tcp://127.0.0.1:0"
    keys = ("--dir", str(short / "keys"))
    ring = Keyring(short / "keys")
    with scheduler("--bind", bind, *keys) as one:
        whole = first_line(one)
        address = take_apart(whole).endpoint
        code, err = ended("--bind", address, *keys)
        assert code == 75
        assert err == (
            f"burla-scheduler: cannot listen on {address}: the address is in use, "
            "perhaps by another burla-scheduler: end that, or pass another one by --bind\n"
        )
        assert answers(address, ring if scheme == "tcp" else None)
        one.terminate()
        assert one.wait(LATE_S) == 0


@pytest.mark.slow
def test_a_socket_file_of_a_dead_scheduler_is_taken_over(short: Path) -> None:
    with scheduler("--bind", f"ipc://{short}/s") as one:
        first_line(one)
        one.kill()
        one.wait()
    assert (short / "s").exists()
    with scheduler("--bind", f"ipc://{short}/s") as two:
        assert first_line(two) == f"ipc://{short}/s"
        two.terminate()
        assert two.wait(LATE_S) == 0


@pytest.mark.slow
def test_a_file_that_is_no_socket_is_not_touched(short: Path) -> None:
    (short / "precious").write_text("x")
    code, err = ended("--bind", f"ipc://{short}/precious")
    assert (code, (short / "precious").read_text()) == (78, "x")
    assert "exists and is not a socket" in err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bind", "code", "words"),
    [
        ("tcp://0.0.0.0:0", 78, "without keys: run `burla-scheduler init --dir /"),
        ("127.0.0.1:7270", 2, "'127.0.0.1:7270' is not the address of a scheduler"),
        ("ipc:///no/such/place/s", 78, "no such directory"),
    ],
)
def test_an_address_that_cannot_be_used_is_explained(
    bind: str, code: int, words: str, tmp_path: Path
) -> None:
    found, err = ended("--bind", bind, "--dir", str(tmp_path))
    assert (found, words in err, "Traceback" in err) == (code, True, False), err


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENODEV, "that is no address of this machine, as a number: `ip address` lists"),
        (errno.EADDRNOTAVAIL, "this machine has no such address: `ip address` lists"),
        (errno.EADDRINUSE, "end that, or pass another one by --bind"),
    ],
)
def test_what_keeps_it_from_listening_is_explained(number: int, words: str) -> None:
    said = str(cli._explained(zmq.ZMQError(number), "tcp://h:1"))
    assert said.startswith("cannot listen on tcp://h:1: ")
    assert words in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "kind", "code"),
    [
        (("init", "--dir", "{open}"), "bad_key_file", 78),
        (("init", "--dir", "{file}"), "bad_config", 78),
        (("init", "--bind", "nonsense"), "usage", 2),
        (("init", "--no-such-option"), "usage", 2),
        (("--bind", "nonsense"), "usage", 2),
        (("--bind", "ipc:///no/such/place/s"), "bad_config", 78),
        (("--bind", "tcp://127.0.0.1:0", "--dir", "{none}"), "bad_config", 78),
        (("--bind", "tcp://127.0.0.1:{port}", "--dir", "{keys}"), "address_in_use", 75),
        (("--away-limit", "nan", "--bind", "ipc:///tmp/s"), "bad_config", 78),
    ],
)
def test_with_json_an_error_is_json(
    words: tuple[str, ...], kind: str, code: int, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    Keyring(tmp_path / "keys")
    places = {name: str(tmp_path / name) for name in ("open", "file", "none", "keys")}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        places["port"] = str(taken.getsockname()[1])
        with scheduler(*(word.format(**places) for word in words), "--json") as process:
            out, err = process.communicate(timeout=LATE_S)
    said = json.loads(out)["error"]
    assert (process.returncode, said["kind"], said["exit_code"]) == (code, kind, code)
    assert said["text"]
    assert said["remedy"]
    assert "Traceback" not in err


@pytest.mark.slow
def test_with_json_the_address_is_json(short: Path) -> None:
    with scheduler("--bind", f"ipc://{short}/s", "--json") as process:
        assert json.loads(first_line(process)) == {"address": f"ipc://{short}/s"}


@pytest.mark.slow
def test_help_is_worth_reading() -> None:
    line = [sys.executable, "-m", "burla.scheduler", "--help"]
    shown = subprocess.run(line, capture_output=True, text=True, check=True).stdout
    for word in ("--bind", "ipc://", "port 0", "burla-nodelet", "BURLA_CLUSTER", "exit codes"):
        assert word in shown
    assert "--owner" not in shown


@pytest.mark.slow
def test_nobody_has_to_read_the_address(short: Path) -> None:
    line = [sys.executable, "-m", "burla.scheduler", "--bind", f"ipc://{short}/s"]
    reading, writing = os.pipe()
    os.close(reading)
    with subprocess.Popen(line, stdout=writing, stderr=subprocess.DEVNULL) as process:
        os.close(writing)
        try:
            assert answers(f"ipc://{short}/s")
            process.terminate()
            assert process.wait(LATE_S) == 0
        finally:
            process.kill()
