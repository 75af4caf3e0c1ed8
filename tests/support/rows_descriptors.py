"""Rows of the security table: connections that take all descriptors there are."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import zmq
from broken import environment
from rows_hostile import Others
from stage import Stage, limited_to, stage, tree_of_schedulers
from waiting import LATE_S, wait_until

from burla.protocol import messages as m
from burla.transport.sockets import make_socket

DESCRIPTORS = 640
CONNECTIONS = 1000  # of a stranger at any moment: more than there are descriptors


@contextmanager
def plain_connections(place: tuple[str, int]) -> Iterator[None]:
    """Keep connections open that say nothing, each made anew when it is hung up on."""
    ending = threading.Event()

    def keep() -> None:
        held: list[socket.socket] = []
        try:
            while not ending.is_set():
                try:
                    one = socket.create_connection(place, 1.0)
                except OSError:
                    ending.wait(0.01)
                    continue
                held.append(one)
                if len(held) >= CONNECTIONS:
                    held.pop(0).close()
        finally:
            for one in held:
                one.close()

    thread = threading.Thread(target=keep)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()


def is_crowded(at: Stage, log: Path) -> bool:
    return "turned away" in log.read_text() or at.usage().num_fds() > DESCRIPTORS * 0.8


def revoked_in_a_flood(directory: Path) -> None:
    """A revocation counts, and says so, while a stranger's connections take all descriptors."""
    with stage(directory, DESCRIPTORS) as at:
        anna, _ = at.client("anna")
        others = Others(at)
        others.run_a_job()
        with plain_connections(at.place()):
            log = directory / "scheduler.log"
            wait_until(lambda: is_crowded(at, log), "it is crowded")
            where = ("--dir", str(at.ring.key_store.directory))
            done = at.run("burla.cli", "auth", "revoke", "anna", "--json", *where)
            assert json.loads(done.stdout)["in_force"] is True, done.stdout + done.stderr
            anna.say(m.ListNodes())
            assert "revoked" in anna.hear(m.Refused)[0].reason
            others.live()
        others.run_a_job()
        wait_until(lambda: at.usage().num_fds() < DESCRIPTORS // 3, "they are given up")
        at.client("carl")


def local_flood(directory: Path) -> None:
    """On a socket file the scheduler stops listening before libzmq would end it, and goes on."""
    path = directory / "s"
    line = [sys.executable, "-m", "burla.scheduler", "--bind", f"ipc://{path}"]
    tree, log = tree_of_schedulers(), directory / "scheduler.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            line,
            stdout=subprocess.PIPE,
            stderr=file,
            preexec_fn=partial(limited_to, DESCRIPTORS),
            env=environment(tree),
            cwd=tree,
        )
    try:
        assert process.stdout is not None
        assert process.stdout.readline(), log.read_text()
        for _ in range(2):
            with programs(f"ipc://{path}"):
                wait_until(lambda: "turned away" in log.read_text(), "some are turned away")
                assert process.poll() is None, "it has died"
            wait_until(lambda: answers(path), "others come in again")
        assert process.poll() is None
    finally:
        process.terminate()
        process.wait(LATE_S)
        process.stdout.close()  # type: ignore[union-attr]


@contextmanager
def programs(endpoint: str) -> Iterator[None]:
    """Connect as if very many programs began to use it at once."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    context.set(zmq.MAX_SOCKETS, 4 * CONNECTIONS)
    made = [make_socket(context, zmq.DEALER) for _ in range(CONNECTIONS)]
    try:
        for one in made:
            one.connect(endpoint)
        yield
    finally:
        for one in made:
            one.close(0)
        context.term()


def answers(path: Path) -> bool:
    """Return whether who connects is greeted."""
    with socket.socket(socket.AF_UNIX) as one:
        one.settimeout(1.0)
        try:
            one.connect(os.fspath(path))
            return bool(one.recv(1))
        except OSError:
            return False
