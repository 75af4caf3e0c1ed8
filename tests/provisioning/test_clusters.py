"""Which cluster a command means, and where its keys lie."""

from pathlib import Path

import pytest

from burla.provisioning import state
from burla.provisioning.clusters import NoCluster, address_of, keys_of, state_of
from burla.provisioning.config import ClusterConfig
from burla.provisioning.core.machines import BadConfig
from burla.provisioning.state import State
from burla.scheduler.auth.key_store import KeyStore
from burla.transport.addresses import full_address


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BURLA_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("BURLA_CONFIG_DIR", str(tmp_path / "config"))
    return tmp_path


def made(name: str, keys: bool = True) -> str:
    """Have a cluster, as `burla up` leaves it; return its address."""
    address = f"ipc:///{name}"
    if keys:
        pair = KeyStore(state.directory_of(name) / "keys").make()
        address = full_address("tcp://10.0.0.1:7270", pair.public)
    state.write(State(ClusterConfig(name=name), address))
    return address


def test_the_only_one_is_meant_if_none_is_named() -> None:
    made("lab")
    assert state_of(None, None).config.name == "lab"


def test_of_several_the_one_in_use_is_meant_then_the_default_one() -> None:
    lab = made("lab")
    made("big")
    with pytest.raises(NoCluster, match="--cluster: known here: big, lab"):
        state_of(None, None)
    assert state_of(None, lab).config.name == "lab"
    made("default")
    assert state_of(None, None).config.name == "default"
    assert state_of(None, lab).config.name == "lab"
    assert state_of(None, "ipc:///elsewhere").config.name == "default"


def test_an_address_names_a_cluster_by_whichever_name_its_host_is_reached() -> None:
    lab = made("lab")
    made("big")
    assert state_of(lab.replace("10.0.0.1", "head"), None).config.name == "lab"
    with pytest.raises(NoCluster, match="was not made by `burla up` here"):
        state_of("ipc:///elsewhere", None)


@pytest.mark.parametrize("name", ["nosuch", "../lab", "", "a b", "x" * 300, "lab/"])
def test_what_is_no_cluster_is_said_with_those_there_are(name: str) -> None:
    made("lab")
    for ask in (lambda: state_of(name, None), lambda: address_of(name), lambda: keys_of(name, "")):
        with pytest.raises(NoCluster, match="known here: lab"):
            ask()


def test_an_address_is_checked() -> None:
    assert address_of("ipc:///s") == "ipc:///s"
    with pytest.raises(BadConfig, match="goes without keys"):
        address_of("tcp://h:1")


def test_keys_are_those_of_the_cluster_in_use_or_the_only_ones(home: Path) -> None:
    lab = made("lab")
    keys = state.directory_of("lab") / "keys"
    assert keys_of(None, None) == keys_of("lab", None) == keys_of(lab, None) == keys
    by_hand = KeyStore(home / "config/scheduler").make()
    with pytest.raises(NoCluster, match=r"--cluster or --dir: lab, --dir"):
        keys_of(None, None)
    assert keys_of(None, lab) == keys
    address = full_address("tcp://10.0.0.1:1", by_hand.public)
    assert keys_of(None, address) == home / "config/scheduler"


def test_what_has_no_keys_here_is_said() -> None:
    with pytest.raises(NoCluster, match="burla-scheduler init"):
        keys_of(None, None)
    made("local", keys=False)
    with pytest.raises(NoCluster, match="has no keys"):
        keys_of("local", None)
    with pytest.raises(NoCluster, match="are not on this machine"):
        keys_of(full_address("tcp://10.0.0.1:1", bytes(32)), None)


def test_a_broken_file_hinders_no_other_cluster() -> None:
    made("lab")
    broken = state.directory_of("broken")
    broken.mkdir()
    (broken / state.FILE).write_text("nonsense")
    assert state_of(None, None).config.name == "lab"
    with pytest.raises(BadConfig, match="move it out of the way"):
        state_of("broken", None)
