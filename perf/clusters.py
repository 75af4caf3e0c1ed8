"""A cluster by hand: a scheduler and nodelets as processes of their own, gone afterwards."""

import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

START_S_MAX = 15.0  # until the scheduler says where it listens
END_S_MAX = 12.0  # daemons promise to be gone within 10 s


def end(process: subprocess.Popen[bytes]) -> None:
    """End `process`, and wait until it is gone."""
    process.terminate()
    try:
        process.wait(END_S_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def address_of(scheduler: subprocess.Popen[bytes]) -> str:
    """Return the address that `scheduler` prints as its first line."""
    assert scheduler.stdout is not None
    if not select.select([scheduler.stdout], [], [], START_S_MAX)[0]:
        raise TimeoutError(f"the scheduler said no address within {START_S_MAX} s")
    address = scheduler.stdout.readline().decode().strip()
    if not address:
        raise RuntimeError(f"the scheduler ended with {scheduler.wait(END_S_MAX)}")
    return address


@contextmanager
def cluster(cpus: int, nodes: int = 1) -> Iterator[str | None]:
    """Run a scheduler and `nodes` nodelets that count as `cpus` each; BURLA_CLUSTER names them.

    With 0 cpus nothing is started.
    """
    if not cpus:
        yield None
        return
    python = [sys.executable, "-m"]
    with ExitStack() as ends:
        folder = ends.enter_context(
            tempfile.TemporaryDirectory(dir="/tmp")
        )  # ipc: 107 bytes at most
        scheduler = subprocess.Popen(
            [*python, "burla.scheduler", "--bind", f"ipc://{folder}/scheduler"],
            stdout=subprocess.PIPE,
        )
        ends.callback(end, scheduler)
        address = address_of(scheduler)
        for _ in range(nodes):
            command = ["burla.nodelet", "--scheduler", address, "--cpus", str(cpus)]
            ends.callback(end, subprocess.Popen([*python, *command]))
        before = os.environ.get("BURLA_CLUSTER")
        os.environ["BURLA_CLUSTER"] = address
        try:
            yield address
        finally:
            del os.environ["BURLA_CLUSTER"]
            if before is not None:
                os.environ["BURLA_CLUSTER"] = before
