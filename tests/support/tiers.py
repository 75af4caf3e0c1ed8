"""Nodes in each tier of isolation, on a machine where root is. The tests must run as root."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nobody
from clusters import Cluster, cluster

from burla.shell import clients

# How a nodelet gets each tier where root is: root without capabilities may map no user.
BEFORE = {
    "uid": (),
    "namespaces": (sys.executable, nobody.__file__),
    "landlock": ("setpriv", "--bounding-set=-all", "--inh-caps=-all"),
    "process": (sys.executable, nobody.__file__),
}


@contextmanager
def nodes_of(directory: Path, tier: str, *cpus: int) -> Iterator[Cluster]:
    """Run a cluster whose nodes all have this tier, as `cluster` does over ipc.

    Args:
        directory: for logs and the socket; others must be able to enter it.
        tier: one of BEFORE.
        cpus: one number per node.
    """
    options = ("--isolation", "process") if tier == "process" else ()
    with cluster(directory, isolation="best") as made:
        try:
            Path(made.address.removeprefix("ipc://")).chmod(0o777)
            for count in cpus:
                made.add_node(count, *options, prefix=BEFORE[tier])
            yield made
            for number in range(len(cpus)):
                said = (made.directory / f"node{number}.log").read_text()
                assert f"isolation: {tier}" in said, said
        finally:
            client = clients._clients.pop(made.address, None)
            if client is not None:
                client.close()
