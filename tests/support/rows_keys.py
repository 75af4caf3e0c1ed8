"""Rows of the security table: who gets in at all."""

import json
import os
import socket
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import zmq
from keyring import Keyring
from opening import client_hello
from stage import LATE_MS, Stage, stage
from waiting import LATE_S, wait_until

from burla.protocol import messages as m
from burla.scheduler.core import admission
from burla.scheduler.core.admission import Role
from burla.transport.addresses import full_address
from burla.transport.keys import load_or_make_pair, make_pair
from burla.transport.sockets import make_socket

PROMISED_S = 5.0  # a wrong key is said in so many seconds
HALF_HANDSHAKES = 2000
SLOW_BYTES = 8  # of the greeting's 64, one by one
HANDSHAKE_S = 5.0  # transport.sockets: HANDSHAKE_IVL

SCRIPT = """
import sys, time
import burla
start = time.monotonic()
try:
    burla.remote_parallel_map(abs, [-1])
except burla.NotAuthorised as error:
    print(f"{time.monotonic() - start:.3f} {error}")
"""


def call(at: Stage, address: str, settings: Path) -> tuple[float, str]:
    """Let the library call a function; return after how long it was not authorised, and why."""
    script = settings / "call.py"
    script.write_text(SCRIPT)
    env = os.environ | {"BURLA_CLUSTER": address, "BURLA_CONFIG_DIR": str(settings)}
    done = at.run("script", str(script), env=env)
    assert done.returncode == 0, done.stderr
    assert done.stdout, done.stderr
    seconds, _, text = done.stdout.partition(" ")
    return float(seconds), text


def nodelet(at: Stage, address: str, settings: Path, *options: str) -> tuple[int, str]:
    """Run a nodelet to its end; return its exit code and what it said."""
    env = os.environ | {"BURLA_CONFIG_DIR": str(settings)}
    done = at.run("burla.nodelet", "--scheduler", address, "--cpus", "1", *options, env=env)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


def plain_client(directory: Path) -> None:
    with stage(directory) as at:
        plain = make_socket(at.context, zmq.DEALER)
        at.ends.callback(plain.close, 0)
        monitor = plain.get_monitor_socket(zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL)
        at.ends.callback(monitor.close, 0)
        plain.connect(at.endpoint)
        assert monitor.poll(LATE_MS), "it was let in"
        assert not plain.poll(0, zmq.POLLOUT)
        plain.disable_monitor()
        client, _ = at.client("anna")  # with keys one gets in
        subscriber = make_socket(at.context, zmq.SUB)
        at.ends.callback(subscriber.close, 0)
        monitor = subscriber.get_monitor_socket(zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL)
        at.ends.callback(monitor.close, 0)
        subscriber.connect(client.publisher)
        assert monitor.poll(LATE_MS), "it was let in"
        subscriber.disable_monitor()
        env = os.environ | {"BURLA_CLUSTER": at.endpoint}
        script = "from burla import remote_parallel_map as m; m(abs, [1])"
        (directory / "s.py").write_text(script)
        done = at.run("script", str(directory / "s.py"), env=env)
        assert "BadSetting" in done.stderr
        assert "the whole address that burla-scheduler prints" in done.stderr


def unknown_client_key(directory: Path) -> None:
    with stage(directory) as at:
        assert at.peer(make_pair()).wait_refused() == "key"
        load_or_make_pair(str(directory / "user.key"), "a stranger")
        load_or_make_pair(str(directory / "node.key"), "a stranger")
        seconds, text = call(at, at.address, directory)
        assert seconds < PROMISED_S
        assert "does not know this key" in text
        code, said = nodelet(at, at.address, directory)
        assert code == 77, said
        assert "does not know this key" in said
        assert "this key is not known to the scheduler" in at.ring.audit()
        missing = directory / "nothing"
        missing.mkdir()
        assert "burla login" in call(at, at.address, missing)[1]
        code, said = nodelet(at, at.address, missing)
        assert code == 77
        assert "--join-token-file" in said


