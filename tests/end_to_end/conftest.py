"""What the tests of the whole have in common: one cluster per file, with one node of two slots."""

from collections.abc import Iterator

import pytest
from clusters import Cluster, cluster

from burla.shell import clients


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Run a cluster that `BURLA_CLUSTER` names, here and in scripts."""
    with cluster(tmp_path_factory.mktemp("c"), 2) as made:
        try:
            yield made
        finally:
            client = clients._clients.pop(made.address, None)
            if client is not None:
                client.close()
