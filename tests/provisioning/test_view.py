"""What commands say of what they did."""

import json

import pytest

from burla.provisioning.cluster import Cluster
from burla.provisioning.config import ClusterConfig, SshConfig
from burla.provisioning.install.wheels import Wheels
from burla.provisioning.state import State
from burla.provisioning.view import View, as_json

NO_HASHES = Wheels({}, {}, is_wheelhouse=False, warning="no hashes")


def warnings(wheelhouse: str, shipped: Wheels) -> list[str]:
    index, hosts = "http://10.0.0.1/simple", SshConfig(hosts=("n1",))
    config = ClusterConfig(index=index, ssh=hosts, wheelhouse=wheelhouse)
    cluster = Cluster(State(config))
    cluster._warn(shipped)
    return cluster.warnings


def test_what_is_not_as_it_should_be_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    no_hashes, no_https = warnings("", NO_HASHES)
    assert no_hashes == "no hashes"
    assert "'http://10.0.0.1/simple': without https" in no_https
    assert warnings("auto", Wheels({}, {}, is_wheelhouse=True)) == []  # the index is not asked
    View().warn([no_hashes, no_https])
    assert capsys.readouterr().err == f"warning: no hashes\nwarning: {no_https}\n"
    assert json.loads(as_json("c", "", [], warnings=[no_hashes]))["warnings"] == ["no hashes"]