def wrong_server_key(directory: Path) -> None:
    with stage(directory) as at:
        for name, role in (("user.key", Role.CLIENT), ("node.key", Role.NODE)):
            at.ring.add(load_or_make_pair(str(directory / name), "us"), role, "us")
        wrong = full_address(at.endpoint, make_pair().public)
        seconds, text = call(at, wrong, directory)
        assert seconds < PROMISED_S
        assert "has a different key than this address says" in text
        code, said = nodelet(at, wrong, directory)
        assert (code, "has a different key" in said) == (77, True), said
        (directory / "token").write_text(at.ring.make(Role.JOIN).secret.hex())
        options = ("--join-token-file", str(directory / "token"), "--key-file", "none")
        code, said = nodelet(at, wrong, directory, *options)
        assert (code, "has a different key" in said) == (77, True), said


def revoked_key(directory: Path) -> None:
    with stage(directory) as at:
        client, pair = at.client("anna")
        node = at.node()
        job = os.urandom(16)
        client.open(job)
        lease = node.hear(m.StartLease)[0].lease
        where = ("--dir", str(at.ring.key_store.directory))
        done = at.run("burla.cli", "auth", "revoke", "anna", "--json", *where)
        assert json.loads(done.stdout) == {"revoked": [pair.public.hex()], "in_force": True}
        client.say(m.InputsEnd(job, 1))  # the very next word
        refused, _ = client.hear(m.Refused)
        assert refused.not_authorised
        assert "revoked" in refused.reason
        assert node.hear(m.EndLease)[0] == m.EndLease(lease, discard=True)
        assert at.peer(pair).wait_refused() == "key"
        again, _ = at.client("anna")  # another key of hers is another key
        again.fence()
        silent, silent_pair = at.client("carl")
        silent.open(job)
        node.say(m.Stopped(lease))
        lease = node.hear(m.StartLease)[0].lease
        at.ring.revoke(silent_pair)
        assert at.peer(silent_pair).wait_refused() == "key"  # noticed by the handshake first
        assert node.hear(m.EndLease)[0].lease == lease  # he need not say a word for that
        assert silent.hear(m.Refused)[0].not_authorised
        at.ring.revoke(at.ring.make(Role.NODE, "n"))


def half_handshakes(directory: Path) -> None:
    with stage(directory) as at, ExitStack() as ends:
        before = at.usage().num_fds()
        greeting = b"\xff" + bytes(8) + b"\x7f\x03\x01CURVE"
        raw = []
        for number in range(HALF_HANDSHAKES):
            one = ends.enter_context(socket.create_connection(at.place(), LATE_S))
            one.sendall(greeting[: number % len(greeting)])
            raw.append(one)
        slow = ends.enter_context(socket.create_connection(at.place(), LATE_S))
        client, _ = at.client("anna")  # while all of them hang there
        assert at.usage().num_fds() > HALF_HANDSHAKES
        started_s = time.monotonic()
        alive = True
        while alive and time.monotonic() < started_s + LATE_S:  # a byte now and then buys no time
            try:
                slow.settimeout(HANDSHAKE_S / SLOW_BYTES)
                slow.sendall(b"\0")
                alive = slow.recv(64) != b"" or alive
            except TimeoutError:
                pass
            except OSError:
                alive = False
            client.fence()
        assert not alive
        wait_until(lambda: at.usage().num_fds() < before + 20, "all were hung up on", LATE_S)
        for one in raw:
            one.settimeout(LATE_S)
            while one.recv(1024):
                pass


