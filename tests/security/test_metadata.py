"""What a cloud tells a machine about itself, and lets it say, is not for jobs.

A server in a network of its own stands for that of the cloud.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from clusters import cluster
from marked import marked

from burla import remote_parallel_map
from burla.shell import clients

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

SERVER = """
import socket, subprocess, sys, threading
for line in (
    "link set lo up",
    "addr add 169.254.169.254/32 dev lo",
    "addr add 10.9.9.9/32 dev lo",
    "addr add fd20:ce::254/128 dev lo nodad",
    "addr add fd20:ce::255/128 dev lo nodad",
):
    subprocess.run(["ip", *line.split()], check=True)
for host in ("169.254.169.254", "10.9.9.9", "fd20:ce::254", "fd20:ce::255"):
    for port in (80, 53):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        one = socket.create_server((host, port), family=family)
        def serve(one=one):
            while True:
                one.accept()[0].sendall(b"told")
        threading.Thread(target=serve, daemon=True).start()
print("ready", flush=True)
sys.stdin.read()
"""


@contextmanager
def cloud() -> Iterator[int]:
    """Yield a process in whose network the server is."""
    line = ["unshare", "--net", sys.executable, "-c", SERVER]
    pipe = subprocess.PIPE
    with subprocess.Popen(line, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process.pid
        process.stdin.close()


def ask(where: tuple[str, int]) -> str:
    import socket

    try:
        with socket.create_connection(where, timeout=1) as one:
            return one.recv(4).decode()
    except OSError:
        return "unreachable"


def test_a_job_does_not_reach_what_the_cloud_tells_its_machine(tmp_path: Path) -> None:
    open_to_all = [("10.9.9.9", 80), ("fd20:ce::255", 80)]
    names = [("169.254.169.254", 53), ("fd20:ce::254", 53)]  # its resolver, too
    shut = [("169.254.169.254", 80), ("fd20:ce::254", 80)]
    with cloud() as pid, marked(), cluster(tmp_path, isolation="best") as made:
        made.add_node(1, prefix=("nsenter", "--net", "--target", str(pid)))
        try:
            said = remote_parallel_map(ask, [*open_to_all, *names, *shut], unpack=False)
        finally:
            if (client := clients._clients.pop(made.address, None)) is not None:
                client.close()
        log = (made.directory / "node0.log").read_text()
        assert "isolation: uid\n" in log
        assert said == ["told"] * 4 + ["unreachable"] * 2
