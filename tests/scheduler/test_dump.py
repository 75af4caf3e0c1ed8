"""SIGUSR2 to a scheduler that runs: its state in a file, and it goes on."""

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from keyring import Keyring
from opening import client_hello, node_hello, open_job
from waiting import LATE_S, wait_until

from burla.protocol import messages as m
from burla.protocol.codec import decode, encode
from burla.scheduler.config import SchedulerConfig
from burla.transport.sockets import make_socket

LATE_MS = int(1000 * LATE_S)
JOBS = (b"the first job...", b"the second job..")
NODE, SESSION = b"a node, 16 bytes", b"a session of 16."
MACHINE = node_hello(NODE, name="node0")
CALLER = client_hello(SESSION, user="anna")


@pytest.fixture
def short() -> Iterator[Path]:
    """Return a directory whose path leaves room for a socket in it."""
    with tempfile.TemporaryDirectory(prefix="bs", dir="/tmp") as directory:
        yield Path(directory)


def test_the_file_lies_beside_the_socket_or_the_keys(tmp_path: Path) -> None:
    Keyring(tmp_path)
    keyed = SchedulerConfig("tcp://127.0.0.1:0", tmp_path)
    assert keyed.state_file == tmp_path / "scheduler-state.json"
    private = SchedulerConfig("ipc:///run/burla/s")
    assert private.state_file == Path("/run/burla/scheduler-state.json")


def hear(peer: zmq.Socket[bytes], kind: type[m.Message]) -> None:
    """Read on until a message of a kind has come."""
    while True:
        assert peer.poll(LATE_MS)
        said, _ = decode(peer.recv_multipart(), m.SchedulerToClient | m.SchedulerToNodelet)
        if isinstance(said, kind):
            return


def dumped(process: subprocess.Popen[str], path: Path) -> dict[str, Any]:
    """Return what a scheduler writes when it is asked."""
    process.send_signal(signal.SIGUSR2)
    wait_until(path.exists, "the state is written")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


@pytest.mark.slow
def test_a_live_scheduler_with_two_jobs_says_what_it_knows(short: Path) -> None:
    line = [sys.executable, "-m", "burla.scheduler", "--bind", f"ipc://{short}/s"]
    pipe = subprocess.PIPE
    with (
        subprocess.Popen(line, stdout=pipe, stderr=pipe, text=True) as process,
        zmq.Context() as context,
        make_socket(context, zmq.DEALER) as node,
        make_socket(context, zmq.DEALER) as client,
    ):
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            for peer, hello in ((node, MACHINE), (client, CALLER)):
                peer.connect(address)
                peer.poll(LATE_MS, zmq.POLLOUT)
                peer.send_multipart(encode(hello))
                hear(peer, m.Welcome)
            for job in JOBS:
                client.send_multipart(encode(open_job(job), [b"function"]))
            hear(node, m.StartLease)
            client.send_multipart(encode(m.ListNodes()))
            hear(client, m.Nodes)  # all that was said before has been heard
            path = short / "scheduler-state.json"
            found = dumped(process, path)
            assert path.stat().st_mode & 0o777 == 0o600
            assert [job["id"] for job in found["jobs"]] == [job.hex() for job in JOBS]
            (lease,) = found["leases"]
            assert (lease["state"], lease["node"]) == ("active", "node0")
            assert [state for _, state in lease["transitions"]] == ["active"]
            assert found["clients"][0]["jobs"] == [job.hex() for job in JOBS]
            client.send_multipart(encode(m.CloseJob(JOBS[0])))
            hear(node, m.EndLease)  # it goes on
            path.unlink()
            again = dumped(process, path)
            assert [job["id"] for job in again["jobs"]] == [JOBS[1].hex()]
            assert [each["state"] for each in again["leases"]] == ["stopping"]
            process.terminate()
            _, err = process.communicate(timeout=LATE_S)
            assert err.count(f"state written to {path}") == 2
        finally:
            process.kill()