def join_tokens(directory: Path) -> None:
    with stage(directory) as at:
        where = ("--dir", str(at.ring.key_store.directory))
        token = at.run("burla.cli", "auth", "token", *where).stdout
        assert len(token.strip()) == 64
        (directory / "token").write_text(token)
        joined = join_and_leave(at, directory, "--join-token-file", str(directory / "token"))
        entry = at.ring.key_store.read()[joined]
        assert (entry.role, entry.revoked_s) == (Role.NODE, None)
        options = ("--join-token-file", str(directory / "token"), "--key-file", "none")
        code, said = nodelet(at, at.address, directory, *options)
        assert (code, "already used" in said) == (77, True), said
        late = make_pair()
        at.ring.key_store.change(
            lambda table: admission.add(
                table, late.public.hex(), Role.JOIN, "late", time.time() - admission.TOKEN_S - 1
            )
        )
        (directory / "token").write_text(late.secret.hex())
        code, said = nodelet(at, at.address, directory, *options)
        assert (code, "or expired" in said) == (77, True), said
        peer = at.peer(at.ring.make(Role.JOIN))  # a token may say nothing else
        peer.say(client_hello())
        assert peer.hear(m.Refused)[0].not_authorised
        for secret in (token.strip(), late.secret.hex()):
            assert (
                secret
                not in at.ring.audit()
                + at.ring.key_store.directory.joinpath("keys.json").read_text()
            )


def join_and_leave(at: Stage, directory: Path, *options: str) -> str:
    """Let a nodelet join and end it; return its public key."""
    import subprocess

    line = [sys.executable, "-m", "burla.nodelet", "--scheduler", at.address, "--cpus", "1"]
    key_file = directory / "own.key"
    with (
        (directory / "nodelet.log").open("w") as log,
        subprocess.Popen(
            [*line, *options, "--key-file", str(key_file)], stdin=subprocess.DEVNULL, stderr=log
        ) as process,
    ):
        try:
            wait_until(lambda: "join as node" in at.ring.audit(), "a node joined")
        finally:
            process.terminate()
            process.wait(LATE_S)
    assert key_file.stat().st_mode & 0o077 == 0
    return load_or_make_pair(str(key_file), "").public.hex()


def loose_files(directory: Path) -> None:
    ring = Keyring(directory / "scheduler")
    at = Stage(ring, None, "", zmq.Context(), ExitStack())  # type: ignore[arg-type]  # only to run
    where = ("--dir", str(ring.key_store.directory))

    def refused(name: str, *words: str) -> None:
        done = at.run("burla.scheduler", "--bind", "tcp://127.0.0.1:0", *where)
        assert (done.returncode, "Traceback" in done.stderr) == (78, False), done.stderr
        for word in (name, *words):
            assert word in done.stderr

    for name in ("server.key", "keys.json"):
        path = ring.key_store.directory / name
        for mode in (0o640, 0o604, 0o660, 0o602):
            path.chmod(mode)
            refused(name, f"mode {mode:04o}", "chmod 600")
        path.chmod(0o600)
        path.rename(directory / "elsewhere")
        path.symlink_to(directory / "elsewhere")
        refused(name, "symbolic link")
        path.unlink()
        (directory / "elsewhere").rename(path)
    ring.key_store.directory.chmod(0o777)
    refused("server.key", "every user can write to")
    done = at.run("burla.scheduler", "init", *where)
    assert (done.returncode, "every user can write to" in done.stderr) == (78, True)
    done = at.run("burla.cli", "auth", "list", *where)
    assert (done.returncode, "every user can write to" in done.stderr) == (78, True)
    ring.key_store.directory.chmod(0o700)
    os.chown(ring.key_store.directory / "server.key", 12345, -1)
    refused("server.key", "belongs to user 12345")
    settings = directory / "settings"
    for name in ("user.key", "node.key"):
        load_or_make_pair(str(settings / name), "us")
        (settings / name).chmod(0o644)
    address = full_address("tcp://127.0.0.1:1", ring.server.public)
    code, said = nodelet(at, address, settings)
    assert (code, "mode 0644" in said) == (78, True), said
    (directory / "s.py").write_text("from burla import remote_parallel_map as m; m(abs, [1])")
    env = os.environ | {"BURLA_CLUSTER": address, "BURLA_CONFIG_DIR": str(settings)}
    done = at.run("script", str(directory / "s.py"), env=env)
    assert "BadSetting" in done.stderr
    assert "mode 0644" in done.stderr
    at.context.term()
